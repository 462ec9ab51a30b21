//! llama.cpp's llama-server, and Exsa's own server: `/completion` with token ids.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, grammar_of, refused_grammar, schema_value};
use crate::dialect::openai;
use crate::dialect::settings::{Counted, Field, Penalties, Setting, is_penalized, write};
use crate::dialect::update::{best, count, drafts, real, token_id, token_ids};
use crate::dialect::{Dialect, Protocol, Reader, RemoteEnd, RemoteUsage, Update, WireRequest, unsupported};
use crate::error::RemoteError;
use exsa_core::SubmitError;
use exsa_core::adapter::RequestAdapter;
use exsa_core::constraint::{Constraint, Grammar};
use exsa_core::stream::TopLogprob;
use serde_json::{Value, json};

const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopK, "top_k").off(0.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::MinP, "min_p").off(0.0),
    Field::new(Setting::TypicalP, "typical_p").off(1.0),
    Field::new(Setting::TopNSigma, "top_n_sigma").off(-1.0),
    Field::new(Setting::RepetitionPenalty, "repeat_penalty").off(1.0),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty").off(0.0),
    Field::new(Setting::PresencePenalty, "presence_penalty").off(0.0),
    Field::new(Setting::PenaltyWindow, "repeat_last_n"),
    Field::new(Setting::LogitBias, "logit_bias"),
    Field::new(Setting::XtcProbability, "xtc_probability").off(0.0),
    Field::new(Setting::XtcThreshold, "xtc_threshold"),
    Field::new(Setting::DynatempRange, "dynatemp_range").off(0.0),
    Field::new(Setting::DynatempExponent, "dynatemp_exponent"),
    Field::new(Setting::Mirostat, "mirostat").off(0.0),
    Field::new(Setting::MirostatTau, "mirostat_tau"),
    Field::new(Setting::MirostatEta, "mirostat_eta"),
    Field::new(Setting::AdaptiveTarget, "adaptive_target"),
    Field::new(Setting::AdaptiveDecay, "adaptive_decay"),
    Field::new(Setting::DryMultiplier, "dry_multiplier").off(0.0),
    Field::new(Setting::DryBase, "dry_base"),
    Field::new(Setting::DryAllowedLength, "dry_allowed_length"),
    Field::new(Setting::DryWindow, "dry_penalty_last_n"),
    Field::new(Setting::DrySequenceBreakers, "dry_sequence_breakers"),
    Field::new(Setting::Order, "samplers"),
    Field::new(Setting::IgnoreEos, "ignore_eos"),
];

/// Field that Exsa's server has in addition to those of llama-server.
const MIN_TOKENS: Field = Field::new(Setting::MinTokens, "min_tokens");

const PENALTIES: Penalties = Penalties { additive: Counted::All, repetition: Counted::All };

/// Penalties of Exsa, with its field `penalize_prompt`.
const EXSA_PENALTIES: Penalties = Penalties { additive: Counted::Choice, repetition: Counted::Choice };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object", "gbnf"];

/// llama-server.
pub(super) struct LlamaServer {
    /// Whether it is Exsa's own server, which returns the id of every token.
    pub(super) is_exsa: bool,
}

impl Protocol for LlamaServer {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: if self.is_exsa { Dialect::Exsa } else { Dialect::LlamaServer },
            route: "/completion",
            ids_in: true,
            ids_out: true,
            ids_complete: self.is_exsa,
            chat: true,
            logprobs: true,
            constraints: CONSTRAINTS,
            text_constraints: true,
            forced_tools: true,
            // 32 bits; the largest value means a random seed.
            seed_max: Some(if self.is_exsa { i64::MAX as u64 } else { u32::MAX as u64 - 1 }),
            priority: false,
            cache_salt: false,
            abort: false,
            embeddings: true,
            rerank: true,
            positional_seeds: false,
            penalties_continue: true,
            repetition_continues: true,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let request = call.request;
        let engine = self.capabilities().dialect.name();
        if self.is_exsa && request.sampling.min_tokens > 0 && call.has_own_stop_tokens {
            let reason = "with min_tokens, stop tokens cannot be matched here";
            return Err(unsupported("stop_tokens", reason));
        }
        // Stop tokens end the answer locally, while the engine continues to its own end.
        let mut wire = request.clone();
        wire.stop_tokens.clear();
        let fields = [FIELDS, if self.is_exsa { &[MIN_TOKENS] } else { &[] }].concat();
        let penalties = if self.is_exsa { EXSA_PENALTIES } else { PENALTIES };
        let mut body = write(&fields, penalties, &wire, call.options.approximate, engine)?;
        if self.is_exsa && !request.sampling.penalize_prompt {
            body.insert("penalize_prompt".to_owned(), json!(false));
        }
        if !request.adapters.is_empty() {
            let adapter = |it: &RequestAdapter| json!({ "name": it.name, "scale": it.scale });
            body.insert("lora".to_owned(), request.adapters.iter().map(adapter).collect());
        }
        // Newer versions refuse -1, which meant all tokens.
        let all = if self.is_exsa || call.context == 0 { json!(-1) } else { json!(call.context) };
        if is_penalized(&request.sampling) && request.sampling.penalty_window.is_none() {
            body.insert("repeat_last_n".to_owned(), all.clone());
        }
        if body.get("dry_penalty_last_n") == Some(&json!(-1)) {
            body.insert("dry_penalty_last_n".to_owned(), all);
        }
        if let Some(constraint) = &request.constraint {
            let (name, grammar) = grammar(constraint)?;
            body.insert(name.to_owned(), grammar);
        }
        let Some(prompt) = call.text_or_ids() else {
            openai::common(&mut body, call);
            return openai::chat(body, call);
        };
        body.insert("prompt".to_owned(), prompt);
        body.insert("seed".to_owned(), json!(call.seed()));
        body.insert("n_predict".to_owned(), request.max_tokens.map_or(json!(-1), Value::from));
        body.insert("stream".to_owned(), json!(true));
        body.insert("return_tokens".to_owned(), json!(true));
        body.insert("cache_prompt".to_owned(), json!(true));
        if let Some(top) = call.logprobs() {
            // Without a number, llama-server returns none at all.
            body.insert("n_probs".to_owned(), json!(top.max(1)));
        }
        Ok(WireRequest::new("/completion", body.into()))
    }

    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader> {
        match call.text_or_ids() {
            None => openai::reader(call),
            Some(_) => Box::new(CompletionReader { top: call.logprobs().unwrap_or_default() as usize }),
        }
    }
}

fn grammar(constraint: &Constraint) -> Result<(&'static str, Value), SubmitError> {
    Ok(match grammar_of(constraint)?.0 {
        Grammar::JsonObject => ("json_schema", json!({ "type": "object" })),
        Grammar::JsonSchema(schema) => ("json_schema", schema_value(schema)?),
        Grammar::Gbnf(grammar) => ("grammar", json!(grammar)),
        _ => return Err(refused_grammar(Dialect::LlamaServer.name(), CONSTRAINTS)),
    })
}

/// Reads events of `/completion`.
pub(super) struct CompletionReader {
    pub(super) top: usize,
}

impl Reader for CompletionReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self { top: self.top })
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let (Some(text), Some(stop)) = (value["content"].as_str(), value["stop"].as_bool()) else {
            let text = openai::excerpt(value);
            return Err(RemoteError::Protocol(format!("an event without content and stop: {text}")));
        };
        let logprobs = logprobs(&value["completion_probabilities"], self.top);
        // The last event may repeat the tokens of the whole answer, as in non-streamed answers.
        let ids = if stop { Vec::new() } else { token_ids(&value["tokens"])? };
        let drafts = drafts(ids, text, logprobs);
        if !stop {
            return Ok(Update { drafts, ..Update::default() });
        }
        let end = match value["stop_type"].as_str() {
            Some("limit") => RemoteEnd::Length,
            _ => RemoteEnd::Stop(None),
        };
        let cached = count(&value["timings"]["cache_n"]);
        let prompt = count(&value["tokens_evaluated"]);
        let usage = RemoteUsage {
            prompt,
            completion: count(&value["tokens_predicted"]),
            cached: cached.map(|cached| cached.min(prompt.unwrap_or(cached))),
        };
        Ok(Update { drafts, end: Some(end), usage: Some(usage), ..Update::default() })
    }
}

fn logprobs(value: &Value, n: usize) -> Vec<(Option<f32>, Vec<TopLogprob>)> {
    let Some(items) = value.as_array() else { return Vec::new() };
    let entry = |entry: &Value| {
        let found = TopLogprob::new(token_id(&entry["id"]).ok(), real(&entry["logprob"])?);
        Some(match entry["token"].as_str() {
            Some(text) => found.text(text),
            None => found,
        })
    };
    items
        .iter()
        .map(|item| {
            let top = item["top_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
            (real(&item["logprob"]), best(top.iter().filter_map(entry).collect(), n))
        })
        .collect()
}
