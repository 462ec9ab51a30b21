//! `/slots`: the requests in flight.

use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// One object per request in flight: its model, class and progress, not its content.
pub(crate) async fn slots(State(state): State<Arc<AppState>>) -> Json<Value> {
    let models = state.generator.models();
    let slot = |(number, running): (u64, Arc<crate::inference::in_flight::Running>)| {
        let n_ctx = models.iter().find(|model| model.name == running.model).map_or(0, |model| model.n_ctx);
        let decoded = running.tokens();
        let left = running.tokens_max.map(|max| (max as u64).saturating_sub(decoded));
        json!({
            "id": number,
            "id_task": &*running.request,
            "n_ctx": n_ctx,
            "is_processing": true,
            "model": running.model,
            "priority": running.priority.name(),
            "answers": running.answers,
            "seconds": running.begun.elapsed().as_secs_f64(),
            "next_token": [{"n_decoded": decoded, "n_remain": left, "has_next_token": true}],
        })
    };
    Json(state.in_flight.list().into_iter().map(slot).collect())
}
