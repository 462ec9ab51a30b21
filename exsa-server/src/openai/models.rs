//! `/v1/models`.

use crate::access::Caller;
use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use exsa_core::model_info::ModelInfo;
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
    max_model_len: usize,
    meta: Meta,
}

/// Facts about the model, with the names of llama-server.
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
            max_model_len: info.n_ctx,
            meta: Meta {
                architecture: info.architecture.clone(),
                quantization: info.quantization.clone(),
                n_params: info.parameters,
                size: info.weights_bytes,
                n_ctx_train: info.n_ctx,
                n_vocab: info.n_vocab,
                n_embd: info.n_embd,
            },
        }
    }
}

/// The models that the caller may use.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Json<List> {
    let models = state.generator.models();
    let models = models.iter().filter(|info| caller.may_use(&info.name));
    let data = models.map(|info| Model::new(info, state.started)).collect();
    Json(List { object: "list", data })
}

/// One model; its name may contain `/`.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    state.authorise(&caller, Some(&id))?;
    Ok(Json(Model::new(&*state.model(Some(&id))?, state.started)))
}
