//! CORS: pages of allowed origins may read answers. Off by default.

use crate::options::ServerOptions;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, x-api-key, x-request-id, anthropic-version, anthropic-beta",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
/// Time for which browsers cache a preflight response.
const AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers preflight requests, and allows browsers to read responses.
pub(crate) async fn add(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let options = state.options.get();
    if !options.cors {
        return next.run(request).await;
    }
    let origin = allowed(&options, request.headers());
    let asks = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, asks) {
        (Some(_), true) => preflight(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Caches must not serve one origin's response to another.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn preflight() -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Returns the origin of a request, if its pages may read responses.
fn allowed(options: &ServerOptions, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let known = options.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    known.then(|| origin.clone())
}
