//! vLLM: `/inference/v1/generate`, else `/v1/completions` with token ids.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, grammar_of, refused_grammar, schema_value};
use crate::dialect::logprobs::Logprobs;
use crate::dialect::openai::{self, bias_as_map};
use crate::dialect::probe::Served;
use crate::dialect::settings::{Counted, Field, Penalties, Setting, write};
use crate::dialect::update::token_ids;
use crate::dialect::{Dialect, Protocol, Reader, RemoteUsage, Update, WireRequest, unsupported};
use crate::error::RemoteError;
use exsa_core::SubmitError;
use exsa_core::constraint::{Constraint, Grammar};
use serde_json::{Value, json};

/// vLLM takes omitted fields from the model's `generation_config.json`, so every setting is sent.
const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopK, "top_k").off(-1.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::MinP, "min_p").off(0.0),
    Field::new(Setting::RepetitionPenalty, "repetition_penalty").off(1.0).range(0.01, 2.0),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty").off(0.0).range(-2.0, 2.0),
    Field::new(Setting::PresencePenalty, "presence_penalty").off(0.0).range(-2.0, 2.0),
    Field::new(Setting::LogitBias, "logit_bias").range(-100.0, 100.0),
    Field::new(Setting::MinTokens, "min_tokens"),
    Field::new(Setting::StopTokens, "stop_token_ids"),
    Field::new(Setting::IgnoreEos, "ignore_eos"),
];

const PENALTIES: Penalties = Penalties { additive: Counted::Answer, repetition: Counted::All };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object", "regex", "choice", "gbnf"];

/// vLLM.
pub(super) struct Vllm {
    /// Whether the engine has `/inference/v1/generate`.
    generate: bool,
}

impl Vllm {
    pub(super) fn new(served: &Served) -> Self {
        Self { generate: served.generate_route }
    }

    fn by_ids(&self, call: &Call<'_>) -> bool {
        self.generate && call.text_or_ids().is_some_and(|prompt| prompt.is_array())
    }
}

impl Protocol for Vllm {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: Dialect::Vllm,
            route: if self.generate { "/inference/v1/generate" } else { "/v1/completions" },
            ids_in: true,
            ids_out: true,
            ids_complete: true,
            chat: true,
            logprobs: true,
            constraints: CONSTRAINTS,
            text_constraints: true,
            forced_tools: true,
            seed_max: Some(i64::MAX as u64),
            priority: true,
            cache_salt: true,
            abort: self.generate,
            embeddings: true,
            rerank: true,
            positional_seeds: false,
            penalties_continue: false,
            repetition_continues: true,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let request = call.request;
        let mut body = write(FIELDS, PENALTIES, request, call.options.approximate, Dialect::Vllm.name())?;
        bias_as_map(&mut body);
        if let Some(constraint) = &request.constraint {
            body.insert("structured_outputs".to_owned(), structured_outputs(constraint)?);
        }
        if self.by_ids(call) {
            body.insert("seed".to_owned(), json!(call.seed()));
            // Without it, vLLM stops after 16 tokens.
            let Some(max) = request.max_tokens else { return Err(no_limit()) };
            body.insert("max_tokens".to_owned(), json!(max));
            if let Some(top) = call.logprobs() {
                body.insert("logprobs".to_owned(), json!(top));
            }
            // The text is produced locally.
            body.insert("detokenize".to_owned(), json!(false));
            let mut outer = serde_json::Map::new();
            outer.insert("token_ids".to_owned(), call.text_or_ids().unwrap_or_default());
            outer.insert("sampling_params".to_owned(), body.into());
            outer.insert("model".to_owned(), json!(call.model));
            outer.insert("stream".to_owned(), json!(true));
            outer.insert("stream_options".to_owned(), json!({ "include_usage": true }));
            extras(&mut outer, call);
            return Ok(WireRequest::new("/inference/v1/generate", outer.into()));
        }
        openai::common(&mut body, call);
        extras(&mut body, call);
        body.insert("return_token_ids".to_owned(), json!(true));
        if call.logprobs().is_some() {
            body.insert("return_tokens_as_token_ids".to_owned(), json!(true));
        }
        if !request.skip_special_tokens {
            body.insert("skip_special_tokens".to_owned(), json!(false));
        }
        let Some(prompt) = call.text_or_ids() else { return openai::chat(body, call) };
        if request.max_tokens.is_none() {
            return Err(no_limit());
        }
        body.insert("prompt".to_owned(), prompt);
        openai::completion_limits(&mut body, call);
        Ok(WireRequest::new("/v1/completions", body.into()))
    }

    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader> {
        match self.by_ids(call) {
            true => Box::new(GenerateReader { top: call.logprobs().unwrap_or_default() as usize }),
            false => openai::reader(call),
        }
    }

    fn abort(&self, id: &str) -> Option<WireRequest> {
        let path = "/inference/v1/abort_requests";
        // The route for token ids prefixes the given id.
        let ids = json!([format!("generate-tokens-{id}"), id]);
        self.generate.then(|| WireRequest::new(path, json!({ "request_ids": ids })))
    }
}

fn no_limit() -> SubmitError {
    unsupported("max_tokens", "vLLM needs a limit if the context or the prompt's length is unknown")
}

/// Fields that vLLM has in addition to OpenAI's.
fn extras(body: &mut serde_json::Map<String, Value>, call: &Call<'_>) {
    body.insert("request_id".to_owned(), json!(call.id));
    if let Some(salt) = &call.request.cache_salt {
        body.insert("cache_salt".to_owned(), json!(salt));
    }
    if let Some(urgency) = call.urgency() {
        // Lower is more urgent.
        body.insert("priority".to_owned(), json!(1 - urgency));
    }
}

fn structured_outputs(constraint: &Constraint) -> Result<Value, SubmitError> {
    let (grammar, any_whitespace) = grammar_of(constraint)?;
    let (mut value, is_json) = match grammar {
        Grammar::JsonObject => (json!({ "json_object": true }), true),
        Grammar::JsonSchema(schema) => (json!({ "json": schema_value(schema)? }), true),
        Grammar::Regex(regex) => (json!({ "regex": regex }), false),
        Grammar::Choice(choices) => (json!({ "choice": choices }), false),
        Grammar::Gbnf(grammar) => (json!({ "grammar": grammar }), false),
        _ => return Err(refused_grammar(Dialect::Vllm.name(), CONSTRAINTS)),
    };
    if is_json && !any_whitespace {
        value["disable_any_whitespace"] = json!(true);
    }
    Ok(value)
}

/// Reads answers of `/inference/v1/generate`.
pub(super) struct GenerateReader {
    pub(super) top: usize,
}

impl Reader for GenerateReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self { top: self.top })
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let usage = RemoteUsage::read(value);
        let Some(choice) = openai::choice(value)? else { return Ok(Update { usage, ..Update::default() }) };
        let logprobs = Logprobs::read(&choice["logprobs"], self.top);
        let drafts = logprobs.drafts(token_ids(&choice["token_ids"])?, "");
        Ok(Update { drafts, end: openai::end(choice), usage, ..Update::default() })
    }
}
