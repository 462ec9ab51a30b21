//! SGLang: `/generate` with token ids.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, WirePrompt, grammar_of, refused_grammar, schema_value};
use crate::dialect::openai::{self, bias_as_map};
use crate::dialect::settings::{Counted, Field, Penalties, Setting, write};
use crate::dialect::update::{best, count, drafts, real, token_id, token_ids};
use crate::dialect::{Dialect, Protocol, Reader, RemoteEnd, RemoteUsage, Update, WireRequest, unsupported};
use crate::error::RemoteError;
use exsa_core::SubmitError;
use exsa_core::constraint::{Constraint, Grammar};
use exsa_core::request::Prompt;
use exsa_core::stream::TopLogprob;
use serde_json::{Map, Value, json};

/// Fields of `sampling_params`. SGLang takes omitted fields from the model's files.
const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopK, "top_k").off(-1.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::MinP, "min_p").off(0.0),
    Field::new(Setting::RepetitionPenalty, "repetition_penalty").off(1.0).range(0.01, 2.0),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty").off(0.0).range(-2.0, 2.0),
    Field::new(Setting::PresencePenalty, "presence_penalty").off(0.0).range(-2.0, 2.0),
    Field::new(Setting::LogitBias, "logit_bias").range(-100.0, 100.0),
    Field::new(Setting::MinTokens, "min_new_tokens"),
    Field::new(Setting::StopTokens, "stop_token_ids"),
    Field::new(Setting::IgnoreEos, "ignore_eos"),
];

const PENALTIES: Penalties = Penalties { additive: Counted::Answer, repetition: Counted::Answer };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object", "regex", "gbnf"];

/// SGLang.
pub(super) struct Sglang;

impl Protocol for Sglang {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: Dialect::Sglang,
            route: "/generate",
            ids_in: true,
            ids_out: true,
            ids_complete: true,
            chat: false,
            logprobs: true,
            constraints: CONSTRAINTS,
            text_constraints: true,
            forced_tools: false,
            seed_max: Some(i64::MAX as u64),
            priority: true,
            cache_salt: true,
            abort: true,
            embeddings: true,
            rerank: true,
            positional_seeds: false,
            penalties_continue: false,
            repetition_continues: false,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let request = call.request;
        let engine = Dialect::Sglang.name();
        let mut params = write(FIELDS, PENALTIES, request, call.options.approximate, engine)?;
        bias_as_map(&mut params);
        params.insert("sampling_seed".to_owned(), json!(call.seed()));
        // Without an explicit limit, SGLang stops after 128 tokens; null means up to the context.
        params.insert("max_new_tokens".to_owned(), json!(request.max_tokens));
        if let Some(constraint) = &request.constraint {
            let (name, grammar) = grammar(constraint)?;
            params.insert(name.to_owned(), grammar.into());
        }
        if !request.skip_special_tokens {
            params.insert("skip_special_tokens".to_owned(), json!(false));
        }
        let mut body = Map::new();
        match (call.prompt, &request.prompt) {
            (WirePrompt::Tokens(ids), _) | (WirePrompt::AsGiven, Prompt::Tokens(ids)) => {
                body.insert("input_ids".to_owned(), json!(ids));
            }
            (WirePrompt::AsGiven, Prompt::Text(text)) => {
                body.insert("text".to_owned(), json!(text));
            }
            _ => {
                return Err(unsupported("prompt", "conversations need a tokenizer here, which renders them"));
            }
        }
        body.insert("sampling_params".to_owned(), params.into());
        body.insert("stream".to_owned(), json!(true));
        body.insert("rid".to_owned(), json!(call.id));
        if let Some(top) = call.logprobs() {
            body.insert("return_logprob".to_owned(), json!(true));
            body.insert("top_logprobs_num".to_owned(), json!(top));
        }
        if let Some(salt) = &request.cache_salt {
            body.insert("extra_key".to_owned(), json!(salt));
        }
        if let Some(urgency) = call.urgency() {
            // Higher is more urgent, unless the server is started with --schedule-low-priority-values-first.
            body.insert("priority".to_owned(), json!(urgency - 1));
        }
        Ok(WireRequest::new("/generate", body.into()))
    }

    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader> {
        Box::new(GenerateReader::new(call.logprobs().unwrap_or_default() as usize))
    }

    fn abort(&self, id: &str) -> Option<WireRequest> {
        Some(WireRequest::new("/abort_request", json!({ "rid": id })))
    }
}

fn grammar(constraint: &Constraint) -> Result<(&'static str, String), SubmitError> {
    Ok(match grammar_of(constraint)?.0 {
        Grammar::JsonObject => ("json_schema", r#"{"type":"object"}"#.to_owned()),
        Grammar::JsonSchema(schema) => ("json_schema", schema_value(schema)?.to_string()),
        Grammar::Regex(regex) => ("regex", regex.clone()),
        Grammar::Gbnf(grammar) => ("ebnf", grammar.clone()),
        _ => return Err(refused_grammar(Dialect::Sglang.name(), CONSTRAINTS)),
    })
}

/// Reads events of `/generate`. Unless the server is started with `--incremental-streaming-output`, every
/// event contains the whole answer so far.
#[derive(Default)]
pub(super) struct GenerateReader {
    top: usize,
    /// Tokens, text bytes and log-probabilities read so far.
    tokens: usize,
    text: usize,
}

impl GenerateReader {
    /// Creates a reader for `top` most probable tokens.
    pub(super) fn new(top: usize) -> Self {
        Self { top, ..Self::default() }
    }
}

impl Reader for GenerateReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self::new(self.top))
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let meta = &value["meta_info"];
        if !meta.is_object() {
            let text = openai::excerpt(value);
            return Err(RemoteError::Protocol(format!("an event without meta_info: {text}")));
        }
        let ids = token_ids(&value["output_ids"])?;
        let text = value["text"].as_str().unwrap_or_default();
        let total = count(&meta["completion_tokens"]).unwrap_or(ids.len());
        // In an incremental stream, an event has fewer tokens than the answer so far.
        let whole = ids.len() >= total && (self.tokens == 0 || ids.len() >= self.tokens);
        let skipped = if whole { self.tokens } else { 0 };
        let new = ids.get(skipped..).unwrap_or_default().to_vec();
        let new_text = match whole || ids.is_empty() && text.len() >= self.text {
            true => text.get(self.text..).unwrap_or_default(),
            false => text,
        };
        let logprobs = logprobs(meta, new.len(), self.top);
        self.tokens += new.len();
        self.text += new_text.len();
        let prompt = count(&meta["prompt_tokens"]);
        let usage = RemoteUsage {
            prompt,
            completion: count(&meta["completion_tokens"]),
            cached: count(&meta["cached_tokens"]),
        };
        let end = end(&meta["finish_reason"]);
        Ok(Update { drafts: drafts(new, new_text, logprobs), end, usage: Some(usage), ..Update::default() })
    }
}

/// Returns the log-probabilities of the last `n` tokens.
fn logprobs(meta: &Value, n: usize, top: usize) -> Vec<(Option<f32>, Vec<TopLogprob>)> {
    let Some(list) = meta["output_token_logprobs"].as_array() else { return Vec::new() };
    let entry = |entry: &Value| {
        let found = TopLogprob::new(token_id(&entry[1]).ok(), real(&entry[0])?);
        Some(match entry[2].as_str() {
            Some(text) => found.text(text),
            None => found,
        })
    };
    let first = list.len().saturating_sub(n);
    let tops = meta["output_top_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |index: usize| {
        let entries = tops.get(index).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        best(entries.iter().filter_map(entry).collect(), top)
    };
    list.iter().enumerate().skip(first).map(|(index, item)| (real(&item[0]), of(index))).collect()
}

fn end(reason: &Value) -> Option<RemoteEnd> {
    Some(match reason["type"].as_str()? {
        "stop" => RemoteEnd::Stop(token_id(&reason["matched"]).ok()),
        "length" => RemoteEnd::Length,
        other => {
            let message = reason["message"].as_str().unwrap_or(other);
            RemoteEnd::Failed(message.to_owned())
        }
    })
}
