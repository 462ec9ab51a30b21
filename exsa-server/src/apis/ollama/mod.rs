//! Ollama's API, which many desktop programs speak: `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`,
//! `/api/show`, `/api/ps`, `/api/version`; for administrators `/api/pull` and `/api/delete`.

mod chunks;
pub(crate) mod error;
mod lifecycle;
mod models;
mod pull;
mod request;
mod times;

pub(crate) use lifecycle::no_files;
pub(crate) use models::{ps, show, tags, version};
pub(crate) use pull::{delete, pull};

use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chunks::{Form, LineChunks};
use error::OllamaError;
use exsa_core::EmbedRequest;
use lifecycle::KeepAlive;
use request::Asked;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use times::nanoseconds;

/// Answers a conversation.
pub(crate) async fn chat(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Result<Fields, ApiError>,
) -> Result<Response, OllamaError> {
    answer(state, client, request::chat(fields?)?, Form::Chat).await
}

/// Answers a prompt.
pub(crate) async fn generate(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Result<Fields, ApiError>,
) -> Result<Response, OllamaError> {
    answer(state, client, request::generate(fields?)?, Form::Generate).await
}

async fn answer(
    state: Arc<AppState>,
    client: Client,
    asked: Asked,
    form: Form,
) -> Result<Response, OllamaError> {
    let Asked { mut model, streamed, keep_alive, mut request } = asked;
    if let Some(request) = &mut request {
        request.model = model.take();
        state.name_adapter(&client.caller, request);
        model = request.model.take();
    }
    let model = models::named(&state, model.as_deref())?;
    let Some(mut request) = request else {
        let unloads = keep_alive == Some(KeepAlive::For(Duration::ZERO));
        if !unloads {
            state.load(&client, &model).await?;
        }
        state.keep_alive(&client, &model, keep_alive);
        let reason = if unloads { "unload" } else { "load" };
        return Ok(Json(chunks::loaded(form, &model, reason)).into_response());
    };
    state.ready(&client.caller, Some(&model)).await?;
    request.model = Some(model.clone());
    let answer = state.submit_one(&client, request).await?;
    // From now on the model is busy: a time of zero starts at the end of the request.
    state.keep_alive(&client, &model, keep_alive);
    if streamed {
        return Ok(stream::lines(vec![answer], LineChunks::new(form, model)));
    }
    let answer = answer.complete().await?;
    Ok(Json(chunks::whole(form, &model, answer)).into_response())
}

/// Returns one vector per text.
pub(crate) async fn embed(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Result<Fields, ApiError>,
) -> Result<Response, OllamaError> {
    let begun = Instant::now();
    let mut fields = fields?;
    // Ollama truncates overlong texts by default.
    let cut = fields.take::<bool>("truncate")?.unwrap_or(true);
    fields.set("truncate", if cut { "end" } else { "none" });
    let keep_alive = KeepAlive::take(&mut fields)?;
    let mut request: EmbedRequest = fields.into()?;
    let model = models::named(&state, request.model.as_deref())?;
    state.ready(&client.caller, Some(&model)).await?;
    request.model = Some(model.clone());
    let output = state.embed(&client, request).await?;
    state.keep_alive(&client, &model, keep_alive);
    let tokens = output.usage.prompt_tokens;
    let vectors = output.into_vectors().map_err(ApiError::from)?;
    let total = nanoseconds(begun.elapsed());
    let body = json!({
        "model": model, "embeddings": vectors, "total_duration": total, "load_duration": 0,
        "prompt_eval_count": tokens,
    });
    Ok(Json(body).into_response())
}
