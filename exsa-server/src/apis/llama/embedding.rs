//! `/embedding`, in llama-server's form.

use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::EmbedRequest;
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns one vector per text of `content`.
pub(crate) async fn embed(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Json<Value>, ApiError> {
    if let Some(content) = fields.take::<Value>("content")? {
        fields.set("input", content);
    }
    let request: EmbedRequest = fields.into()?;
    let output = state.embed(&client, request).await?;
    let vectors = output.into_vectors()?.into_iter().enumerate();
    let items = vectors.map(|(index, vector)| json!({"index": index, "embedding": [vector]}));
    Ok(Json(items.collect()))
}
