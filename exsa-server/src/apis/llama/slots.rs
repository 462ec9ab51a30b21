//! `/slots`: requests in flight and free sequences.

use crate::inference::in_flight::Running;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns one object per request in flight: its model, class and progress, not its content. Further objects
/// represent free sequences of the default model, up to the number in `/props`; there are more while requests
/// wait.
pub(crate) async fn slots(State(state): State<Arc<AppState>>) -> Json<Value> {
    let models = state.generator.models();
    let slot = |(id, (number, running)): (usize, (u64, Arc<Running>))| {
        let n_ctx = models.iter().find(|model| model.name == running.model).map_or(0, |model| model.n_ctx);
        let decoded = running.tokens();
        let left = running.tokens_max.map(|max| (max as u64).saturating_sub(decoded));
        json!({
            "id": id,
            "id_task": number,
            "request": &*running.request,
            "n_ctx": n_ctx,
            "is_processing": true,
            "model": running.model,
            "priority": running.priority.name(),
            "answers": running.answers,
            "seconds": running.begun.elapsed().as_secs_f64(),
            "next_token": [{"n_decoded": decoded, "n_remain": left, "has_next_token": true}],
        })
    };
    let mut slots: Vec<_> = state.in_flight.list().into_iter().enumerate().map(slot).collect();
    let n_ctx = models.first().map_or(0, |model| model.n_ctx);
    let free = slots.len()..state.options.get().slots;
    slots.extend(free.map(|id| json!({"id": id, "n_ctx": n_ctx, "is_processing": false})));
    Json(slots.into())
}
