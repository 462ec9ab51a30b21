//! Requests in the form of Ollama's API.

use super::lifecycle::KeepAlive;
use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use exsa_core::Request;
use serde_json::{Map, Value, json};

/// Options with the same names as the engine's settings.
const SAME: [&str; 14] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "seed",
    "stop",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
];

/// A parsed request.
pub(super) struct Asked {
    pub(super) model: Option<String>,
    /// Whether the answer is streamed.
    pub(super) streamed: bool,
    pub(super) keep_alive: Option<KeepAlive>,
    /// `None` without a prompt: the model is loaded, or with a `keep_alive` of 0 put to sleep.
    pub(super) request: Option<Request>,
}

/// Reads a conversation.
pub(super) fn chat(mut fields: Fields) -> Result<Asked, ApiError> {
    let messages: Vec<Value> = fields.take("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return without_prompt(fields);
    }
    let messages: Vec<Value> = messages.into_iter().map(message).collect();
    let mut target = Fields::new();
    target.set("messages", messages);
    if let Some(tools) = fields.take::<Value>("tools")? {
        target.set("tools", tools);
    }
    rest(fields, target)
}

/// Reads a prompt, which is rendered with the chat template unless `raw` is set.
pub(super) fn generate(mut fields: Fields) -> Result<Asked, ApiError> {
    let prompt: String = fields.take("prompt")?.unwrap_or_default();
    let system: Option<String> = fields.take("system")?;
    let images: Vec<Value> = fields.take("images")?.unwrap_or_default();
    let raw = fields.take("raw")?.unwrap_or(false);
    for unsupported in ["suffix", "template", "context"] {
        if fields.take::<Value>(unsupported)?.is_some_and(|value| value != "" && value != json!([])) {
            return Err(ApiError::invalid(format!("{unsupported} is not supported")).param(unsupported));
        }
    }
    if prompt.is_empty() {
        return without_prompt(fields);
    }
    let mut target = Fields::new();
    if raw {
        target.set("prompt", prompt);
    } else {
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let user = message(json!({"role": "user", "content": prompt, "images": images}));
        target.set("messages", system.into_iter().chain([user]).collect::<Vec<_>>());
    }
    rest(fields, target)
}

/// Reads a request without a prompt.
fn without_prompt(mut fields: Fields) -> Result<Asked, ApiError> {
    Ok(Asked {
        model: fields.take("model")?,
        streamed: fields.take("stream")?.unwrap_or(true),
        keep_alive: KeepAlive::take(&mut fields)?,
        request: None,
    })
}

/// Reads the fields common to both kinds of requests.
fn rest(mut fields: Fields, mut target: Fields) -> Result<Asked, ApiError> {
    let streamed = fields.take("stream")?.unwrap_or(true);
    let keep_alive = KeepAlive::take(&mut fields)?;
    let model: Option<String> = fields.take("model")?;
    if let Some(model) = &model {
        target.set("model", model.as_str());
    }
    match fields.take::<Value>("format")? {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) if text == "json" => {
            target.set("response_format", json!({"type": "json_object"}));
        }
        Some(schema @ Value::Object(_)) => {
            let schema = json!({"name": "answer", "schema": schema});
            target.set("response_format", json!({"type": "json_schema", "json_schema": schema}));
        }
        Some(_) => {
            return Err(ApiError::invalid("format: \"json\" or a JSON schema is expected").param("format"));
        }
    }
    match fields.take::<Value>("think")? {
        Some(Value::Bool(think)) => target.set("chat_template_kwargs", json!({"enable_thinking": think})),
        Some(Value::String(effort)) => target.set("reasoning_effort", effort),
        _ => {}
    }
    let options: Map<String, Value> = fields.take("options")?.unwrap_or_default();
    for (name, value) in options {
        match name.as_str() {
            _ if value.is_null() => {}
            // Negative numbers mean no limit.
            "num_predict" if value.as_i64().is_some_and(|tokens| tokens < 0) => {}
            "num_predict" => target.set("max_tokens", value),
            "seed" if value.as_i64().is_some_and(|seed| seed < 0) => {}
            name if SAME.contains(&name) => target.set(name, value),
            // Other options configure the process, such as num_ctx and num_gpu, or are obsolete.
            _ => {}
        }
    }
    Ok(Asked { model, streamed, keep_alive, request: Some(request::read(target)?) })
}

/// Converts a message to OpenAI's form: images become content parts, arguments become strings.
fn message(mut message: Value) -> Value {
    let Some(fields) = message.as_object_mut() else { return message };
    if let Some(thinking) = fields.remove("thinking") {
        fields.insert("reasoning".into(), thinking);
    }
    if let Some(name) = fields.remove("tool_name") {
        fields.insert("name".into(), name);
    }
    if let Some(Value::Array(images)) = fields.remove("images").filter(|images| *images != json!([])) {
        let text = json!({"type": "text", "text": fields.remove("content").unwrap_or_default()});
        let image = |data: Value| {
            let url = format!("data:;base64,{}", data.as_str().unwrap_or_default());
            json!({"type": "image_url", "image_url": {"url": url}})
        };
        fields.insert("content".into(), [text].into_iter().chain(images.into_iter().map(image)).collect());
    }
    message
}
