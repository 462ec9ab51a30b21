//! Information about an HTTP request for logs and handlers.

use crate::access::Caller;
use crate::http::error::{ApiError, Failure};
use crate::http::request_log::{LogEntry, RequestLine};
use crate::state::AppState;
use crate::telemetry::RequestSpan;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::warn;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum bytes of a request id accepted from a client.
const ID_BYTES_MAX: usize = 128;

/// Information about an HTTP request, as an extension of it. Clones are cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestContext {
    /// Request id: from the header `x-request-id`, or a new one.
    pub id: Arc<str>,
    /// Address of the client, if the connection has one.
    pub peer: Option<SocketAddr>,
    /// Method.
    pub method: Method,
    /// Path.
    pub path: Arc<str>,
    /// Arrival time of the request head.
    pub begun: Instant,
    /// The request's log line.
    pub(crate) log: LogEntry,
    /// The request's span in its trace.
    pub(crate) span: RequestSpan,
}

/// Adds a [`RequestContext`] to a request, and its id to the response.
pub(crate) async fn add(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(REQUEST_ID).filter(|value| is_plain(value));
    let id = sent.and_then(|value| value.to_str().ok()).map_or_else(|| state.id("req_"), str::to_owned);
    let header = HeaderValue::from_str(&id);
    let context = RequestContext {
        span: RequestSpan::begin(&state, &request, &id),
        id: id.into(),
        peer: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0),
        method: request.method().clone(),
        path: request.uri().path().into(),
        begun: Instant::now(),
        log: LogEntry::default(),
    };
    request.extensions_mut().insert(context.clone());
    let line = RequestLine::new(context.clone());
    let mut response = next.run(request).await;
    if let Some(Failure(error)) = response.extensions().get::<Failure>() {
        let (status, (trace_id, span_id)) = (response.status().as_u16(), context.span.ids());
        warn!(id = &*context.id, trace_id, span_id, status, error = &**error, "request failed");
    }
    if let Ok(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    line.follow(response)
}

/// Returns whether an id is short and needs no escapes in logs.
fn is_plain(value: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
    let bytes = value.as_bytes();
    !bytes.is_empty() && bytes.len() <= ID_BYTES_MAX && bytes.iter().all(plain)
}

/// The caller of a request and information about it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) caller: Caller,
    pub(crate) context: RequestContext,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let context = parts.extensions.get::<RequestContext>().cloned();
        let context = context.ok_or_else(|| ApiError::internal("the request has no context"))?;
        Ok(Self { caller: Caller::from_request_parts(parts, state).await?, context })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_short_and_plain() {
        for id in ["a", "req_1.2:3-4", &"a".repeat(128)] {
            assert!(is_plain(&HeaderValue::from_str(id).unwrap()), "{id}");
        }
        for id in ["", "a b", "a\tb", "ä", "\"", &"a".repeat(129)] {
            assert!(!is_plain(&HeaderValue::from_bytes(id.as_bytes()).unwrap()), "{id}");
        }
    }
}
