//! The end of kept connections while the server leaves.

use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Lets connections end with their next response once a drain was announced, so that no proxy sends a request
/// on a kept one in the moment in which the server closes it. HTTP/2 has a message of its own for that.
pub(crate) async fn close(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let has_header = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if has_header && state.readiness.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
