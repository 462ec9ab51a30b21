//! Converts refusals and failures to gRPC statuses.

use exsa_core::{FinishReason, RequestError, SubmitError};
use tonic::{Code, Status};

/// Metadata key with the machine-readable cause, as in errors of the HTTP routes.
const CAUSE: &str = "exsa-error";

/// Creates the status for an invalid or unsupported field.
pub(crate) fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// Returns the status of a request that a generator refused.
pub(crate) fn of_refusal(error: &SubmitError) -> Status {
    let code = match error {
        SubmitError::QueueFull { .. } => Code::ResourceExhausted,
        SubmitError::UnknownModel { .. } => Code::NotFound,
        SubmitError::Generator(_)
        | SubmitError::ShuttingDown
        | SubmitError::NoActiveModel { .. }
        | SubmitError::ModelLoading { .. }
        | SubmitError::ModelUnloaded { .. }
        | SubmitError::ModelFailed { .. } => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    with_cause(Status::new(code, error.to_string()), &exsa_core::ErrorReport::from(error).kind)
}

/// Returns the status of a failed answer; `None` for one that ended normally.
pub(crate) fn of_reason(reason: &FinishReason) -> Option<Status> {
    match reason {
        FinishReason::Failed(error) => Some(of_failure(error)),
        FinishReason::Deadline | FinishReason::FirstTokenTimeout => {
            Some(Status::deadline_exceeded("the request's time limit passed before the answer was complete"))
        }
        FinishReason::Cancelled => {
            Some(Status::unavailable("the request was cancelled: the server is shutting down"))
        }
        _ => None,
    }
}

fn of_failure(error: &RequestError) -> Status {
    let code = if error.is_lost_engine() { Code::Unavailable } else { Code::Internal };
    with_cause(Status::new(code, error.to_string()), &exsa_core::ErrorReport::from(error).kind)
}

fn with_cause(mut status: Status, cause: &str) -> Status {
    if let Ok(cause) = cause.parse() {
        status.metadata_mut().insert(CAUSE, cause);
    }
    status
}

/// Runs `work` on a blocking thread, so that tokenizing a long prompt stalls no other call.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("a worker thread ended: {error}"))))
}
