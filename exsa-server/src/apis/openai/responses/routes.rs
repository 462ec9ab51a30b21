//! Handlers of `/v1/responses`.

use super::builder::Builder;
use super::input;
use super::request::Asked;
use super::store::{Keeper, Stored};
use super::stream::ResponseChunks;
use crate::access::Caller;
use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream::{self, Chunks, Outbox};
use crate::inference::work::Work;
use crate::state::{AppState, unix_seconds};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answers a list of items, or a text.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Fields,
) -> Result<Response, ApiError> {
    let caller = client.caller.id.to_string();
    let mut asked = Asked::read(fields)?;
    let mut items = match asked.previous.clone() {
        Some(id) => {
            let caller = caller.clone();
            state.off_thread(move |state| history(state, &caller, &id)).await?
        }
        None => Vec::new(),
    };
    items.extend(input::items(std::mem::take(&mut asked.input), |prefix| state.id(prefix))?);
    let messages = input::messages(&items)?;
    let stores = asked.store && state.responses.is_enabled();
    let background = asked.background;
    if background {
        check_background(&state, &caller)?;
    }
    let (streamed, logprobs, mut fixed) = (asked.stream, asked.logprobs, std::mem::take(&mut asked.echo));
    let mut request = asked.into_request(messages)?;
    state.name_adapter(&client.caller, &mut request);
    let model = state.ready(&client.caller, request.model.as_deref()).await?;
    request::map_roles(&mut request, &model);
    let model = model.name.clone();
    let tokenizer = match logprobs {
        true => Some(state.generator.tokenizer(request.model.as_deref())?),
        false => None,
    };
    let (temperature, top_p) = (request.sampling.temperature, request.sampling.top_p);
    let mut answer = state.submit_one(&client, request).await?;
    let id = state.id("resp_");
    fixed.extend(head(&id, &model));
    fixed.insert("background".into(), background.into());
    fixed.insert("temperature".into(), temperature.into());
    fixed.insert("top_p".into(), top_p.into());
    fixed.insert("store".into(), stores.into());
    let builder = Builder::new(id.clone(), fixed, tokenizer, streamed);
    let begun = builder.response();
    let handle = answer.cancel_handle();
    let running = &state.running_responses;
    let running = running.add(id, caller.clone(), begun.clone(), move || handle.cancel());
    let keeper = stores.then(|| Keeper::new(state.responses.clone(), caller, &items));
    let mut chunks = ResponseChunks::new(builder, running, keeper);
    if streamed {
        return Ok(stream::events(vec![answer], chunks, state.options.get().keep_alive));
    }
    if background {
        tokio::spawn(generate(answer, chunks));
        return Ok(Json(begun).into_response());
    }
    let mut unsent = Outbox::default();
    while let Some(event) = answer.next().await? {
        chunks.take(event, &mut unsent)?;
    }
    Ok(Json(chunks.close()).into_response())
}

/// Refuses a background response that would not be stored.
fn check_background(state: &AppState, caller: &str) -> Result<(), ApiError> {
    if !state.responses.is_enabled() {
        let message = "background: this server stores no responses";
        return Err(ApiError::invalid(message).param("background"));
    }
    let max = state.options.get().stored_responses.count_per_caller;
    if state.running_responses.count(caller) >= max {
        let message = format!("background: {max} responses of the caller are in progress, the maximum");
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        return Err(error.code("too_many_responses").retry_after(Duration::from_secs(1)));
    }
    Ok(())
}

/// Generates a response in the background and stores it, also if it fails or its key is revoked.
async fn generate(mut answer: Work, mut chunks: ResponseChunks) {
    let mut unsent = Outbox::default();
    let ended = loop {
        match answer.next().await {
            Ok(Some(event)) => {
                if let Err(error) = chunks.take(event, &mut unsent) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    match ended {
        Ok(()) => drop(chunks.close()),
        Err(error) => chunks.error(&error, &mut unsent),
    }
}

/// Fields common to all responses.
fn head(id: &str, model: &str) -> Map<String, Value> {
    [
        ("id", id.into()),
        ("object", "response".into()),
        ("created_at", unix_seconds().into()),
        ("model", model.into()),
        ("service_tier", "default".into()),
    ]
    .map(|(name, value): (&str, Value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// Returns the items of a stored response's conversation, including its output.
fn history(state: &AppState, caller: &str, id: &str) -> Result<Vec<Value>, ApiError> {
    let stored = state.responses.get(caller, id, Instant::now()).ok_or_else(|| {
        ApiError::invalid("previous_response_id: there is no such response, or it has expired")
            .param("previous_response_id")
            .code("previous_response_not_found")
    })?;
    let mut items = stored.items()?;
    if let Value::Array(output) = stored.response()?["output"].take() {
        items.extend(output);
    }
    Ok(items)
}

/// Returns a stored response, or the initial state of a background response in progress.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    // A response is stored before it is removed from the running ones.
    if let Some(running) = state.running_responses.get(&caller.id, &id) {
        return Ok(Json(running).into_response());
    }
    let text = stored(&state, &caller.id, &id)?.response.clone();
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Deletes a stored response.
pub(crate) async fn delete(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match state.responses.delete(&caller.id, &id, Instant::now()) {
        true => Ok(Json(json!({"id": id, "object": "response", "deleted": true}))),
        false => Err(not_found()),
    }
}

/// Cancels a response in progress.
pub(crate) async fn cancel(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(response) = state.running_responses.cancel(&caller.id, &id) {
        return Ok(Json(response));
    }
    stored(&state, &caller.id, &id)?;
    Err(ApiError::invalid("the response has ended and can no longer be cancelled").code("response_ended"))
}

/// The requested part of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<Order>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Order {
    Asc,
    Desc,
}

/// Returns the input items of a stored response, newest first by default.
pub(crate) async fn input_items(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::invalid(error.body_text()))?;
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::invalid(format!("limit is {limit}, but 1 to 100 is allowed")).param("limit"));
    }
    let stored = stored(&state, &caller.id, &id)?;
    let mut items = state.off_thread(move |_| stored.items()).await?;
    if page.order != Some(Order::Asc) {
        items.reverse();
    }
    if let Some(after) = page.after {
        let place = items.iter().position(|item| item["id"] == after.as_str());
        let place = place.ok_or_else(|| ApiError::invalid("after: there is no such item").param("after"))?;
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id_of = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id_of(items.first()), id_of(items.last()));
    let list =
        json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more});
    Ok(Json(list))
}

fn stored(state: &AppState, caller: &str, id: &str) -> Result<Arc<Stored>, ApiError> {
    state.responses.get(caller, id, Instant::now()).ok_or_else(not_found)
}

fn not_found() -> ApiError {
    let message = "there is no such response, or it has expired";
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("response_not_found")
}
