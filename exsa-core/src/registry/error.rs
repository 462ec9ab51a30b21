//! Errors of the registry's operations.

use crate::error::LoadError;
use std::sync::Arc;

/// Error of an operation on a model of the registry. Clones share the cause: all callers that joined one load
/// get the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no model with this name or alias.
    #[error("there is no model '{model}'; available: {}", available.join(", "))]
    UnknownModel {
        /// The requested name.
        model: String,
        /// Names of all models.
        available: Vec<String>,
    },
    /// A name or alias is not allowed.
    #[error("model name '{name}': {problem}")]
    Name {
        /// The name.
        name: String,
        /// The problem, and what is allowed.
        problem: &'static str,
    },
    /// The model does not fit into the memory budget, even after evicting all models that can be evicted.
    #[error(
        "model '{model}' needs {needed} bytes, but the budget is {budget} and models that are busy, \
         pinned or loading hold {held}"
    )]
    Memory {
        /// The model.
        model: String,
        /// Estimated bytes that it needs.
        needed: u64,
        /// Bytes of the models that cannot be evicted.
        held: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// The backend could not estimate or load the model, or start a session.
    #[error("model '{model}': {source}")]
    Load {
        /// The model.
        model: String,
        /// The backend's error.
        source: Arc<LoadError>,
    },
    /// The backend or the loading thread panicked.
    #[error("model '{model}': the backend panicked: {message}")]
    Panicked {
        /// The model.
        model: String,
        /// The panic's text.
        message: String,
    },
    /// The load was cancelled, or the model was unloaded in the meantime.
    #[error("loading model '{model}' was cancelled")]
    Cancelled {
        /// The model.
        model: String,
    },
    /// The operation does not apply to the model's state.
    #[error("cannot {operation} model '{model}': it is {state}, not {allowed}")]
    State {
        /// The operation.
        operation: &'static str,
        /// The model.
        model: String,
        /// Its state.
        state: &'static str,
        /// The states in which the operation applies.
        allowed: &'static str,
    },
    /// The thread of the registry or of a job could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// The registry is shutting down.
    #[error("the registry is shutting down")]
    ShuttingDown,
}
