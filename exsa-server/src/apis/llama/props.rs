//! `/props`: information about the server and its model.

use super::request::settings;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Query, State};
use exsa_core::{Request, TokenId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    model: Option<String>,
}

/// Returns default settings, template and special tokens of the default or named model. `model_path` is the
/// model's name, since folders of the machine are not revealed.
pub(crate) async fn props(
    State(state): State<Arc<AppState>>,
    client: Client,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let model = asked.model.as_deref();
    let info = state.ready(&client.caller, model).await?;
    let tokenizer = state.generator.tokenizer(model)?;
    let text = |id: Option<TokenId>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    let special = tokenizer.special();
    let build = concat!("exsa-", env!("CARGO_PKG_VERSION"));
    Ok(Json(json!({
        "default_generation_settings": {
            "n_ctx": info.n_ctx,
            "params": settings(&Request::tokens([]), None),
        },
        "total_slots": state.options.get().slots,
        "model_alias": info.name,
        "model_path": info.name,
        "chat_template": info.chat_template.as_deref().unwrap_or_default(),
        "modalities": {"vision": false, "audio": false},
        "bos_token": text(special.bos),
        "eos_token": text(special.eos),
        "build_info": build,
    })))
}
