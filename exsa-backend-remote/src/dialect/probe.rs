//! Detects an engine's protocol, its models and their context.

use crate::client::Client;
use crate::dialect::{Dialect, WireRequest};
use crate::error::RemoteError;
use serde_json::{Value, json};

/// Models and limits of an engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    pub(crate) models: Vec<String>,
    /// Context length of the first model, if the engine reports it.
    pub(crate) context: Option<usize>,
    /// Whether the engine has vLLM's route `/inference/v1/generate`.
    pub(crate) generate_route: bool,
    /// Owner of the first model, in lower case: for most engines their name.
    pub(crate) owned_by: String,
}

/// Returns the dialect of the engine, detected if not given, and its models and limits.
///
/// # Errors
///
/// The engine cannot be reached, or refuses the key.
pub(crate) fn probe(client: &Client, dialect: Dialect) -> Result<(Dialect, Served), RemoteError> {
    if dialect == Dialect::Triton {
        client.get("/v2/health/ready")?;
        return Ok((dialect, Served::default()));
    }
    let mut served = match client.get_json("/v1/models") {
        Ok(models) => Served::read(&models),
        Err(RemoteError::Status { status: 404 | 405 | 501, .. }) => Served::default(),
        Err(error) => return Err(error),
    };
    let dialect = match dialect {
        Dialect::Auto => detect(client, &served)?,
        dialect => dialect,
    };
    match dialect {
        Dialect::Vllm => served.generate_route = has_generate(client)?,
        Dialect::LlamaServer | Dialect::Exsa => {
            if let Ok(props) = client.get_json("/props") {
                let context = &props["default_generation_settings"]["n_ctx"];
                served.context = crate::dialect::update::count(context).or(served.context);
            }
        }
        _ => {}
    }
    Ok((dialect, served))
}

impl Served {
    fn read(models: &Value) -> Self {
        let list = models["data"].as_array().map_or(&[][..], Vec::as_slice);
        let first = list.first().unwrap_or(&Value::Null);
        Self {
            models: list.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect(),
            context: crate::dialect::update::count(&first["max_model_len"]),
            generate_route: false,
            owned_by: first["owned_by"].as_str().unwrap_or_default().to_ascii_lowercase(),
        }
    }
}

fn detect(client: &Client, served: &Served) -> Result<Dialect, RemoteError> {
    let names = [
        ("vllm", Dialect::Vllm),
        ("sglang", Dialect::Sglang),
        ("tensorrt_llm", Dialect::TensorRtLlm),
        ("llamacpp", Dialect::LlamaServer),
        ("exsa", Dialect::Exsa),
    ];
    if let Some((_, dialect)) = names.into_iter().find(|(name, _)| served.owned_by.contains(name)) {
        return Ok(dialect);
    }
    if served.models.is_empty() && client.get("/v2/health/ready").is_ok() {
        return Ok(Dialect::Triton);
    }
    match served.models.is_empty() {
        false => Ok(Dialect::OpenAi),
        true => Err(RemoteError::Protocol("no model is listed, and no known protocol answers".to_owned())),
    }
}

/// Returns whether vLLM has the route for token ids. An empty request is refused as invalid if it has; the
/// route is closed (403) or absent (404) if it has not.
fn has_generate(client: &Client) -> Result<bool, RemoteError> {
    let empty = WireRequest::new("/inference/v1/generate", json!({}));
    match client.call(&empty) {
        Ok(_) => Ok(true),
        Err(RemoteError::Status { status, .. }) => Ok(matches!(status, 400 | 422)),
        Err(error) => Err(error),
    }
}
