//! Adapters of models: selection by the model name of a request, and the routes that load, unload and list
//! them.

use super::routes::registry;
use crate::access::Caller;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use exsa_core::Request;
use exsa_core::adapter::{AdapterError, AdapterStatus, RequestAdapter};
use exsa_core::error::LoadError;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

impl AppState {
    /// Resolves the name of a loaded adapter, given instead of a model's, to its model with the adapter.
    /// Adapters of models that the caller may not use are unknown.
    pub(crate) fn name_adapter(&self, caller: &Caller, request: &mut Request) {
        let Some(name) = &request.model else { return };
        if self.model_name(Some(name)).is_ok() {
            return;
        }
        if let Some((model, adapter)) = self.find_adapter(name, |model| caller.may_use(model)) {
            request.adapters.push(RequestAdapter { name: adapter.name.to_string(), scale: 1.0 });
            request.model = Some(model);
        }
    }

    /// Finds a loaded adapter and its model by name.
    fn find_adapter(&self, name: &str, may_use: impl Fn(&str) -> bool) -> Option<(String, AdapterStatus)> {
        let models = self.generator.models();
        let mut models = models.iter().map(|model| model.name.as_str()).filter(|model| may_use(model));
        models.find_map(|model| {
            let adapters = self.generator.adapters(Some(model));
            let adapter = adapters.into_iter().find(|adapter| *adapter.name == *name)?;
            Some((model.to_owned(), adapter))
        })
    }
}

/// `GET /v1/models/adapters`: the adapters of all ready models.
pub(crate) async fn list(State(state): State<Arc<AppState>>) -> Json<Value> {
    let mut data = Vec::new();
    for model in state.generator.models() {
        for adapter in state.generator.adapters(Some(&model.name)) {
            let AdapterStatus { name, rank, bytes, fingerprint, requests, .. } = adapter;
            data.push(json!({
                "id": &*name, "object": "adapter", "parent": model.name, "rank": rank, "bytes": bytes,
                "fingerprint": format!("{:016x}", fingerprint.0), "requests": requests,
            }));
        }
    }
    Json(json!({"object": "list", "data": data}))
}

/// `GET /lora-adapters`: the adapters of the default model, in llama-server's form.
pub(crate) async fn llama_list(State(state): State<Arc<AppState>>, caller: Caller) -> Json<Value> {
    let models = state.generator.models();
    let model = models.first().filter(|model| caller.may_use(&model.name));
    let adapters = model.map(|model| state.generator.adapters(Some(&model.name))).unwrap_or_default();
    // No adapter applies to requests that do not name it.
    let shown = adapters.iter().map(|it| json!({"id": it.id.0, "path": &*it.name, "scale": 0.0}));
    Json(shown.collect())
}

/// `POST /lora-adapters`: global scales, which this server does not support.
pub(crate) async fn llama_set() -> ApiError {
    let message = "scales are set per request here, by its field lora: [{\"id\": 0, \"scale\": 0.5}]";
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).code("not_supported")
}

/// Converts llama-server's adapter ids in `lora` to names.
pub(crate) fn take_ids(state: &AppState, fields: &mut Fields) -> Result<(), ApiError> {
    let Some(Value::Array(list)) = fields.get("lora") else { return Ok(()) };
    let model = fields.get("model").and_then(Value::as_str);
    let name = state.model_name(model)?;
    let loaded = state.generator.adapters(Some(&name));
    let named = list.iter().map(|item| {
        let Some(id) = item.get("id") else { return Ok(item.clone()) };
        let adapter = loaded.iter().find(|adapter| id.as_u64() == Some(adapter.id.0.into()));
        let Some(adapter) = adapter else {
            let ids: Vec<String> = loaded.iter().map(|adapter| adapter.id.0.to_string()).collect();
            let message = format!("lora: there is no adapter {id}; loaded: {}", ids.join(", "));
            return Err(ApiError::invalid(message).param("lora"));
        };
        Ok(json!({"name": &*adapter.name, "scale": item.get("scale").cloned().unwrap_or(1.0.into())}))
    });
    let named = named.collect::<Result<Vec<Value>, _>>()?;
    fields.set("lora", named);
    Ok(())
}

/// `POST /v1/load_lora_adapter`, in vLLM's form, with the model name if there are several.
pub(crate) async fn load(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<String, ApiError> {
    let models = registry(&state)?.clone();
    let name = text(&mut fields, "lora_name")?;
    let path = PathBuf::from(text(&mut fields, "lora_path")?);
    let model: Option<String> = fields.take("model")?;
    if fields.take("load_inplace")?.unwrap_or(false) {
        let message = "load_inplace: an adapter is not replaced; unload it first";
        return Err(ApiError::invalid(message).param("load_inplace"));
    }
    no_more(fields, "lora_name, lora_path, model, load_inplace")?;
    if state.model_name(Some(&name)).is_ok() {
        let message = format!("lora_name: '{name}' is the name of a model");
        return Err(ApiError::new(StatusCode::CONFLICT, "invalid_request_error", message)
            .param("lora_name")
            .code("adapter_name"));
    }
    let model = state.ready(&client.caller, model.as_deref()).await?.name.clone();
    if let Some((other, _)) = state.find_adapter(&name, |other| other != model) {
        let message = format!("lora_name: '{name}' is an adapter of model '{other}'");
        return Err(ApiError::new(StatusCode::CONFLICT, "invalid_request_error", message)
            .param("lora_name")
            .code("adapter_name"));
    }
    state
        .off_thread(move |state| {
            let loaded = models
                .with_adapter(&path, |source| state.generator.load_adapter(Some(&model), &name, source));
            loaded.map(|adapter| format!("Success: LoRA adapter '{}' added successfully.", adapter.name))
        })
        .await
}

/// `POST /v1/unload_lora_adapter`, in vLLM's form.
pub(crate) async fn unload(
    State(state): State<Arc<AppState>>,
    mut fields: Fields,
) -> Result<String, ApiError> {
    let name = text(&mut fields, "lora_name")?;
    let model: Option<String> = fields.take("model")?;
    let _: Option<u64> = fields.take("lora_int_id")?;
    no_more(fields, "lora_name, model, lora_int_id")?;
    let model = match model {
        Some(model) => Some(state.model_name(Some(&model))?),
        None => state.find_adapter(&name, |_| true).map(|(model, _)| model),
    };
    state
        .off_thread(move |state| {
            state.generator.unload_adapter(model.as_deref(), &name)?;
            Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
        })
        .await
}

/// Returns a required field.
fn text(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let text = fields.take::<String>(name)?.filter(|text| !text.is_empty());
    text.ok_or_else(|| ApiError::invalid(format!("{name}: a text is needed")).param(name))
}

/// Refuses further fields, since a misspelt one would affect all clients of the model.
fn no_more(fields: Fields, allowed: &str) -> Result<(), ApiError> {
    let rest: serde_json::Map<String, Value> = fields.into()?;
    match rest.keys().next() {
        Some(name) => {
            Err(ApiError::invalid(format!("{name}: no such field; allowed are {allowed}")).param(name))
        }
        None => Ok(()),
    }
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = error.to_string();
        let invalid = |status| Self::new(status, "invalid_request_error", message.clone());
        match error {
            AdapterError::Name { .. } => {
                invalid(StatusCode::BAD_REQUEST).param("lora_name").code("adapter_name")
            }
            AdapterError::AlreadyLoaded { .. } => {
                invalid(StatusCode::CONFLICT).param("lora_name").code("adapter_loaded")
            }
            AdapterError::Unknown { .. } => {
                invalid(StatusCode::NOT_FOUND).param("lora_name").code("adapter_not_found")
            }
            AdapterError::TooMany { .. }
            | AdapterError::Budget { .. }
            | AdapterError::Load(LoadError::Memory { .. }) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "server_error", message)
                    .code("insufficient_memory")
            }
            AdapterError::Unsupported { .. } | AdapterError::Load(LoadError::Unsupported { .. }) => {
                invalid(StatusCode::BAD_REQUEST).code("not_supported")
            }
            AdapterError::Model(error) => error.into(),
            AdapterError::Load(LoadError::Adapter { .. } | LoadError::Io { .. }) => {
                invalid(StatusCode::BAD_REQUEST).param("lora_path").code("adapter_file")
            }
            _ => Self::internal(message).code("load_failed"),
        }
    }
}
