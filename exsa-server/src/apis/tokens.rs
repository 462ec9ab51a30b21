//! `/v1/tokenize` and `/v1/detokenize`, with the fields of llama-server and vLLM.

use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::TokenId;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer, encode_prompt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Tokenize {
    model: Option<String>,
    #[serde(alias = "prompt")]
    content: String,
    /// Whether BOS and EOS are added as for a prompt.
    #[serde(default, alias = "add_special_tokens")]
    add_special: bool,
    /// Whether the texts of tokens are also listed.
    #[serde(default)]
    return_token_strs: bool,
    /// Whether each token is an object with its text, as in llama-server.
    #[serde(default)]
    with_pieces: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tokenized {
    tokens: Tokens,
    count: usize,
    max_model_len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_strs: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Tokens {
    Ids(Vec<TokenId>),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Serialize)]
struct Piece {
    id: TokenId,
    piece: Bytes,
}

/// The text of a token, or its bytes if they are not whole characters.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Bytes(Vec<u8>),
}

impl Piece {
    fn new(id: TokenId, tokenizer: &dyn Tokenizer) -> Self {
        let mut bytes = Vec::new();
        tokenizer.piece(id, &mut bytes);
        if bytes.is_empty() {
            bytes.extend_from_slice(tokenizer.token_text(id).unwrap_or_default().as_bytes());
        }
        let piece = String::from_utf8(bytes);
        Self { id, piece: piece.map_or_else(|error| Bytes::Bytes(error.into_bytes()), Bytes::Text) }
    }
}

/// Returns the token ids of a text. Control tokens spelled out in the text stay text.
pub(crate) async fn tokenize(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Fields,
) -> Result<Json<Tokenized>, ApiError> {
    let request: Tokenize = fields.into()?;
    state.authorise(&client.caller, request.model.as_deref())?;
    let max_model_len = state.ready(&client.caller, request.model.as_deref()).await?.n_ctx;
    let work = move |state: &AppState| {
        let tokenizer = state.generator.tokenizer(request.model.as_deref())?;
        let options = EncodeOptions::default();
        let tokens = if request.add_special {
            encode_prompt(&*tokenizer, &request.content, &options)
        } else {
            let mut tokens = Vec::new();
            tokenizer.encode(&request.content, &options, &mut tokens);
            tokens
        };
        let texts = request.return_token_strs;
        let token_strs = texts.then(|| tokens.iter().map(|id| text_of(*id, &*tokenizer)).collect());
        let count = tokens.len();
        let tokens = match request.with_pieces {
            true => Tokens::Pieces(tokens.into_iter().map(|id| Piece::new(id, &*tokenizer)).collect()),
            false => Tokens::Ids(tokens),
        };
        Ok(Tokenized { tokens, count, max_model_len, token_strs })
    };
    Ok(Json(state.blocking(work).await?))
}

fn text_of(id: TokenId, tokenizer: &dyn Tokenizer) -> String {
    let mut bytes = Vec::new();
    tokenizer.piece(id, &mut bytes);
    match bytes.is_empty() {
        true => tokenizer.token_text(id).unwrap_or_default().to_owned(),
        false => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[derive(Debug, Deserialize)]
struct Detokenize {
    model: Option<String>,
    tokens: Vec<TokenId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Detokenized {
    content: String,
    prompt: String,
}

/// Returns the text of token ids; control tokens have none.
pub(crate) async fn detokenize(
    State(state): State<Arc<AppState>>,
    client: Client,
    fields: Fields,
) -> Result<Json<Detokenized>, ApiError> {
    let request: Detokenize = fields.into()?;
    state.authorise(&client.caller, request.model.as_deref())?;
    state.ready(&client.caller, request.model.as_deref()).await?;
    let work = move |state: &AppState| {
        let tokenizer = state.generator.tokenizer(request.model.as_deref())?;
        let n_vocab = tokenizer.n_vocab();
        if let Some(&token) = request.tokens.iter().find(|token| **token as usize >= n_vocab) {
            return Err(exsa_core::SubmitError::InvalidToken { token, n_vocab });
        }
        let mut bytes = Vec::new();
        request.tokens.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let leading = tokenizer.leading_space() && text.starts_with(' ');
        Ok(if leading { text[1..].to_owned() } else { text.into_owned() })
    };
    let content = state.blocking(work).await?;
    Ok(Json(Detokenized { prompt: content.clone(), content }))
}
