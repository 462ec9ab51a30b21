//! Health of the process and of the engines.

mod watchdog;

pub(crate) use watchdog::Watchdog;

use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use exsa_core::registry::ModelState;
use serde_json::json;
use std::sync::{Arc, PoisonError};

/// `/health/live`: the process runs and answers.
pub(crate) async fn live() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `/health/ready`: whether the server accepts requests.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    match problem(&state) {
        None => Json(json!({"status": "ok"})).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unavailable", "reason": reason})))
                .into_response()
        }
    }
}

/// `/health`: like [`ready`], in llama-server's form.
pub(crate) async fn health(State(state): State<Arc<AppState>>) -> Response {
    match problem(&state) {
        None => Json(json!({"status": "ok"})).into_response(),
        Some(reason) => {
            let body = json!({"error": {"code": 503, "message": reason, "type": "unavailable_error"}});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// Returns the reason why the server should get no requests: a drain, a load at start, a stalled engine, or
/// no model that is ready or can be loaded by a request.
pub(crate) fn problem(state: &AppState) -> Option<String> {
    if state.readiness.is_draining() {
        return Some("draining".into());
    }
    if state.models.as_ref().is_some_and(|models| models.is_starting()) {
        return Some("Loading model".into());
    }
    let mut watchdog = state.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = state.options.get().step_limit;
    let stalled = watchdog.observe(state.generator.stats_by_model(), state.clock.elapsed(), limit);
    drop(watchdog);
    if !stalled.is_empty() {
        let limit = limit.as_secs_f64();
        let models = stalled.join(", ");
        return Some(format!("no step completed for {limit} s while work waits: {models}"));
    }
    let is_loadable = || {
        state.models.as_ref().is_some_and(|models| {
            models.registry().list().iter().any(|model| match model.state {
                ModelState::Sleeping => true,
                ModelState::Unloaded | ModelState::Loading(_) | ModelState::Draining => {
                    models.load_on_request()
                }
                _ => false,
            })
        })
    };
    (state.generator.models().is_empty() && !is_loadable()).then(|| "no model is loaded".into())
}
