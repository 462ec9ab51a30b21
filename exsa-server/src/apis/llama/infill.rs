//! `/infill`: fill-in-the-middle completion of code.

use super::completion::{Prepared, answer};
use super::request::{Form, read};
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::inference::fill_in::Gap;
use crate::models::adapters::take_ids;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use exsa_core::Prompt;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Extra {
    #[serde(default)]
    filename: Option<String>,
    text: String,
}

/// Fills the gap between `input_prefix`, followed by `prompt`, and `input_suffix`.
pub(crate) async fn infill(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let form = Form::take(&mut fields)?;
    take_ids(&state, &mut fields)?;
    let text = |fields: &mut Fields, name| fields.take::<String>(name).map(Option::unwrap_or_default);
    let mut prefix = text(&mut fields, "input_prefix")?;
    let suffix = text(&mut fields, "input_suffix")?;
    prefix.push_str(&text(&mut fields, "prompt")?);
    let extra: Vec<Extra> = fields.take("input_extra")?.unwrap_or_default();
    let name = |name: Option<String>| name.unwrap_or_else(|| "tmp".into());
    let files = extra.into_iter().map(|extra| (name(extra.filename), extra.text)).collect();
    let gap = Gap { prefix, suffix, files };
    let mut request = read(&fields, Value::Array(Vec::new()))?;
    state.name_adapter(&client.caller, &mut request);
    state.authorise(&client.caller, request.model.as_deref())?;
    let tokenizer = state.generator.tokenizer(request.model.as_deref())?;
    let tokens = state.off_thread(move |_| gap.prompt(&*tokenizer)).await?;
    request.prompt = Prompt::Tokens(tokens);
    answer(state, &client, vec![Prepared { request, prompt: Value::Null }], false, form).await
}
