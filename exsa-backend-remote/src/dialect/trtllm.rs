//! TensorRT-LLM's `trtllm-serve`: `/v1/completions` with token ids in and out.
//!
//! It refuses unknown fields, so only fields of its classes `CompletionRequest` and `ChatCompletionRequest`
//! are sent.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, grammar_of, refused_grammar, schema_value};
use crate::dialect::openai::{self, bias_as_map};
use crate::dialect::settings::{Counted, Field, Penalties, Setting, write};
use crate::dialect::{Dialect, Protocol, Reader, WireRequest};
use exsa_core::SubmitError;
use exsa_core::constraint::{Constraint, Grammar};
use serde_json::{Value, json};

const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopK, "top_k").off(0.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::MinP, "min_p"),
    Field::new(Setting::RepetitionPenalty, "repetition_penalty"),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty"),
    Field::new(Setting::PresencePenalty, "presence_penalty"),
    Field::new(Setting::LogitBias, "logit_bias").range(-100.0, 100.0),
    Field::new(Setting::MinTokens, "min_tokens"),
    Field::new(Setting::StopTokens, "stop_token_ids"),
    Field::new(Setting::IgnoreEos, "ignore_eos"),
];

const PENALTIES: Penalties = Penalties { additive: Counted::Choice, repetition: Counted::All };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object", "regex", "gbnf"];

/// `trtllm-serve`.
pub(super) struct TensorRtLlm;

impl Protocol for TensorRtLlm {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: Dialect::TensorRtLlm,
            route: "/v1/completions",
            ids_in: true,
            ids_out: true,
            ids_complete: true,
            chat: true,
            // Their form in a stream without detokenization is undocumented.
            logprobs: false,
            constraints: CONSTRAINTS,
            text_constraints: true,
            forced_tools: true,
            seed_max: Some(i64::MAX as u64),
            priority: true,
            cache_salt: false,
            abort: false,
            embeddings: true,
            rerank: false,
            positional_seeds: false,
            penalties_continue: true,
            repetition_continues: true,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let request = call.request;
        let engine = Dialect::TensorRtLlm.name();
        let mut body = write(FIELDS, PENALTIES, request, call.options.approximate, engine)?;
        bias_as_map(&mut body);
        openai::common(&mut body, call);
        if let Some(constraint) = &request.constraint {
            body.insert("response_format".to_owned(), response_format(constraint)?);
        }
        if let Some(urgency) = call.urgency() {
            // Higher is more urgent; 0.5 is the default.
            body.insert("priority".to_owned(), json!(urgency as f64 / 2.0));
        }
        if !request.skip_special_tokens {
            body.insert("skip_special_tokens".to_owned(), json!(false));
        }
        let Some(prompt) = call.text_or_ids() else { return openai::chat(body, call) };
        let penalized = request.sampling.presence_penalty != 0.0 || request.sampling.frequency_penalty != 0.0;
        if let Some(tokens) = call.penalized_from().filter(|_| penalized) {
            body.insert("prompt_ignore_length".to_owned(), json!(tokens));
        }
        if prompt.is_array() {
            // Requests token ids instead of text.
            body.insert("detokenize".to_owned(), json!(false));
            body.insert("add_special_tokens".to_owned(), json!(false));
        }
        body.insert("prompt".to_owned(), prompt);
        Ok(WireRequest::new("/v1/completions", body.into()))
    }

    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader> {
        openai::reader(call)
    }
}

fn response_format(constraint: &Constraint) -> Result<Value, SubmitError> {
    Ok(match grammar_of(constraint)?.0 {
        Grammar::JsonObject => json!({ "type": "json_object" }),
        Grammar::JsonSchema(schema) => {
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema_value(schema)? } })
        }
        Grammar::Regex(regex) => json!({ "type": "regex", "regex": regex }),
        Grammar::Gbnf(grammar) => json!({ "type": "ebnf", "ebnf": grammar }),
        _ => return Err(refused_grammar(Dialect::TensorRtLlm.name(), CONSTRAINTS)),
    })
}
