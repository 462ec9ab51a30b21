//! Anthropic's API: `/v1/messages` and `/v1/messages/count_tokens`.

mod chunks;
pub(crate) mod error;
mod request;
mod response;

use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chunks::MessageChunks;
use error::MessagesError;
use exsa_core::Request;
use exsa_core::model_info::ModelInfo;
use exsa_core::tools::{ReasoningFormat, detect};
use request::MessagesRequest;
use response::Message;
use serde_json::json;
use std::sync::Arc;

/// Answers a conversation.
pub(crate) async fn messages(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Result<Fields, ApiError>,
) -> Result<Response, MessagesError> {
    let asked: MessagesRequest = fields?.into()?;
    if asked.max_tokens.is_none() {
        return Err(ApiError::invalid("max_tokens: a number is required").param("max_tokens").into());
    }
    let (streamed, stops) = (asked.stream, asked.stop_sequences.clone());
    let mut request = asked.into_request()?;
    state.name_adapter(&client.caller, &mut request);
    let info = state.ready(&client.caller, request.model.as_deref()).await?;
    without_needless_budget(&mut request, &info);
    let model = info.name.clone();
    // Only counted if the first event must report the number.
    let (request, prompt_tokens) = match streamed {
        true => {
            state.authorise(&client.caller, request.model.as_deref())?;
            let count = |state: &AppState| state.generator.count_tokens(&request).map(|n| (request, n));
            state.blocking(count).await?
        }
        false => (request, 0),
    };
    let answer = state.submit_one(&client, request).await?;
    let id = state.id("msg_");
    if streamed {
        let chunks = MessageChunks::new(id, model, stops, prompt_tokens);
        return Ok(stream::events(vec![answer], chunks, state.options.get().keep_alive));
    }
    let answer = answer.complete().await?;
    Ok(Json(Message::new(id, model, answer, &stops)).into_response())
}

/// Removes the reasoning limit for a model without reasoning, since clients always send it.
fn without_needless_budget(request: &mut Request, model: &ModelInfo) {
    let template = model.chat_template.as_deref().unwrap_or_default();
    let format = request.reasoning.format.unwrap_or_else(|| detect(template, &model.architecture).reasoning);
    if format == ReasoningFormat::None {
        request.reasoning.budget = None;
    }
}

/// Counts the prompt tokens of a conversation.
pub(crate) async fn count_tokens(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Result<Fields, ApiError>,
) -> Result<Response, MessagesError> {
    let mut request = fields?.into::<MessagesRequest>()?.into_request()?;
    state.name_adapter(&client.caller, &mut request);
    state.ready(&client.caller, request.model.as_deref()).await?;
    state.authorise(&client.caller, request.model.as_deref())?;
    let tokens = state.blocking(move |state| state.generator.count_tokens(&request)).await?;
    Ok(Json(json!({"input_tokens": tokens})).into_response())
}
