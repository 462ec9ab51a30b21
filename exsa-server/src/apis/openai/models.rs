//! `/v1/models`.

use crate::access::Caller;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use exsa_core::model_info::ModelInfo;
use exsa_core::registry::ModelState;
use serde::Serialize;
use std::sync::Arc;

#[derive(Debug, Serialize)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// For an adapter, its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// Aliases, as listed by llama-server.
    aliases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<usize>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

/// State of a model, with llama-server's names.
#[derive(Debug, Serialize)]
struct Status {
    /// loaded, loading, sleeping or unloaded.
    value: &'static str,
    /// Whether the last load failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// Model information, with llama-server's names.
#[derive(Debug, Serialize)]
struct Meta {
    architecture: String,
    quantization: String,
    n_params: u64,
    size: u64,
    n_ctx_train: usize,
    n_vocab: usize,
    n_embd: usize,
}

impl Model {
    fn new(info: &ModelInfo, created: u64) -> Self {
        Self {
            id: info.name.clone(),
            object: "model",
            created,
            owned_by: "exsa",
            parent: None,
            aliases: Vec::new(),
            max_model_len: Some(info.n_ctx),
            status: Status { value: "loaded", failed: false },
            meta: Some(Meta {
                architecture: info.architecture.clone(),
                quantization: info.quantization.clone(),
                n_params: info.parameters,
                size: info.weights_bytes,
                n_ctx_train: info.n_ctx,
                n_vocab: info.n_vocab,
                n_embd: info.n_embd,
            }),
        }
    }

    /// A model that is not ready; only its name is known.
    fn named(id: String, state: &ModelState, created: u64) -> Self {
        let (value, failed) = match state {
            ModelState::Loading(_) => ("loading", false),
            ModelState::Sleeping => ("sleeping", false),
            ModelState::Failed { .. } => ("unloaded", true),
            _ => ("unloaded", false),
        };
        let status = Status { value, failed };
        Self {
            id,
            object: "model",
            created,
            owned_by: "exsa",
            parent: None,
            aliases: Vec::new(),
            max_model_len: None,
            status,
            meta: None,
        }
    }

    /// An adapter of a model.
    fn adapter(name: &str, model: &ModelInfo, created: u64) -> Self {
        let parent = Some(model.name.clone());
        Self { id: name.to_owned(), parent, meta: None, ..Self::new(model, created) }
    }

    fn aliases(mut self, aliases: Vec<String>) -> Self {
        self.aliases = aliases;
        self
    }
}

/// Lists the ready models that the caller may use, the active one first, and those that a request would load
/// or wake.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Json<List> {
    let ready = state.generator.models();
    let mut data: Vec<_> = ready.iter().map(|info| Model::new(info, state.started)).collect();
    if let Some(models) = &state.models {
        let all = models.registry().list();
        for model in &mut data {
            let status = all.iter().find(|status| status.name == model.id);
            model.aliases = status.map(|status| status.aliases.clone()).unwrap_or_default();
        }
        let others = all.into_iter().filter(|model| model.info.is_none());
        let loadable = others.filter(|model| {
            models.load_on_request() || matches!(model.state, ModelState::Loading(_) | ModelState::Sleeping)
        });
        data.extend(
            loadable
                .map(|model| Model::named(model.name, &model.state, state.started).aliases(model.aliases)),
        );
    }
    for info in &ready {
        let adapters = state.generator.adapters(Some(&info.name));
        data.extend(adapters.iter().map(|adapter| Model::adapter(&adapter.name, info, state.started)));
    }
    data.retain(|model| caller.may_use(model.parent.as_ref().unwrap_or(&model.id)));
    Json(List { object: "list", data })
}

/// Returns one model; its name may contain `/`.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let name = state.model_name(Some(&id))?;
    let status = state.models.as_ref().and_then(|models| models.registry().status(&name).ok());
    let aliases = status.as_ref().map(|status| status.aliases.clone()).unwrap_or_default();
    if let Some(status) = status.filter(|status| status.info.is_none()) {
        state.authorise(&caller, Some(&name))?;
        return Ok(Json(Model::named(name, &status.state, state.started).aliases(aliases)));
    }
    let model = Model::new(&*state.describe(&caller, &name).await?, state.started);
    Ok(Json(model.aliases(aliases)))
}
