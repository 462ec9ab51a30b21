//! Requests in llama-server's form.

use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer};
use exsa_core::{Request, TokenId};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Form of the answer.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) stream: bool,
    /// Whether token ids are sent.
    pub(super) tokens: bool,
    /// Whether log-probabilities are sent.
    pub(super) probabilities: bool,
    /// Fields of the last object of an answer, as paths separated by `/`; all if empty.
    pub(super) fields: Arc<[String]>,
    /// Biases given by text instead of token id.
    text_biases: Vec<(String, f32)>,
}

impl Form {
    /// Takes the fields about the form, and converts fields that only llama-server has to the engine's.
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
                    let message = format!("n_predict is {n}; the minimum is -1");
                    return Err(ApiError::invalid(message).param("n_predict"));
                }
            }
        }
        // -1 means a random seed.
        if fields.get("seed").and_then(Value::as_i64) == Some(-1) {
            let _: Option<i64> = fields.take("seed")?;
        }
        if fields.get("post_sampling_probs").and_then(Value::as_bool) == Some(true) {
            let message = "post_sampling_probs: only log-probabilities before sampling are given";
            return Err(ApiError::invalid(message).param("post_sampling_probs").code("not_supported"));
        }
        let text_biases = take_bias(fields)?;
        let paths: Vec<String> = fields.take("response_fields")?.unwrap_or_default();
        Ok(Self { stream, tokens, probabilities: n_probs > 0, fields: paths.into(), text_biases })
    }

    /// Adds the biases given by text to a request. A token in several texts keeps the first bias.
    pub(super) fn add_biases(&self, request: &mut Request, tokenizer: &dyn Tokenizer) {
        let biases = &mut request.sampling.logit_bias;
        for (text, bias) in &self.text_biases {
            let mut tokens = Vec::new();
            tokenizer.encode(text, &EncodeOptions::default(), &mut tokens);
            for token in tokens {
                if biases.iter().all(|(biased, _)| *biased != token) {
                    biases.push((token, *bias));
                }
            }
        }
    }

    /// Returns whether [`add_biases`](Self::add_biases) needs a tokenizer.
    pub(super) fn has_text_biases(&self) -> bool {
        !self.text_biases.is_empty()
    }

    /// Selects fields of an object; missing ones are left out.
    pub(super) fn choose(&self, object: Value) -> Value {
        if self.fields.is_empty() {
            return object;
        }
        let chosen = self.fields.iter().filter_map(|path| {
            let value = path.split('/').try_fold(&object, |value, name| value.get(name))?;
            Some((path.clone(), value.clone()))
        });
        Value::Object(chosen.collect())
    }
}

/// Maximum biases given by text.
const TEXT_BIASES_MAX: usize = 256;

/// Converts `logit_bias`, a map or a list of pairs, to OpenAI's map of token ids. Returns the entries with a
/// text instead of an id. `false` bans a token.
fn take_bias(fields: &mut Fields) -> Result<Vec<(String, f32)>, ApiError> {
    let pairs: Vec<(Value, Value)> = match fields.get("logit_bias") {
        Some(Value::Array(pairs)) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([token, bias]) => (token.clone(), bias.clone()),
                _ => (Value::Null, Value::Null),
            })
            .collect(),
        Some(Value::Object(map)) => {
            map.iter().map(|(token, bias)| (Value::from(token.as_str()), bias.clone())).collect()
        }
        _ => return Ok(Vec::new()),
    };
    let (mut ids, mut texts) = (Map::new(), Vec::new());
    for (token, bias) in pairs {
        match token {
            Value::Number(id) => drop(ids.insert(id.to_string(), bias)),
            Value::String(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => {
                drop(ids.insert(id, bias));
            }
            Value::String(text) => match (bias.as_f64(), bias) {
                (Some(number), _) => texts.push((text, number as f32)),
                (_, Value::Bool(false)) => texts.push((text, f32::NEG_INFINITY)),
                _ => return Err(bad_bias()),
            },
            _ => return Err(bad_bias()),
        }
    }
    if texts.len() > TEXT_BIASES_MAX {
        let message = format!("logit_bias: {} texts; at most {TEXT_BIASES_MAX} are allowed", texts.len());
        return Err(ApiError::invalid(message).param("logit_bias"));
    }
    fields.set("logit_bias", ids);
    Ok(texts)
}

fn bad_bias() -> ApiError {
    let message =
        "logit_bias: a map, or a list of pairs, of a token id or a text and a number or false is expected";
    ApiError::invalid(message).param("logit_bias")
}

/// Returns the text of a prompt that is an object, as sent by multimodal clients.
pub(super) fn text_alone(prompt: Value) -> Value {
    match prompt {
        Value::Object(mut fields) if fields.get("multimodal_data").is_none_or(Value::is_null) => {
            fields.remove("prompt_string").unwrap_or(Value::Object(fields))
        }
        prompt => prompt,
    }
}

/// Parses the prompts of `/completion`: a text, token ids or a mixed list, which is one prompt; or a list of
/// prompts.
pub(super) fn prompts(prompt: Value) -> (Vec<Value>, bool) {
    match prompt {
        Value::Array(items) if !items.is_empty() && !items.iter().any(Value::is_number) => (items, true),
        prompt => (vec![prompt], false),
    }
}

/// Joins the texts and token ids of one prompt.
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

/// Returns the settings of a request as echoed by answers: biases as a list, in which null means a ban. With
/// `ignore_eos` the end tokens known to `tokenizer` are banned.
pub(super) fn settings(request: &Request, tokenizer: Option<&dyn Tokenizer>) -> Value {
    let mut settings = serde_json::to_value(&request.sampling).unwrap_or_else(|_| json!({}));
    settings["n_predict"] = request.max_tokens.map_or(json!(-1), Value::from);
    settings["max_tokens"] = settings["n_predict"].clone();
    settings["n_probs"] = request.sampling.top_logprobs.into();
    settings["stop"] = json!(request.stop);
    settings["ignore_eos"] = request.ignore_eos.into();
    let ends =
        tokenizer.filter(|_| request.ignore_eos).map(|tokenizer| &tokenizer.special().end_of_generation);
    let bans = ends.into_iter().flatten().map(|token| json!({"token": token, "bias": null}));
    let biases =
        request.sampling.logit_bias.iter().map(|(token, bias)| json!({"token": token, "bias": bias}));
    settings["logit_bias"] = biases.chain(bans).collect();
    settings
}
