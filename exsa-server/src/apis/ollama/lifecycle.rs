//! `keep_alive`, loads and unloads by requests without a prompt, and Ollama's file routes, which are not
//! supported.

use super::error::OllamaError;
use crate::access::Scope;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Time for which a model stays in memory after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// Until it is unloaded or evicted.
    Unlimited,
    /// Put to sleep after this time without requests; with zero, as soon as no request is in flight.
    For(Duration),
}

impl KeepAlive {
    /// Takes `keep_alive`: seconds, or a string such as `5m`; negative values set no limit.
    pub(super) fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let Some(value) = fields.take::<Value>("keep_alive")? else { return Ok(None) };
        let negative = match &value {
            Value::Number(number) => number.as_f64().is_some_and(|seconds| seconds < 0.0),
            Value::String(text) => text.starts_with('-'),
            _ => false,
        };
        if negative {
            return Ok(Some(Self::Unlimited));
        }
        // Some clients send numbers as strings.
        let value = match value.as_str().and_then(|text| text.parse::<f64>().ok()) {
            Some(seconds) => seconds.into(),
            None => value,
        };
        crate::models::routes::seconds("keep_alive", &value).map(|time| Some(Self::For(time)))
    }
}

impl AppState {
    /// Sets how long a ready model stays in memory, if the client may set it. A server without a registry
    /// keeps its model.
    pub(super) fn keep_alive(&self, client: &Client, model: &str, time: Option<KeepAlive>) {
        let (Some(models), Some(time)) = (&self.models, time) else { return };
        if !client.caller.scopes.contains(Scope::Models) {
            return;
        }
        let time = match time {
            KeepAlive::Unlimited => None,
            KeepAlive::For(time) => Some(time),
        };
        // A model that was unloaded meanwhile needs no time.
        let _ = models.registry().keep_alive(model, time);
    }

    /// Loads a model that is not ready, if the client may do so.
    pub(super) async fn load(self: &Arc<Self>, client: &Client, name: &str) -> Result<(), ApiError> {
        self.authorise(&client.caller, Some(name))?;
        let Some(models) = &self.models else { return Ok(()) };
        if models.registry().status(name)?.info.is_some() {
            return Ok(());
        }
        if !client.caller.scopes.contains(Scope::Models) && !models.load_on_request() {
            let message = "loading a model needs the scope 'models', which the key does not have";
            return Err(
                ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("missing_scope")
            );
        }
        Ok(models.registry().load(name).await?)
    }
}

/// Answers Ollama's routes that create models from files.
pub(crate) async fn no_files(uri: axum::http::Uri) -> OllamaError {
    not_supported(&uri).into()
}

/// Error of routes that change files, if the configuration does not allow it.
fn not_supported(uri: &axum::http::Uri) -> ApiError {
    let message = format!(
        "{} is not supported: models are GGUF files in the folders of the server's configuration, which it does not \
         change",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "invalid_request_error", message).code("not_supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(value: &str) -> Result<Option<KeepAlive>, ApiError> {
        KeepAlive::take(&mut Fields::parse(format!("{{\"keep_alive\": {value}}}").as_bytes())?)
    }

    #[test]
    fn times_are_numbers_or_texts() {
        for (value, seconds) in [("0", 0), ("300", 300), ("\"5m\"", 300), ("\"0\"", 0), ("\"1h\"", 3600)] {
            assert_eq!(take(value), Ok(Some(KeepAlive::For(Duration::from_secs(seconds)))), "{value}");
        }
        for value in ["-1", "\"-1\"", "\"-5m\"", "-0.5"] {
            assert_eq!(take(value), Ok(Some(KeepAlive::Unlimited)), "{value}");
        }
        assert_eq!(take("null"), Ok(None));
        for value in ["true", "\"soon\"", "[]", "1e300", "\"nan\""] {
            assert!(take(value).is_err(), "{value}");
        }
    }
}
