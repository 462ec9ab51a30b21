//! Triton with TensorRT-LLM's ensemble: `/v2/models/{model}/generate_stream` with text.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, grammar_of, refused_grammar, schema_value};
use crate::dialect::openai;
use crate::dialect::probe::Served;
use crate::dialect::settings::{Counted, Field, Penalties, Setting, write};
use crate::dialect::update::{count, drafts};
use crate::dialect::{Dialect, Protocol, Reader, RemoteUsage, Update, WireRequest, unsupported};
use crate::error::RemoteError;
use exsa_core::SubmitError;
use exsa_core::constraint::{Constraint, Grammar};
use exsa_core::request::Prompt;
use serde_json::{Value, json};

/// Inputs of the ensemble model.
const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopK, "top_k").off(0.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::RepetitionPenalty, "repetition_penalty"),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty"),
    Field::new(Setting::PresencePenalty, "presence_penalty"),
    Field::new(Setting::MinTokens, "min_tokens"),
];

const PENALTIES: Penalties = Penalties { additive: Counted::All, repetition: Counted::All };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object", "regex", "gbnf"];

/// Header with the request id, for its abort.
const REQUEST_ID: &str = "triton-request-id";

/// Triton.
pub(super) struct Triton {
    model: String,
}

impl Triton {
    pub(super) fn new(served: &Served) -> Self {
        Self { model: served.models.first().cloned().unwrap_or_default() }
    }

    fn path(&self) -> String {
        format!("/v2/models/{}/generate_stream", self.model)
    }
}

impl Protocol for Triton {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: Dialect::Triton,
            route: "/v2/models/{model}/generate_stream",
            ids_in: false,
            ids_out: false,
            ids_complete: false,
            chat: false,
            logprobs: false,
            constraints: CONSTRAINTS,
            text_constraints: true,
            forced_tools: false,
            seed_max: Some(u64::MAX),
            priority: false,
            cache_salt: false,
            abort: true,
            embeddings: false,
            rerank: false,
            positional_seeds: false,
            penalties_continue: true,
            repetition_continues: true,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let request = call.request;
        let engine = Dialect::Triton.name();
        let mut wire = request.clone();
        if wire.sampling.min_p == exsa_core::SamplingParams::default().min_p {
            wire.sampling.min_p = 0.0;
        }
        let mut body = write(FIELDS, PENALTIES, &wire, call.options.approximate, engine)?;
        if body.get("temperature").and_then(Value::as_f64) == Some(0.0) {
            body.insert("temperature".to_owned(), json!(1.0));
            body.insert("top_k".to_owned(), json!(1));
        }
        if let Some(constraint) = &request.constraint {
            let (kind, guide) = guide(constraint)?;
            body.insert("guided_decoding_guide_type".to_owned(), json!(kind));
            if let Some(guide) = guide {
                body.insert("guided_decoding_guide".to_owned(), json!(guide));
            }
        }
        let Prompt::Text(text) = &request.prompt else {
            return Err(unsupported("prompt", "Triton's generate route takes text"));
        };
        let Some(max) = request.max_tokens else {
            return Err(unsupported("max_tokens", "Triton needs a limit"));
        };
        body.insert("text_input".to_owned(), json!(text));
        body.insert("max_tokens".to_owned(), json!(max));
        body.insert("seed".to_owned(), json!(call.seed()));
        body.insert("stream".to_owned(), json!(true));
        body.insert("exclude_input_in_output".to_owned(), json!(true));
        body.insert("return_num_input_tokens".to_owned(), json!(true));
        body.insert("return_num_output_tokens".to_owned(), json!(true));
        let mut wire = WireRequest::new(self.path(), body.into());
        wire.headers.push((REQUEST_ID, call.id.to_owned()));
        Ok(wire)
    }

    fn reader(&self, _call: &Call<'_>) -> Box<dyn Reader> {
        Box::new(StreamReader)
    }

    fn abort(&self, id: &str) -> Option<WireRequest> {
        let body = json!({ "text_input": "", "max_tokens": 1, "stop": true, "stream": true });
        let mut wire = WireRequest::new(self.path(), body);
        wire.headers.push((REQUEST_ID, id.to_owned()));
        Some(wire)
    }
}

/// Returns kind and text of a grammar in the terms of TensorRT-LLM's executor.
fn guide(constraint: &Constraint) -> Result<(&'static str, Option<String>), SubmitError> {
    Ok(match grammar_of(constraint)?.0 {
        Grammar::JsonObject => ("json", None),
        Grammar::JsonSchema(schema) => ("json_schema", Some(schema_value(schema)?.to_string())),
        Grammar::Regex(regex) => ("regex", Some(regex.clone())),
        Grammar::Gbnf(grammar) => ("ebnf_grammar", Some(grammar.clone())),
        _ => return Err(refused_grammar(Dialect::Triton.name(), CONSTRAINTS)),
    })
}

/// Reads the ensemble's events, which have no finish reason.
pub(super) struct StreamReader;

impl Reader for StreamReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self)
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let Some(text) = value["text_output"].as_str() else {
            let text = openai::excerpt(value);
            return Err(RemoteError::Protocol(format!("an event without text_output: {text}")));
        };
        let usage = RemoteUsage {
            prompt: count(&value["num_input_tokens"]),
            completion: count(&value["num_output_tokens"]),
            cached: None,
        };
        let drafts = drafts(Vec::new(), text, Vec::new());
        Ok(Update { drafts, usage: Some(usage), ..Update::default() })
    }

    fn ends_silently(&self) -> bool {
        true
    }
}
