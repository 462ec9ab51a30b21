//! Errors in the form of Ollama's API.

use crate::http::error::ApiError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error as `{"error": "message"}`.
#[derive(Debug)]
pub(crate) struct OllamaError(ApiError);

impl From<ApiError> for OllamaError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        self.0.respond_with(Json(json(&self.0)))
    }
}

/// The body of an error.
pub(super) fn json(error: &ApiError) -> Value {
    let mut body = json!({"error": error.to_string()});
    error.add_wait(&mut body);
    body
}
