//! `/apply-template`: the prompt of a conversation.

use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::Prompt;
use serde_json::{Value, json};
use std::sync::Arc;

/// Renders a conversation with the chat template, without generating an answer.
pub(crate) async fn apply(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let mut request = request::read(fields)?;
    state.name_adapter(&client.caller, &mut request);
    if !matches!(request.prompt, Prompt::Chat(_)) {
        return Err(ApiError::invalid("messages are required, not a prompt").param("messages"));
    }
    let model = state.ready(&client.caller, request.model.as_deref()).await?;
    request::map_roles(&mut request, &model);
    let rendered = state.blocking(move |state| state.generator.render(&request)).await?;
    Ok(Json(json!({"prompt": rendered.text})))
}
