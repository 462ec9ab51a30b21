//! `/v1/embeddings`.

use super::usage::Usage;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exsa_core::EmbedRequest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Little-endian f32 in base64.
    Text(String),
}

impl Vector {
    fn new(vector: Vec<f32>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Numbers(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Text(STANDARD.encode(bytes))
            }
        }
    }
}

/// Returns one vector per text.
pub(crate) async fn embed(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Json<Embeddings>, ApiError> {
    let encoding: Encoding = fields.take("encoding_format")?.unwrap_or_default();
    let request: EmbedRequest = fields.into()?;
    let model = state.ready(&client.caller, request.model.as_deref()).await?.name.clone();
    let output = state.embed(&client, request).await?;
    let usage = Usage::from(&output.usage);
    let vectors = output.into_vectors()?.into_iter().enumerate();
    let data = vectors.map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: Vector::new(vector, encoding),
    });
    Ok(Json(Embeddings { object: "list", data: data.collect(), model, usage }))
}
