//! Converts server errors to gRPC statuses.

use crate::http::context::Client;
use crate::http::error::ApiError;
use axum::http::{StatusCode, Uri};
use exsa_grpc::tonic::{Code, Status};
use tracing::warn;

/// Metadata with the machine-readable cause.
const CAUSE: &str = "exsa-error";

/// Metadata with the time in milliseconds after which a client may retry (gRPC proposal A6).
const WAIT: &str = "grpc-retry-pushback-ms";

/// Returns the status of a server error.
pub(super) fn of_error(error: &ApiError) -> Status {
    let code = match error.status() {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::CONFLICT => Code::Aborted,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::MISDIRECTED_REQUEST => Code::FailedPrecondition,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_server_error() => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut status = Status::new(code, error.to_string());
    if let Ok(cause) = error.code_text().parse() {
        status.metadata_mut().insert(CAUSE, cause);
    }
    if let Some(wait) = error.wait() {
        status.metadata_mut().insert(WAIT, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into());
    }
    status
}

/// Like [`of_error`], and logs failures of the server.
pub(super) fn refused(client: &Client, error: &ApiError) -> Status {
    if error.status().is_server_error() {
        let (status, (trace_id, span_id)) = (error.status().as_u16(), client.context.span.ids());
        warn!(id = &*client.context.id, trace_id, span_id, status, %error, "request failed");
    }
    of_error(error)
}

/// Answers a call of an unknown method.
pub(super) async fn no_such_method(uri: Uri) -> ApiError {
    let message = format!("there is no method {}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("unknown_method")
}
