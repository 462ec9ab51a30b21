//! Models in the form of Ollama's API.

use super::error::OllamaError;
use super::times;
use crate::access::Caller;
use crate::body::Fields;
use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::model_info::ModelInfo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The tag that names without a tag have.
const LATEST: &str = ":latest";

/// A model by its name, with or without the tag `:latest`.
pub(super) fn named(state: &AppState, name: Option<&str>) -> Result<Arc<ModelInfo>, ApiError> {
    let Some(name) = name else { return Err(ApiError::invalid("model: a name is needed").param("model")) };
    state.model(Some(name)).or_else(|error| match name.strip_suffix(LATEST) {
        Some(name) => state.model(Some(name)),
        None => Err(error),
    })
}

fn details(info: &ModelInfo) -> Value {
    let billions = info.parameters as f64 / 1e9;
    let size = match billions {
        size if size >= 1.0 => format!("{size:.1}B"),
        size => format!("{:.1}M", size * 1e3),
    };
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": size,
        "quantization_level": info.quantization,
    })
}

/// Facts that `tags` and `ps` share. Files have no digest here; their name stands in its place.
fn entry(info: &ModelInfo) -> Value {
    let name = format!("{}{LATEST}", info.name);
    json!({"name": name, "model": name, "size": info.weights_bytes, "digest": info.name, "details": details(info)})
}

/// The models that the caller may use.
pub(crate) async fn tags(State(state): State<Arc<AppState>>, caller: Caller) -> Json<Value> {
    let since = UNIX_EPOCH + Duration::from_secs(state.started);
    let modified = humantime::format_rfc3339_seconds(since).to_string();
    let models = state.generator.models();
    let models = models.iter().filter(|info| caller.may_use(&info.name)).map(|info| {
        let mut entry = entry(info);
        entry["modified_at"] = modified.clone().into();
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

/// Models in memory; they stay until the server ends.
pub(crate) async fn ps(State(state): State<Arc<AppState>>, caller: Caller) -> Json<Value> {
    let models = state.generator.models();
    let models = models.iter().filter(|info| caller.may_use(&info.name)).map(|info| {
        let mut entry = entry(info);
        entry["expires_at"] = "9999-12-31T23:59:59Z".into();
        entry["size_vram"] = 0.into();
        entry["context_length"] = info.n_ctx.into();
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

/// Facts about a model.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    fields: Result<Fields, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    let mut fields = fields?;
    let name: Option<String> = match fields.take("model")? {
        Some(name) => Some(name),
        None => fields.take("name")?,
    };
    let info = named(&state, name.as_deref())?;
    state.authorise(&caller, Some(&info.name))?;
    let architecture = &info.architecture;
    let mut model_info = json!({
        "general.architecture": architecture,
        "general.parameter_count": info.parameters,
    });
    for (key, number) in [
        ("context_length", info.n_ctx),
        ("block_count", info.n_layer),
        ("embedding_length", info.n_embd),
        ("vocab_size", info.n_vocab),
    ] {
        model_info[format!("{architecture}.{key}")] = number.into();
    }
    let tools = info.chat_template.as_deref().is_some_and(|template| template.contains("tools"));
    let capabilities = if tools { json!(["completion", "tools"]) } else { json!(["completion"]) };
    Ok(Json(json!({
        "modelfile": "",
        "parameters": "",
        "template": info.chat_template.clone().unwrap_or_default(),
        "details": details(&info),
        "model_info": model_info,
        "capabilities": capabilities,
        "modified_at": times::now(),
    })))
}

/// The version of this server. Clients compare it with versions of Ollama, whose API is spoken as of 0.12.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": "0.12.0", "exsa": env!("CARGO_PKG_VERSION")}))
}
