//! Errors of model operations and configuration.

use crate::http::error::ApiError;
use axum::http::StatusCode;
use exsa_core::registry::RegistryError;
use std::time::Duration;

/// An invalid setting of `[models]`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("models{}{field}: {problem}", if field.is_empty() { "" } else { "." })]
pub struct ModelsError {
    field: String,
    problem: String,
}

impl ModelsError {
    pub(super) fn new(field: &str, problem: String) -> Self {
        Self { field: field.to_owned(), problem }
    }

    /// The problem, and the allowed values.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The setting: `keep_streams`, `NAME.path`.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        let (invalid, server) = ("invalid_request_error", "server_error");
        match error {
            RegistryError::UnknownModel { .. } => {
                Self::new(StatusCode::NOT_FOUND, invalid, message).param("model").code("model_not_found")
            }
            RegistryError::Name { .. } => Self::invalid(message).param("model").code("model_name"),
            RegistryError::State { .. } => {
                Self::new(StatusCode::CONFLICT, invalid, message).param("model").code("model_state")
            }
            RegistryError::Cancelled { .. } => {
                Self::new(StatusCode::CONFLICT, invalid, message).code("load_cancelled")
            }
            RegistryError::Memory { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, server, message).code("insufficient_memory")
            }
            RegistryError::Load { .. } | RegistryError::Panicked { .. } => {
                Self::internal(message).code("load_failed")
            }
            RegistryError::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, server, message)
                .code("shutting_down")
                .retry_after(Duration::from_secs(5)),
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, server, message)
                .code("registry")
                .retry_after(Duration::from_secs(1)),
        }
    }
}
