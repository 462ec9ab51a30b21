//! Health of the process and of the engine.

use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// The process runs and answers.
pub(crate) async fn live() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// The server takes requests: it has a model and no drain has begun.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    let problem = if state.readiness.is_draining() {
        Some("draining")
    } else if state.generator.models().is_empty() {
        Some("no model is loaded")
    } else {
        None
    };
    match problem {
        None => Json(json!({"status": "ok"})).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unavailable", "reason": reason})))
                .into_response()
        }
    }
}
