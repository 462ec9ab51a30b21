//! Fields common to chat completions and completions.

use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::options::ServerOptions;
use exsa_core::model_info::ModelInfo;
use exsa_core::{Message, Prompt, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The last data of a stream.
pub(crate) const DONE: &str = "[DONE]";

/// Delivery of the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery {
    /// As server-sent events.
    pub(crate) stream: bool,
    /// Whether a last chunk has the usage.
    pub(crate) include_usage: bool,
    /// Whether every chunk has the usage so far.
    pub(crate) continuous_usage: bool,
    /// Whether llama-server's times are included.
    pub(crate) timings: bool,
    /// Whether reasoning is also sent as `reasoning_content`.
    pub(crate) reasoning_content: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct StreamOptions {
    include_usage: bool,
    /// vLLM's option.
    continuous_usage_stats: bool,
}

/// Maximum bytes of a template variable.
const VARIABLE_BYTES_MAX: usize = 64;

impl Delivery {
    /// Takes the fields about delivery.
    pub(crate) fn take(fields: &mut Fields, host: &ServerOptions) -> Result<Self, ApiError> {
        let stream = fields.take("stream")?.unwrap_or(false);
        let options: Option<StreamOptions> = fields.take("stream_options")?;
        if options.is_some() && !stream {
            let message = "stream_options is only allowed where stream is true";
            return Err(ApiError::invalid(message).param("stream_options"));
        }
        let options = options.unwrap_or_default();
        let per_token: Option<bool> = fields.take("timings_per_token")?;
        let timings = fields.take("timings")?.or(per_token).unwrap_or(host.timings);
        let reasoning_content = fields.take("reasoning_content")?.unwrap_or(host.reasoning_content);
        metadata(fields)?;
        Ok(Self {
            stream,
            include_usage: options.include_usage,
            continuous_usage: options.include_usage && options.continuous_usage_stats,
            timings,
            reasoning_content,
        })
    }
}

/// Reads an untrusted request: settings reserved for the host keep their defaults.
pub(crate) fn read(mut fields: Fields) -> Result<Request, ApiError> {
    for (field, replacement) in [("functions", "tools"), ("function_call", "tool_choice")] {
        if fields.get(field).is_some() {
            let message = format!("{field} is deprecated and not supported; use {replacement}");
            return Err(ApiError::invalid(message).param(field));
        }
    }
    take_priority(&mut fields)?;
    let mut request: Request = fields.into_flattened(&[("prompt", Value::Array(Vec::new()))])?;
    let host = Request::tokens([]);
    request.parse_special = host.parse_special;
    request.weight = host.weight;
    request.chat.output_bytes_max = host.chat.output_bytes_max;
    for (name, value) in &request.chat.variables {
        check_variable(name, &serde_json::to_value(value).unwrap_or_default())?;
    }
    Ok(request)
}

/// Converts vLLM's priority number, where lower is more urgent, to a class.
fn take_priority(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(Value::Number(number)) = fields.get("priority") else { return Ok(()) };
    let number = number.as_i64().ok_or_else(|| {
        ApiError::invalid("priority: an integer, or interactive, normal or batch, is expected")
            .param("priority")
    })?;
    let class = match number {
        ..0 => "interactive",
        0 => "normal",
        1.. => "batch",
    };
    fields.set("priority", class);
    Ok(())
}

/// Converts `developer` messages to system messages if the model's template does not know that role. Those at
/// the beginning become one message, since templates accept only one.
pub(crate) fn map_roles(request: &mut Request, model: &ModelInfo) {
    const ROLE: &str = "developer";
    let Prompt::Chat(messages) = &mut request.prompt else { return };
    let known = |template: &String| template.contains(ROLE);
    if model.chat_template.as_ref().is_some_and(known) || !messages.iter().any(|m| m.role == ROLE) {
        return;
    }
    for message in messages.iter_mut().filter(|message| message.role == ROLE) {
        message.role = "system".into();
    }
    let leading = messages.iter().take_while(|message| message.role == "system").count();
    let texts: Option<Vec<String>> = messages.iter().take(leading).map(Message::text).collect();
    if let (Some(texts), 2..) = (texts, leading) {
        messages.splice(..leading, [Message::system(texts.join("\n\n"))]);
    }
}

/// Limits that OpenAI documents for `metadata`: pairs, characters of a key and of a value.
const METADATA_MAX: (usize, usize, usize) = (16, 64, 512);

/// Takes the field `metadata`, a map of strings that the answer echoes.
pub(crate) fn metadata(fields: &mut Fields) -> Result<Option<Map<String, Value>>, ApiError> {
    let (pairs, key_max, value_max) = METADATA_MAX;
    let Some(metadata) = fields.take::<Map<String, Value>>("metadata")? else { return Ok(None) };
    let fits = |value: &Value| value.as_str().is_some_and(|text| text.chars().count() <= value_max);
    let allowed = metadata.len() <= pairs
        && metadata.iter().all(|(key, value)| key.chars().count() <= key_max && fits(value));
    if allowed {
        return Ok(Some(metadata));
    }
    let message = format!(
        "metadata: up to {pairs} texts of up to {value_max} characters are allowed, under keys of up to {key_max}"
    );
    Err(ApiError::invalid(message).param("metadata"))
}

/// Refuses variables whose value could spell a control token, since templates write them as trusted text.
fn check_variable(name: &str, value: &Value) -> Result<(), ApiError> {
    let plain = |text: &str| {
        text.len() <= VARIABLE_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-. :".contains(&byte))
    };
    let allowed = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => plain(text),
        Value::Array(_) | Value::Object(_) => false,
    };
    if allowed {
        return Ok(());
    }
    let param = format!("chat_template_kwargs.{name}");
    let message = format!(
        "{param}: only numbers, true, false and texts of up to {VARIABLE_BYTES_MAX} letters, digits, spaces and \
         '_-.:' are allowed"
    );
    Err(ApiError::invalid(message).param(param))
}
