//! Closes kept-alive connections during a drain.

use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Closes connections with their next response once a drain was announced, so that a proxy does not send a
/// request on a connection just as the server closes it. HTTP/2 has its own message for that.
pub(crate) async fn close(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let has_header = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if has_header && state.readiness.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
