//! Fields that chat completions and completions share.

use crate::body::Fields;
use crate::error::ApiError;
use exsa_core::Request;
use serde::Deserialize;
use serde_json::Value;

/// The last data of a stream.
pub(crate) const DONE: &str = "[DONE]";

/// How the answer is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery {
    /// As server-sent events.
    pub(crate) stream: bool,
    /// With a last chunk that has the usage.
    pub(crate) include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct StreamOptions {
    include_usage: bool,
}

/// Longest text of a template's variable in bytes.
const VARIABLE_BYTES_MAX: usize = 64;

impl Delivery {
    /// Takes the fields about delivery.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.take("stream")?.unwrap_or(false);
        let options: Option<StreamOptions> = fields.take("stream_options")?;
        if options.is_some() && !stream {
            let message = "stream_options is only allowed where stream is true";
            return Err(ApiError::invalid(message).param("stream_options"));
        }
        Ok(Self { stream, include_usage: options.unwrap_or_default().include_usage })
    }
}

/// Reads a request of a stranger: settings that only the host may choose keep their defaults.
pub(crate) fn read(fields: Fields) -> Result<Request, ApiError> {
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

/// Refuses variables whose value could spell a control token: templates write them as trusted text.
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
