//! Refusals of requests, in the form of the API that a path belongs to.

use super::Scope;
use crate::apis::anthropic::error::MessagesError;
use crate::apis::ollama::error::OllamaError;
use crate::http::error::ApiError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// A request without a valid key or token.
pub(super) fn unauthorized(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code(code)
}

/// A key or token that is not valid.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    unauthorized("invalid_api_key", message)
}

/// A caller whose key was revoked while its request ran.
pub(crate) fn revoked() -> ApiError {
    unauthorized("key_revoked", "the API key or token was revoked")
}

/// A caller without the scope for an act.
pub(crate) fn missing_scope(scope: Scope) -> ApiError {
    let message = format!("this needs the scope '{scope}', which the caller does not have");
    ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("missing_scope")
}

/// An address with too many wrong keys.
pub(super) fn too_many(wait: Duration) -> ApiError {
    let message = "too many requests with wrong keys or tokens from this address";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        .code("too_many_failures")
        .retry_after(wait)
}

/// A response in the form of the API that `path` belongs to, with the challenge of RFC 6750 where it is
/// needed.
pub(super) fn response(path: &str, error: &ApiError) -> Response {
    let mut response = if path.starts_with("/v1/messages") {
        MessagesError::from(error.clone()).into_response()
    } else if path.starts_with("/api/") {
        OllamaError::from(error.clone()).into_response()
    } else {
        error.clone().into_response()
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"exsa\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
