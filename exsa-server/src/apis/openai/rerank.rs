//! `/v1/rerank`, in Jina's form.

use super::usage::Usage;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::RerankRequest;
use serde::Serialize;
use std::sync::Arc;

#[derive(Debug, Serialize)]
pub(crate) struct Ranking {
    id: String,
    model: String,
    usage: Usage,
    results: Vec<Ranked>,
}

#[derive(Debug, Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Debug, Serialize)]
struct Document {
    text: String,
}

/// Returns documents with their scores, best first. A score is the raw output of the model.
pub(crate) async fn rerank(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Json<Ranking>, ApiError> {
    let top_n: usize = fields.take("top_n")?.unwrap_or(usize::MAX);
    let with_documents = fields.take("return_documents")?.unwrap_or(true);
    let request: RerankRequest = fields.into()?;
    let model = state.ready(&client.caller, request.model.as_deref()).await?.name.clone();
    let texts = if with_documents { request.documents.clone() } else { Vec::new() };
    let output = state.rerank(&client, request).await?;
    if let Some(error) = output.scores.iter().find_map(|scored| scored.score.as_ref().err()) {
        return Err(error.clone().into());
    }
    let results = output.ranking().into_iter().take(top_n).map(|(index, relevance_score)| Ranked {
        index,
        relevance_score,
        document: texts.get(index).map(|text| Document { text: text.clone() }),
    });
    Ok(Json(Ranking {
        id: state.id("rerank-"),
        model,
        usage: Usage::from(&output.usage),
        results: results.collect(),
    }))
}
