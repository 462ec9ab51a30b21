//! OpenAI's chat completions and completions with text, and code shared with other dialects.

use crate::capabilities::Capabilities;
use crate::dialect::call::{Call, grammar_of, refused_grammar, schema_value};
use crate::dialect::logprobs::Logprobs;
use crate::dialect::settings::{Counted, Field, Penalties, Setting, write};
use crate::dialect::update::{Draft, drafts, token_id, token_ids};
use crate::dialect::{Dialect, Protocol, Reader, RemoteEnd, RemoteUsage, Update, WireRequest, unsupported};
use crate::error::RemoteError;
use exsa_core::constraint::{Constraint, Grammar};
use exsa_core::request::Prompt;
use exsa_core::stream::ToolCallDelta;
use exsa_core::tools::ToolChoice;
use exsa_core::{Request, SubmitError};
use serde_json::{Map, Value, json};

/// Fields of OpenAI's own servers. `top_k`, `min_p` and others are extensions of some engines.
const FIELDS: &[Field] = &[
    Field::new(Setting::Temperature, "temperature").off(1.0),
    Field::new(Setting::TopP, "top_p").off(1.0),
    Field::new(Setting::FrequencyPenalty, "frequency_penalty").range(-2.0, 2.0),
    Field::new(Setting::PresencePenalty, "presence_penalty").range(-2.0, 2.0),
    Field::new(Setting::LogitBias, "logit_bias").range(-100.0, 100.0),
];

const PENALTIES: Penalties = Penalties { additive: Counted::Answer, repetition: Counted::Answer };

const CONSTRAINTS: &[&str] = &["json_schema", "json_object"];

/// Any server with OpenAI's API, with text instead of token ids.
pub(super) struct OpenAi {
    pub(super) text_grammar: TextGrammar,
}

/// Form of a grammar on `/v1/completions`. OpenAI's own route has none, and servers ignore unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextGrammar {
    /// `response_format`, as for conversations.
    ResponseFormat,
    /// llama-server's `json_schema`; it ignores `response_format` there.
    JsonSchema,
    /// Unknown: the engine may ignore the grammar.
    Unknown,
}

impl TextGrammar {
    /// Returns the form for an engine that lists its models as owned by `owner`, in lower case.
    pub(super) fn of_owner(owner: &str) -> Self {
        let keep = ["vllm", "sglang", "tensorrt_llm", "exsa"];
        if keep.into_iter().any(|name| owner.contains(name)) {
            return Self::ResponseFormat;
        }
        if owner.contains("llamacpp") { Self::JsonSchema } else { Self::Unknown }
    }
}

impl Protocol for OpenAi {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dialect: Dialect::OpenAi,
            route: "/v1/completions",
            ids_in: false,
            ids_out: false,
            ids_complete: false,
            chat: true,
            logprobs: true,
            constraints: CONSTRAINTS,
            text_constraints: self.text_grammar != TextGrammar::Unknown,
            forced_tools: true,
            seed_max: Some(i64::MAX as u64),
            priority: false,
            cache_salt: false,
            abort: false,
            embeddings: true,
            rerank: true,
            positional_seeds: false,
            penalties_continue: false,
            repetition_continues: false,
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
        let engine = Dialect::OpenAi.name();
        let request = without_defaults(call.request);
        let mut body = write(FIELDS, PENALTIES, &request, call.options.approximate, engine)?;
        bias_as_map(&mut body);
        common(&mut body, call);
        if let Some(constraint) = &call.request.constraint {
            let is_chat = matches!(call.request.prompt, Prompt::Chat(_));
            let form = if is_chat { TextGrammar::ResponseFormat } else { self.text_grammar };
            let (field, grammar) = match form {
                TextGrammar::ResponseFormat => ("response_format", response_format(constraint)?),
                TextGrammar::JsonSchema => ("json_schema", json_schema(constraint)?),
                TextGrammar::Unknown => {
                    let reason = "the engine is not known to keep to a grammar on /v1/completions; send a conversation, \
                                  or name the engine's own dialect";
                    return Err(unsupported("constraint", reason));
                }
            };
            body.insert(field.to_owned(), grammar);
        }
        match &call.request.prompt {
            Prompt::Chat(_) => chat(body, call),
            Prompt::Text(text) => {
                body.insert("prompt".to_owned(), json!(text));
                completion_limits(&mut body, call);
                Ok(WireRequest::new("/v1/completions", body.into()))
            }
            _ => Err(unsupported("prompt", format!("{engine} takes text, not token ids"))),
        }
    }

    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader> {
        reader(call)
    }
}

/// Turns off filters that OpenAI's API has no field for if they have Exsa's default values, since the caller
/// did not choose them.
fn without_defaults(request: &Request) -> Request {
    let mut request = request.clone();
    let (sampling, default) = (&mut request.sampling, exsa_core::SamplingParams::default());
    if sampling.top_k == default.top_k {
        sampling.top_k = None;
    }
    if sampling.min_p == default.min_p {
        sampling.min_p = 0.0;
    }
    if sampling.penalty_window == default.penalty_window {
        sampling.penalty_window = None;
    }
    sampling.penalize_prompt = false;
    request
}

/// Returns the reader for the call's route.
pub(super) fn reader(call: &Call<'_>) -> Box<dyn Reader> {
    let top = call.logprobs().unwrap_or_default() as usize;
    match call.text_or_ids() {
        None => Box::new(ChatReader { top }),
        Some(_) => Box::new(CompletionReader { top }),
    }
}

/// Fields common to all routes.
pub(super) fn common(body: &mut Map<String, Value>, call: &Call<'_>) {
    body.insert("model".to_owned(), json!(call.model));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    body.insert("seed".to_owned(), json!(call.seed()));
    if let Some(max) = call.request.max_tokens {
        body.insert("max_tokens".to_owned(), json!(max));
    }
}

/// Log-probabilities of completions: a count of tokens.
pub(super) fn completion_limits(body: &mut Map<String, Value>, call: &Call<'_>) {
    if let Some(top) = call.logprobs() {
        body.insert("logprobs".to_owned(), json!(top));
    }
}

/// Converts pairs of token and bias to OpenAI's map.
pub(super) fn bias_as_map(body: &mut Map<String, Value>) {
    let Some(Value::Array(pairs)) = body.get("logit_bias") else { return };
    let map: Map<String, Value> = pairs.iter().map(|pair| (pair[0].to_string(), pair[1].clone())).collect();
    body.insert("logit_bias".to_owned(), map.into());
}

/// Builds the request for a conversation that the engine renders.
pub(super) fn chat(mut body: Map<String, Value>, call: &Call<'_>) -> Result<WireRequest, SubmitError> {
    let request = call.request;
    let Prompt::Chat(messages) = &request.prompt else {
        return Err(unsupported("prompt", "no conversation"));
    };
    let json = |value: &dyn Fn() -> serde_json::Result<Value>| {
        value().map_err(|error| unsupported("messages", error.to_string()))
    };
    body.insert("messages".to_owned(), json(&|| serde_json::to_value(messages))?);
    if let Some(top) = call.logprobs() {
        body.insert("logprobs".to_owned(), json!(true));
        body.insert("top_logprobs".to_owned(), json!(top));
    }
    if !request.chat.tools.is_empty() {
        body.insert("tools".to_owned(), json(&|| serde_json::to_value(&request.chat.tools))?);
        let choice = match &request.tools.choice {
            ToolChoice::Auto => json!("auto"),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
            _ => return Err(unsupported("tool_choice", "it is not sent to remote engines")),
        };
        body.insert("tool_choice".to_owned(), choice);
        if !request.tools.parallel {
            body.insert("parallel_tool_calls".to_owned(), json!(false));
        }
    }
    if let Some(effort) = request.reasoning.effort {
        body.insert("reasoning_effort".to_owned(), json!(effort.name()));
    }
    let refused = [
        ("chat_template", request.chat.template.is_some()),
        ("documents", !request.chat.documents.is_empty()),
        ("chat_template_kwargs", !request.chat.variables.is_empty()),
        ("continue_final_message", request.chat.continue_final_message),
        ("add_generation_prompt", !request.chat.add_generation_prompt),
        ("enable_thinking", request.reasoning.enabled.or(request.chat.enable_thinking).is_some()),
    ];
    if let Some((name, _)) = refused.into_iter().find(|(_, used)| *used) {
        let reason = "the engine renders the conversation; with a tokenizer, it is rendered here";
        return Err(unsupported(name, reason));
    }
    Ok(WireRequest::new("/v1/chat/completions", body.into()))
}

fn response_format(constraint: &Constraint) -> Result<Value, SubmitError> {
    match grammar_of(constraint)?.0 {
        Grammar::JsonObject => Ok(json!({ "type": "json_object" })),
        Grammar::JsonSchema(schema) => {
            let schema = json!({ "name": "answer", "strict": true, "schema": schema_value(schema)? });
            Ok(json!({ "type": "json_schema", "json_schema": schema }))
        }
        _ => Err(refused_grammar(Dialect::OpenAi.name(), CONSTRAINTS)),
    }
}

/// Returns the schema of a constraint in llama-server's form.
fn json_schema(constraint: &Constraint) -> Result<Value, SubmitError> {
    match grammar_of(constraint)?.0 {
        Grammar::JsonObject => Ok(json!({ "type": "object" })),
        Grammar::JsonSchema(schema) => schema_value(schema),
        _ => Err(refused_grammar(Dialect::OpenAi.name(), CONSTRAINTS)),
    }
}

/// Returns the only choice of an event; `None` if it has none, as for the usage event.
pub(super) fn choice(value: &Value) -> Result<Option<&Value>, RemoteError> {
    match value.get("choices").and_then(Value::as_array) {
        Some(choices) => Ok(choices.first()),
        None => Err(RemoteError::Protocol(format!("an event without choices: {}", excerpt(value)))),
    }
}

pub(super) fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    text.chars().take(200).collect()
}

/// Converts the engine's finish reason, in OpenAI's terms; `stop_reason` is vLLM's.
pub(super) fn end(choice: &Value) -> Option<RemoteEnd> {
    let reason = choice.get("finish_reason")?.as_str()?;
    Some(match reason {
        "length" => RemoteEnd::Length,
        "tool_calls" | "function_call" => RemoteEnd::ToolCalls,
        "stop" => RemoteEnd::Stop(choice.get("stop_reason").and_then(|token| token_id(token).ok())),
        other => RemoteEnd::Failed(format!("the answer ended with '{other}'")),
    })
}

/// Reads completions.
pub(super) struct CompletionReader {
    /// Number of most probable tokens that the request asks for.
    pub(super) top: usize,
}

impl Reader for CompletionReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self { top: self.top })
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let usage = RemoteUsage::read(value);
        let Some(choice) = choice(value)? else { return Ok(Update { usage, ..Update::default() }) };
        let text = choice["text"].as_str().unwrap_or_default();
        let logprobs = Logprobs::read(&choice["logprobs"], self.top);
        let drafts = logprobs.drafts(token_ids(&choice["token_ids"])?, text);
        Ok(Update { drafts, end: end(choice), usage, ..Update::default() })
    }
}

/// Reads chat completions.
pub(super) struct ChatReader {
    pub(super) top: usize,
}

impl Reader for ChatReader {
    fn fresh(&self) -> Box<dyn Reader> {
        Box::new(Self { top: self.top })
    }

    fn read(&mut self, value: &Value) -> Result<Update, RemoteError> {
        let usage = RemoteUsage::read(value);
        let Some(choice) = choice(value)? else { return Ok(Update { usage, ..Update::default() }) };
        let delta = &choice["delta"];
        let text = |name: &str| delta[name].as_str().unwrap_or_default();
        let mut all = Vec::new();
        let reasoning = Some(text("reasoning")).filter(|text| !text.is_empty());
        let reasoning = reasoning.unwrap_or_else(|| text("reasoning_content"));
        let logprobs = Logprobs::read(&choice["logprobs"], self.top);
        let mut ids = token_ids(&choice["token_ids"])?;
        if !reasoning.is_empty() {
            let ids = if text("content").is_empty() { std::mem::take(&mut ids) } else { Vec::new() };
            let pieces = drafts(ids, reasoning, Vec::new());
            all.extend(pieces.into_iter().map(|draft| Draft { reasoning: true, ..draft }));
        }
        all.extend(logprobs.drafts(ids, text("content")));
        let tool_calls = delta["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        let tool_calls = tool_calls.iter().map(tool_call).collect();
        Ok(Update { drafts: all, tool_calls, end: end(choice), usage })
    }
}

fn tool_call(value: &Value) -> ToolCallDelta {
    let index = value["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or_default();
    let mut delta = ToolCallDelta::new(index);
    let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    delta.id = filled(&value["id"]);
    delta.name = filled(&value["function"]["name"]);
    delta.arguments = value["function"]["arguments"].as_str().unwrap_or_default().to_owned();
    delta
}
