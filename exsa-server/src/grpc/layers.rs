//! Layers around the services: bounded whole messages, and errors of other layers as gRPC statuses.

use super::status;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

/// Bytes before a message: the compression flag, and the length.
const PREFIX: usize = 5;

/// Reads the single message of a call within the body limits, and refuses other bytes: the service behind it
/// reserves memory by the length that a client announces.
pub(super) async fn whole_message(
    State(state): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let options = state.options.get();
    let (parts, body) = request.into_parts();
    check_form(&parts.headers)?;
    let read = tokio::time::timeout(options.body_timeout, read(body, options.body_bytes_max));
    let Ok(bytes) = read.await else {
        let limit = options.body_timeout.as_secs_f64();
        let message = format!("the message did not arrive within {limit} s");
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message).code("slow_body"));
    };
    let bytes = bytes?;
    check_length(&bytes)?;
    Ok(next.run(Request::from_parts(parts, bytes.into())).await)
}

/// Refuses a call that is not gRPC.
fn check_form(headers: &HeaderMap) -> Result<(), ApiError> {
    let form = headers.get(header::CONTENT_TYPE).map(|form| form.as_bytes());
    if form.is_some_and(|form| form.starts_with(b"application/grpc")) {
        return Ok(());
    }
    Err(ApiError::invalid("this address takes gRPC alone: content-type application/grpc"))
}

/// Refuses bytes that are not one message.
fn check_length(bytes: &[u8]) -> Result<(), ApiError> {
    let announced = match bytes {
        [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => return Err(ApiError::invalid(format!("a message of gRPC has {PREFIX} bytes before it"))),
    };
    let sent = bytes.len() - PREFIX;
    if announced == sent {
        return Ok(());
    }
    Err(ApiError::invalid(format!("the message is announced with {announced} bytes, but {sent} were sent")))
}

/// Reads a call with one message of at most `max` bytes.
async fn read(body: Body, max: usize) -> Result<Vec<u8>, ApiError> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = poll_fn(|context| Pin::new(&mut parts).poll_next(context)).await {
        let part = part.map_err(|error| ApiError::invalid(format!("the message cannot be read: {error}")))?;
        if bytes.len() + part.len() > max.saturating_add(PREFIX) {
            let message = format!("the message is larger than the {max} bytes allowed");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(ApiError::new(status, "invalid_request_error", message).code("over_limit"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// Converts errors of other layers to gRPC statuses.
pub(super) async fn in_form(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut answer = status::of_error(&error).into_http::<Body>();
    std::mem::swap(answer.extensions_mut(), response.extensions_mut());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_one_message() {
        assert_eq!(check_length(&[0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(check_length(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for bytes in [&[][..], &[0; 4], &[0, 0, 0, 0, 1], &[0, 255, 255, 255, 255, 1], &[0, 0, 0, 0, 0, 1]] {
            assert!(check_length(bytes).is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_is_not_read() {
        assert_eq!(read(Body::from(vec![1; 25]), 20).await.unwrap().len(), 25);
        let error = read(Body::from(vec![1; 26]), 20).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
