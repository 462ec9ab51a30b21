//! Requests in llama-server's form.

use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer};
use exsa_core::{Request, TokenId};
use serde_json::{Map, Value, json};

/// How an answer is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) stream: bool,
    /// Whether token ids are sent.
    pub(super) tokens: bool,
    /// Whether log-probabilities are sent.
    pub(super) probabilities: bool,
}

impl Form {
    /// Takes the fields about the form, and turns those that only llama-server has into the engine's.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.take("stream")?.unwrap_or(false);
        let tokens = fields.take("return_tokens")?.unwrap_or(false);
        let n_probs: u32 = fields.take("n_probs")?.unwrap_or(0);
        if n_probs > 0 {
            fields.set("logprobs", true);
            fields.set("top_logprobs", n_probs);
        }
        if let Some(n) = fields.take::<i64>("n_predict")? {
            match u64::try_from(n) {
                Ok(n) => fields.set("max_tokens", n),
                Err(_) if n == -1 => {}
                Err(_) => {
                    let message = format!("n_predict is {n}, but -1 or more is allowed");
                    return Err(ApiError::invalid(message).param("n_predict"));
                }
            }
        }
        // -1 stands for a random seed.
        if fields.get("seed").and_then(Value::as_i64) == Some(-1) {
            let _: Option<i64> = fields.take("seed")?;
        }
        take_bias(fields)?;
        Ok(Self { stream, tokens, probabilities: n_probs > 0 })
    }
}

/// Turns a list of pairs of `logit_bias` into OpenAI's map.
fn take_bias(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(Value::Array(pairs)) = fields.get("logit_bias") else { return Ok(()) };
    let entry = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::Number(token), bias]) => Some((token.to_string(), bias.clone())),
        _ => None,
    };
    let map: Option<Map<String, Value>> = pairs.iter().map(entry).collect();
    let map = map.ok_or_else(|| {
        ApiError::invalid("logit_bias: a map, or a list of pairs of a token id and a number, is expected")
            .param("logit_bias")
    })?;
    fields.set("logit_bias", map);
    Ok(())
}

/// The text of a prompt that is an object, as multimodal clients send it.
pub(super) fn text_alone(prompt: Value) -> Value {
    match prompt {
        Value::Object(mut fields) if fields.get("multimodal_data").is_none_or(Value::is_null) => {
            fields.remove("prompt_string").unwrap_or(Value::Object(fields))
        }
        prompt => prompt,
    }
}

/// The prompts of `/completion`: a text, token ids, or a list of both, which is one prompt; or a list of
/// prompts.
pub(super) fn prompts(prompt: Value) -> (Vec<Value>, bool) {
    match prompt {
        Value::Array(items) if !items.is_empty() && !items.iter().any(Value::is_number) => (items, true),
        prompt => (vec![prompt], false),
    }
}

/// Joins texts and token ids of one prompt.
pub(super) fn mixed(items: &[Value], tokenizer: &dyn Tokenizer) -> Result<Vec<TokenId>, ApiError> {
    let mut tokens = Vec::new();
    if let (Some(Value::String(_)), special) = (items.first(), tokenizer.special()) {
        tokens.extend(special.bos.filter(|_| special.add_bos));
    }
    for item in items {
        match (item, item.as_u64().and_then(|id| TokenId::try_from(id).ok())) {
            (Value::String(text), _) => tokenizer.encode(text, &EncodeOptions::default(), &mut tokens),
            (_, Some(id)) => tokens.push(id),
            _ => {
                let message = "prompt: a text, token ids or a list of these is expected";
                return Err(ApiError::invalid(message).param("prompt"));
            }
        }
    }
    Ok(tokens)
}

/// Reads the request with its prompt.
pub(super) fn read(fields: &Fields, prompt: Value) -> Result<Request, ApiError> {
    request::read(fields.with("prompt", prompt))
}

/// The settings of a request, as answers repeat them.
pub(super) fn settings(request: &Request) -> Value {
    let mut settings = serde_json::to_value(&request.sampling).unwrap_or_else(|_| json!({}));
    settings["n_predict"] = request.max_tokens.map_or(json!(-1), Value::from);
    settings["max_tokens"] = settings["n_predict"].clone();
    settings["n_probs"] = request.sampling.top_logprobs.into();
    settings["stop"] = json!(request.stop);
    settings["ignore_eos"] = request.ignore_eos.into();
    settings
}
