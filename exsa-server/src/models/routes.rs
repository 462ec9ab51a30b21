//! Lifecycle routes, below `/v1/models/`.

use super::catalog::{Models, changed};
use super::config::{CHANGEABLE, ModelEntry};
use super::events::{Changes, Watched, respond};
use super::view::{List, Memory, Model, Settings, order};
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use exsa_core::registry::{ModelStatus, Operation, RegistryError, Subscription};
use exsa_core::stats::EngineStats;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Reply = Result<Response, ApiError>;

/// `GET /v1/models/list`.
pub(crate) async fn list(State(state): State<Arc<AppState>>) -> Reply {
    Ok(Json(all(&state)).into_response())
}

/// `GET /v1/models/active`.
pub(crate) async fn active(State(state): State<Arc<AppState>>) -> Reply {
    let name = match &state.models {
        Some(models) => models.registry().active(),
        None => state.generator.models().first().map(|model| model.name.clone()),
    };
    Ok(Json(json!({"object": "model.active", "model": name})).into_response())
}

/// `POST /v1/models/active`.
pub(crate) async fn set_active(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    let models = registry(&state)?;
    let model = Order::read(fields, &[])?.model;
    models.registry().set_active(&model)?;
    let name = models.registry().status(&model)?.name;
    Ok(Json(json!({"object": "model.active", "model": name})).into_response())
}

/// `POST /v1/models/load`.
pub(crate) async fn load(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    let models = registry(&state)?.clone();
    let order = Order::read(fields, &["wait", "stream", "options"])?;
    find(&models, &order.model).await?;
    let status = models.registry().status(&order.model)?;
    if status.info.is_some() && order.options.is_some() {
        let message = format!("model '{}' is ready; 'reload' takes new options", status.name);
        return Err(ApiError::new(StatusCode::CONFLICT, "invalid_request_error", message)
            .param("options")
            .code("model_state"));
    }
    configure(&models, &order)?;
    let changes = models.registry().subscribe();
    let operation = models.registry().load(&order.model);
    finish(&state, status.name, &order, changes, operation, |_| Value::Null).await
}

/// `POST /v1/models/reload`.
pub(crate) async fn reload(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    let models = registry(&state)?.clone();
    let request = Order::read(fields, &["wait", "stream", "options", "grace"])?;
    let status = models.registry().status(&request.model)?;
    configure(&models, &request)?;
    let changes = models.registry().subscribe();
    let operation = models.registry().reload(&request.model, request.grace);
    finish(&state, status.name, &request, changes, operation, |taken| order(taken).into()).await
}

/// `POST /v1/models/unload`.
pub(crate) async fn unload(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    take_down(state, fields, |models, order| models.registry().unload(&order.model, order.grace)).await
}

/// `POST /v1/models/sleep`.
pub(crate) async fn sleep(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    take_down(state, fields, |models, order| models.registry().sleep(&order.model, order.grace)).await
}

/// `POST /v1/models/wake`.
pub(crate) async fn wake(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    let models = registry(&state)?.clone();
    let order = Order::read(fields, &["wait", "stream"])?;
    let status = models.registry().status(&order.model)?;
    let changes = models.registry().subscribe();
    let operation = models.registry().wake(&order.model);
    finish(&state, status.name, &order, changes, operation, |()| Value::Null).await
}

/// `POST /v1/models/cancel`: cancels a load or reload.
pub(crate) async fn cancel(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    let models = registry(&state)?;
    let order = Order::read(fields, &[])?;
    let cancelled = models.registry().cancel_load(&order.model)?;
    let mut model = shown(&state, &order.model)?;
    model["cancelled"] = cancelled.into();
    Ok(Json(model).into_response())
}

/// `POST /v1/models/mode`: mode and fairness of a running engine, and of later loads.
pub(crate) async fn set_mode(State(state): State<Arc<AppState>>, fields: Fields) -> Reply {
    const SETTINGS: [&str; 2] = ["mode", "ageing"];
    let models = registry(&state)?;
    let order = Order::read(fields, &SETTINGS)?;
    let given = order.settings.keys().cloned().collect::<Vec<_>>();
    if given.is_empty() {
        return Err(ApiError::invalid(format!("one of {} is needed", SETTINGS.join(", "))).param("mode"));
    }
    let entry = entry(order.settings.clone(), "")?;
    let config = changed(models.registry().config(&order.model)?, &entry);
    let engine = config.engine.clone();
    models.registry().configure(config)?;
    if models.registry().status(&order.model)?.info.is_some() {
        let running = models.registry().engine(Some(&order.model))?;
        running.set_mode(engine.mode);
        running.set_fair(engine.fair);
    }
    Ok(Json(shown(&state, &order.model)?).into_response())
}

/// `GET /v1/models/events`.
pub(crate) async fn events(State(state): State<Arc<AppState>>) -> Reply {
    let changes = registry(&state)?.registry().subscribe();
    let mut first = to_json(&all(&state));
    first["type"] = "models".into();
    Ok(respond(Changes { first: Some(first), changes }, state.options.get().keep_alive))
}

/// Fields of a lifecycle request.
struct Order {
    model: String,
    /// Whether the response is sent at the end of the operation; true by default.
    wait: bool,
    /// Whether progress is sent as events.
    stream: bool,
    /// Time after which requests in flight are aborted; unlimited by default.
    grace: Option<Duration>,
    options: Option<ModelEntry>,
    /// Further fields.
    settings: Map<String, Value>,
}

impl Order {
    /// Reads the model name and the fields `allowed`; others are refused, since a misspelt one would affect
    /// all clients of the model.
    fn read(mut fields: Fields, allowed: &[&str]) -> Result<Self, ApiError> {
        let model: String = fields
            .take("model")?
            .ok_or_else(|| ApiError::invalid("model: a name is needed").param("model"))?;
        let mut rest: Map<String, Value> = fields.into()?;
        if let Some(name) = rest.keys().find(|name| !allowed.contains(&name.as_str())) {
            let allowed = [&["model"], allowed].concat().join(", ");
            return Err(
                ApiError::invalid(format!("{name}: no such field; allowed are {allowed}")).param(name)
            );
        }
        let mut order =
            Self { model, wait: true, stream: false, grace: None, options: None, settings: Map::new() };
        for (field, value) in std::mem::take(&mut rest) {
            match field.as_str() {
                "wait" => order.wait = flag(&field, &value)?,
                "stream" => order.stream = flag(&field, &value)?,
                "grace" => order.grace = Some(seconds(&field, &value)?),
                "options" => {
                    let Value::Object(options) = value else {
                        return Err(ApiError::invalid("options: an object is expected").param("options"));
                    };
                    order.options = Some(entry(options, "options.")?);
                }
                _ => drop(order.settings.insert(field, value)),
            }
        }
        Ok(order)
    }
}

/// Converts the settings of a request to a model's table.
fn entry(settings: Map<String, Value>, place: &str) -> Result<ModelEntry, ApiError> {
    if let Some(name) = settings.keys().find(|name| !CHANGEABLE.contains(&name.as_str())) {
        let message = format!("{place}{name}: no such option; allowed are {}", CHANGEABLE.join(", "));
        return Err(ApiError::invalid(message).param(format!("{place}{name}")));
    }
    let settings: Map<_, _> = settings.into_iter().filter(|(_, value)| !value.is_null()).collect();
    serde_path_to_error::deserialize(Value::Object(settings)).map_err(|error| {
        let path = format!("{place}{}", error.path());
        ApiError::invalid(format!("{path}: {}", error.into_inner())).param(path)
    })
}

fn flag(field: &str, value: &Value) -> Result<bool, ApiError> {
    let invalid = || ApiError::invalid(format!("{field}: true or false is expected")).param(field);
    value.as_bool().ok_or_else(invalid)
}

/// Parses a duration: seconds, or a text such as `30s`.
pub(crate) fn seconds(field: &str, value: &Value) -> Result<Duration, ApiError> {
    super::units::duration::deserialize(value.clone()).ok().flatten().ok_or_else(|| {
        ApiError::invalid(format!("{field}: seconds, or a text such as \"30s\", are expected")).param(field)
    })
}

pub(super) fn registry(state: &AppState) -> Result<&Arc<Models>, ApiError> {
    state.models.as_ref().ok_or_else(|| {
        let message = "the models of this server cannot be changed: it has no registry";
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "invalid_request_error", message).code("not_supported")
    })
}

/// Looks for the file of an unknown model; off the runtime, since folders may be slow.
async fn find(models: &Arc<Models>, model: &str) -> Result<(), ApiError> {
    let (models, model) = (models.clone(), model.to_owned());
    let found = tokio::task::spawn_blocking(move || models.find(&model)).await;
    found.map_err(|error| ApiError::internal(format!("a worker thread ended: {error}")))
}

fn configure(models: &Models, order: &Order) -> Result<(), ApiError> {
    if let Some(options) = &order.options {
        let config = changed(models.registry().config(&order.model)?, options);
        models.registry().configure(config)?;
    }
    Ok(())
}

async fn take_down(
    state: Arc<AppState>,
    fields: Fields,
    begin: impl FnOnce(&Models, &Order) -> Operation,
) -> Reply {
    let models = registry(&state)?.clone();
    let order = Order::read(fields, &["wait", "stream", "grace"])?;
    let status = models.registry().status(&order.model)?;
    let changes = models.registry().subscribe();
    let operation = begin(&models, &order);
    finish(&state, status.name, &order, changes, operation, |()| Value::Null).await
}

/// Answers an operation: with events, at its end, or immediately. A client that disconnects leaves the
/// operation running.
async fn finish<T: Clone + Send + Unpin + 'static>(
    state: &Arc<AppState>,
    model: String,
    order: &Order,
    changes: Subscription,
    operation: Operation<T>,
    order_taken: impl Fn(T) -> Value + Send + Unpin + 'static,
) -> Reply {
    if order.stream {
        let shown_by = state.clone();
        let done = move |model: &str, value: T| {
            let mut data = shown(&shown_by, model).unwrap_or_else(|error| ApiError::from(error).json());
            data["type"] = "done".into();
            data["reload_order"] = order_taken(value);
            data
        };
        let events = Watched { model, changes, operation: Some(operation), done };
        return Ok(respond(events, state.options.get().keep_alive));
    }
    drop(changes);
    let ended = match order.wait || operation.is_done() {
        true => Some(operation.await?),
        false => None,
    };
    let status = if ended.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut body = shown(state, &model)?;
    if let Some(value) = ended {
        body["reload_order"] = order_taken(value);
    }
    Ok((status, Json(body)).into_response())
}

/// All models with the statistics of their engines.
fn all(state: &AppState) -> List {
    let stats: BTreeMap<_, _> = state.generator.stats_by_model().into_iter().collect();
    let of = |name: &str| stats.get(name).copied().unwrap_or_default();
    let Some(models) = &state.models else {
        let infos = state.generator.models();
        let data = infos.iter().enumerate().map(|(i, info)| Model::fixed(info, &of(&info.name), i == 0));
        let active = infos.first().map(|info| info.name.clone());
        let used_bytes = infos.iter().map(|info| info.weights_bytes).sum();
        let memory = Memory { used_bytes, adapter_bytes: 0, budget_bytes: None };
        return List { object: "list", active, memory, data: data.collect() };
    };
    let memory = models.registry().memory();
    let statuses = models.registry().list();
    let active = statuses.iter().find(|status| status.active).map(|status| status.name.clone());
    let members = models.registry().members();
    let data = statuses.into_iter().map(|status| model(models, status, of).members(&members)).collect();
    let memory =
        Memory { used_bytes: memory.used, adapter_bytes: memory.adapters, budget_bytes: memory.budget };
    List { object: "list", active, memory, data }
}

fn model(models: &Models, status: ModelStatus, stats: impl Fn(&str) -> EngineStats) -> Model {
    let settings = models.registry().config(&status.name).ok();
    let stats = stats(&status.name);
    Model::new(status, &stats, settings.as_ref().map(Settings::new))
}

/// Returns a model as JSON.
fn shown(state: &AppState, name: &str) -> Result<Value, RegistryError> {
    let Some(models) = &state.models else { return Ok(Value::Null) };
    let status = models.registry().status(name)?;
    let stats: BTreeMap<_, _> = state.generator.stats_by_model().into_iter().collect();
    let shown = model(models, status, |name| stats.get(name).copied().unwrap_or_default());
    Ok(to_json(&shown.members(&models.registry().members())))
}

fn to_json(value: &impl serde::Serialize) -> Value {
    // Structs of numbers and strings can always be serialized.
    serde_json::to_value(value).unwrap_or_default()
}
