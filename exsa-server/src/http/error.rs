//! Errors in the form of OpenAI's API.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exsa_core::embed::EmbedError;
use exsa_core::sampler::SamplingError;
use exsa_core::{ErrorReport, FinishReason, RequestError, SubmitError};
use std::sync::Arc;
use std::time::Duration;

/// A refused or failed request: `{"error": {"message", "type", "param", "code"}}` with a status. If waiting
/// helps, the object also has `retry_after` (seconds) and `queue_position`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<String>,
    retry_after: Option<Duration>,
    /// Boxed to keep results small.
    facts: Option<Box<Facts>>,
}

/// Information that few errors have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    queue_position: Option<usize>,
    /// Tokens of an overlong prompt, and of the context.
    context: Option<(usize, usize)>,
}

/// The error of a response, which is logged with the request.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Arc<str>);

impl ApiError {
    /// Creates a client error.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Creates a server error.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, kind, param: None, code: None, retry_after: None, facts: None }
    }

    /// Sets the invalid field.
    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Sets the invalid field, and adds it to the message, unless already named.
    pub(crate) fn at(mut self, field: &str) -> Self {
        if self.param.is_none() {
            if !self.message.starts_with(field) {
                self.message = format!("{field}: {}", self.message);
            }
            self.param = Some(field.to_owned());
        }
        self
    }

    /// Sets the machine-readable cause.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Sets the time after which the request may be retried.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets the queue position that the request would have, 1 for the next to run.
    pub(crate) fn queue_position(mut self, position: usize) -> Self {
        self.facts.get_or_insert_default().queue_position = Some(position);
        self
    }

    /// Returns the machine-readable cause, or the type without one.
    pub(crate) fn code_text(&self) -> String {
        self.code.clone().unwrap_or_else(|| self.kind.to_owned())
    }

    /// The status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the time after which the request may be retried, if known.
    #[cfg(feature = "grpc")]
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns a response in another API's format: this status and headers with `body`.
    pub(crate) fn respond_with(&self, body: impl IntoResponse) -> Response {
        let mut response = (self.status, body).into_response();
        // gRPC routes have their own format.
        #[cfg(feature = "grpc")]
        response.extensions_mut().insert(self.clone());
        if self.status.is_server_error() {
            response.extensions_mut().insert(Failure(self.message.as_str().into()));
        }
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(wait.as_secs_f64().ceil().clamp(1.0, 86_400.0) as u64);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    /// The body in the form of OpenAI's API.
    pub(crate) fn json(&self) -> serde_json::Value {
        let Self { message, kind, param, code, .. } = self;
        let mut error = serde_json::json!({"message": message, "type": kind, "param": param, "code": code});
        self.add_wait(&mut error);
        if let Some((tokens, limit)) = self.facts.as_ref().and_then(|facts| facts.context) {
            // llama-server's names.
            error["n_prompt_tokens"] = tokens.into();
            error["n_ctx"] = limit.into();
        }
        serde_json::json!({"error": error})
    }

    /// Adds the retry time and the queue position to an object, if known.
    pub(crate) fn add_wait(&self, object: &mut serde_json::Value) {
        if let Some(wait) = self.retry_after {
            object["retry_after"] = ((wait.as_secs_f64() * 1000.0).ceil() / 1000.0).into();
        }
        if let Some(position) = self.facts.as_ref().and_then(|facts| facts.queue_position) {
            object["queue_position"] = position.into();
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond_with(Json(self.json()))
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let report = ErrorReport::from(&error);
        let base = match &error {
            SubmitError::QueueFull { ahead, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", report.message)
                    .queue_position(ahead + 1)
            }
            SubmitError::UnknownModel { .. } => {
                let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", report.message);
                return error.param("model").code("model_not_found");
            }
            SubmitError::PromptTooLong { tokens, limit, .. } => {
                let mut error = Self::invalid(report.message).code("context_length_exceeded");
                error.facts.get_or_insert_default().context = Some((*tokens, limit + 1));
                return error;
            }
            SubmitError::KvTooLarge { .. } => {
                return Self::invalid(report.message).code("context_length_exceeded");
            }
            SubmitError::Generator(_) => Self::new(StatusCode::BAD_GATEWAY, "server_error", report.message),
            SubmitError::ShuttingDown
            | SubmitError::NoActiveModel { .. }
            | SubmitError::ModelLoading { .. }
            | SubmitError::ModelUnloaded { .. }
            | SubmitError::ModelFailed { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", report.message)
            }
            error => Self { param: field_of(error).map(str::to_owned), ..Self::invalid(report.message) },
        };
        let retry_after = match &error {
            SubmitError::QueueFull { .. } | SubmitError::ModelLoading { .. } => {
                Some(report.retry_after.unwrap_or(1.0))
            }
            SubmitError::ShuttingDown => Some(5.0),
            _ => None,
        };
        Self {
            retry_after: retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            ..base.code(report.kind)
        }
    }
}

/// Returns the field that caused an error.
fn field_of(error: &SubmitError) -> Option<&'static str> {
    match error {
        SubmitError::Option { option, .. } => Some(option),
        SubmitError::UnknownAdapter { .. } => Some("lora"),
        SubmitError::EmptyPrompt => Some("prompt"),
        SubmitError::NoTokens => Some("max_tokens"),
        SubmitError::Sampling(SamplingError::Range { parameter, .. }) => Some(parameter),
        SubmitError::Sampling(SamplingError::BiasToken { .. } | SamplingError::BiasTwice { .. }) => {
            Some("logit_bias")
        }
        SubmitError::Stop(_) => Some("stop"),
        SubmitError::Chat(_) => Some("messages"),
        _ => None,
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let report = ErrorReport::from(&error);
        let base = match error {
            RequestError::Unavailable(_) => {
                let unavailable = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", report.message);
                unavailable.retry_after(Duration::from_secs(1))
            }
            _ => Self::internal(report.message),
        };
        base.code(report.kind)
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Failed(error) => error.into(),
            EmbedError::Deadline => Self::timeout(),
            EmbedError::Dimensions { .. } => Self::invalid(error.to_string()).param("dimensions"),
            error => Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", error.to_string()),
        }
    }
}

impl ApiError {
    /// Returns the error for a finish reason, unless it is that of a complete answer.
    pub(crate) fn of_reason(reason: &FinishReason) -> Option<Self> {
        match reason {
            FinishReason::Failed(error) => Some(error.clone().into()),
            FinishReason::Deadline | FinishReason::FirstTokenTimeout => Some(Self::timeout()),
            FinishReason::Cancelled => {
                let message = "the request was cancelled: the server is shutting down";
                Some(Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code("cancelled"))
            }
            _ => None,
        }
    }

    fn timeout() -> Self {
        let message = "the request's time limit passed before the answer was complete";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message).code("deadline")
    }
}

/// Responds to unknown paths.
pub(crate) async fn no_such_path(uri: axum::http::Uri) -> ApiError {
    let message = format!("there is nothing at {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url")
}

/// Responds to unsupported methods.
pub(crate) async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
}
