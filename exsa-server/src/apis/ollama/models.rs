//! Models in the form of Ollama's API.

use super::error::OllamaError;
use super::times;
use crate::access::Caller;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::model_info::ModelInfo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Default tag of names without one.
const LATEST: &str = ":latest";
/// Unix time at which years reach five digits.
const YEAR_9999: Duration = Duration::from_secs(253_370_764_800);

/// Resolves a name or alias, with or without the tag `:latest`, to a model name.
pub(super) fn named(state: &AppState, name: Option<&str>) -> Result<String, ApiError> {
    let Some(name) = name else { return Err(ApiError::invalid("model: a name is required").param("model")) };
    if let Some(found) = fetched(state, name) {
        return Ok(found);
    }
    state.model_name(Some(name)).or_else(|error| match name.strip_suffix(LATEST) {
        Some(name) => state.model_name(Some(name)),
        None => Err(error),
    })
}

/// Resolves the name of a fetched model in Ollama's form, `hf.co/OWNER/REPO:QUANT`; the quantization is
/// optional if there is one model of the repository.
fn fetched(state: &AppState, name: &str) -> Option<String> {
    if !name.starts_with("hf.co/") {
        return None;
    }
    let plain = name.strip_suffix(LATEST).unwrap_or(name).replacen(':', "/", 1);
    if let Ok(found) = state.model_name(Some(&plain)) {
        return Some(found);
    }
    let models = state.models.as_ref()?.registry().list();
    let mut of_repo = models
        .into_iter()
        .filter(|model| model.name.strip_prefix(plain.as_str()).is_some_and(|rest| rest.starts_with('/')));
    match (of_repo.next(), of_repo.next()) {
        (Some(only), None) => Some(only.name),
        _ => None,
    }
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

/// Fields common to `tags` and `ps`. Files have no digest here; their name is used instead.
fn entry(name: &str, info: &ModelInfo) -> Value {
    let tagged = format!("{name}{LATEST}");
    json!({"name": tagged, "model": tagged, "size": info.weights_bytes, "digest": name, "details": details(info)})
}

/// Lists all models that the caller may use, loaded or not.
pub(crate) async fn tags(State(state): State<Arc<AppState>>, caller: Caller) -> Json<Value> {
    let since = UNIX_EPOCH + Duration::from_secs(state.started);
    let modified = humantime::format_rfc3339_seconds(since).to_string();
    let mut entries = state.generator.models().iter().map(|info| entry(&info.name, info)).collect::<Vec<_>>();
    if let Some(models) = &state.models {
        let unloaded = models.registry().list().into_iter().filter(|model| model.info.is_none());
        entries.extend(unloaded.map(|model| {
            let size = models.file_bytes(&model.name).unwrap_or(0);
            let mut info = ModelInfo::default();
            info.weights_bytes = size;
            entry(&model.name, &info)
        }));
    }
    entries.retain(|entry| entry["digest"].as_str().is_some_and(|name| caller.may_use(name)));
    for entry in &mut entries {
        entry["modified_at"] = modified.clone().into();
    }
    Json(json!({"models": entries}))
}

/// Lists models in memory, with the time at which each is put to sleep if no request arrives.
pub(crate) async fn ps(State(state): State<Arc<AppState>>, caller: Caller) -> Json<Value> {
    let infos = state.generator.models();
    let infos = infos.iter().filter(|info| caller.may_use(&info.name));
    let entries = infos.map(|info| {
        let status = state.models.as_ref().and_then(|models| models.registry().status(&info.name).ok());
        let left = status
            .and_then(|status| Some(status.keep_alive?.saturating_sub(status.idle.unwrap_or_default())));
        // A time beyond the clock's range means never.
        let expires = left.and_then(|left| SystemTime::now().checked_add(left));
        let expires = expires.filter(|time| time.duration_since(UNIX_EPOCH).is_ok_and(|t| t < YEAR_9999));
        let expires = expires.map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let mut entry = entry(&info.name, info);
        entry["expires_at"] = expires.unwrap_or_else(|| "9999-12-31T23:59:59Z".into()).into();
        entry["size_vram"] = 0.into();
        entry["context_length"] = info.n_ctx.into();
        entry
    });
    Json(json!({"models": entries.collect::<Vec<_>>()}))
}

/// Returns information about a model.
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
    let name = named(&state, name.as_deref())?;
    let info = state.describe(&caller, &name).await?;
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

/// Returns the version of this server. Clients compare it with versions of Ollama; the API is that of 0.12.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": "0.12.0", "exsa": env!("CARGO_PKG_VERSION")}))
}
