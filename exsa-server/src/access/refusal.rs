//! Refusals of requests, in the error format of the path's API.

use super::Scope;
use crate::apis::anthropic::error::MessagesError;
use crate::apis::ollama::error::OllamaError;
use crate::http::error::ApiError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Creates the error for a request without a valid key or token.
pub(super) fn unauthorized(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code(code)
}

/// Creates the error for an invalid key or token.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    unauthorized("invalid_api_key", message)
}

/// Creates the error for a caller whose key was revoked while its request ran.
pub(crate) fn revoked() -> ApiError {
    unauthorized("key_revoked", "the API key or token was revoked")
}

/// Creates the error for a caller without the required scope.
pub(crate) fn missing_scope(scope: Scope) -> ApiError {
    let message = format!("this needs the scope '{scope}', which the caller does not have");
    ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("missing_scope")
}

/// Creates the error for an address with too many wrong keys.
pub(super) fn too_many(wait: Duration) -> ApiError {
    let message = "too many requests with wrong keys or tokens from this address";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        .code("too_many_failures")
        .retry_after(wait)
}

/// Returns a response in the error format of `path`'s API, with an RFC 6750 challenge if required.
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
