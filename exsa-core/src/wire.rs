//! JSON names and forms of requests, options and errors, by serde.
//!
//! Fields are named as in OpenAI's API; if it lacks the field, as in llama.cpp, else as in vLLM. Times are in
//! seconds.

use crate::finish::RequestError;
use crate::generator::SubmitError;
use crate::request::{Prompt, Request};
use crate::token::TokenId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An error as servers and worker processes report it: `{"type": "queue_full", "message": "...",
/// "retry_after": 1.5}`.
///
/// [`SubmitError`] and [`RequestError`] serialize in this form. A deserialized [`RequestError`] keeps its
/// type if it holds nothing but the message; otherwise it becomes a [`RequestError::Generator`] with the
/// message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorReport {
    /// The error's type in snake case: the variant's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The error message, human-readable.
    pub message: String,
    /// Estimated seconds after which to retry, for errors caused by load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
}

impl ErrorReport {
    /// A report.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retry_after: None }
    }
}

impl From<&SubmitError> for ErrorReport {
    fn from(error: &SubmitError) -> Self {
        let kind = match error {
            SubmitError::QueueFull { .. } => "queue_full",
            SubmitError::KvTooLarge { .. } => "kv_too_large",
            SubmitError::Weight(_) => "weight",
            SubmitError::EmptyPrompt => "empty_prompt",
            SubmitError::PromptTooLong { .. } => "prompt_too_long",
            SubmitError::EmptyText { .. } => "empty_text",
            SubmitError::TextTooLong { .. } => "text_too_long",
            SubmitError::Option { .. } => "option",
            SubmitError::InvalidToken { .. } => "invalid_token",
            SubmitError::NoTokens => "no_tokens",
            SubmitError::Sampling(_) => "sampling",
            SubmitError::Stop(_) => "stop",
            SubmitError::Chat(_) => "chat",
            SubmitError::Constraint(_) => "constraint",
            SubmitError::UnknownModel { .. } => "unknown_model",
            SubmitError::UnknownAdapter { .. } => "unknown_adapter",
            SubmitError::NoActiveModel { .. } => "no_active_model",
            SubmitError::ModelLoading { .. } => "model_loading",
            SubmitError::ModelUnloaded { .. } => "model_unloaded",
            SubmitError::ModelFailed { .. } => "model_failed",
            SubmitError::Unsupported { .. } => "unsupported",
            SubmitError::Generator(_) => "generator",
            SubmitError::ShuttingDown => "shutting_down",
        };
        let retry_after = match error {
            SubmitError::QueueFull { estimated_wait: wait, .. }
            | SubmitError::ModelLoading { retry_after: wait, .. } => wait.map(|wait| wait.as_secs_f64()),
            _ => None,
        };
        Self { retry_after, ..Self::new(kind, error.to_string()) }
    }
}

impl From<&RequestError> for ErrorReport {
    fn from(error: &RequestError) -> Self {
        let (kind, message) = match error {
            RequestError::Step(_) => ("step", error.to_string()),
            RequestError::Sample(_) => ("sample", error.to_string()),
            RequestError::Constraint(_) => ("constraint", error.to_string()),
            RequestError::Panicked(message) => ("panicked", message.clone()),
            RequestError::NotFinite { .. } => ("not_finite", error.to_string()),
            RequestError::Generator(message) => ("generator", message.clone()),
            RequestError::EngineStopped => ("engine_stopped", error.to_string()),
            RequestError::Lost(message) => ("lost", message.clone()),
            RequestError::Unavailable(message) => ("unavailable", message.clone()),
            RequestError::Crashed { .. } => ("crashed", error.to_string()),
        };
        Self::new(kind, message)
    }
}

impl From<ErrorReport> for RequestError {
    fn from(report: ErrorReport) -> Self {
        match report.kind.as_str() {
            "engine_stopped" => Self::EngineStopped,
            "panicked" => Self::Panicked(report.message),
            "lost" => Self::Lost(report.message),
            "unavailable" => Self::Unavailable(report.message),
            _ => Self::Generator(report.message),
        }
    }
}

impl Serialize for SubmitError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ErrorReport::from(self).serialize(serializer)
    }
}

impl Serialize for RequestError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ErrorReport::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RequestError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ErrorReport::deserialize(deserializer).map(Self::from)
    }
}

/// The default settings of a deserialized request.
pub(crate) fn request() -> Request {
    Request::tokens([])
}

/// A text or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Option::<OneOrMore>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMore::One(text)) => vec![text],
        Some(OneOrMore::More(texts)) => texts,
    })
}

/// A number; null means 1.
pub(crate) fn or_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(1))
}

/// `prompt`, a text or a list of token ids, or else `messages`, a conversation.
pub(crate) mod prompt {
    use super::*;
    use crate::chat::Message;
    use serde::ser::SerializeStruct;

    #[derive(Deserialize)]
    struct Fields {
        prompt: Option<TextOrTokens>,
        messages: Option<Vec<Message>>,
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "prompt is a text or a list of token ids")]
    enum TextOrTokens {
        Text(String),
        Tokens(Vec<TokenId>),
    }

    pub(crate) fn serialize<S: Serializer>(prompt: &Prompt, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Prompt", 1)?;
        match prompt {
            Prompt::Text(text) => fields.serialize_field("prompt", text)?,
            Prompt::Tokens(tokens) => fields.serialize_field("prompt", tokens)?,
            Prompt::Chat(messages) => fields.serialize_field("messages", messages)?,
        }
        fields.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prompt, D::Error> {
        match Fields::deserialize(deserializer)? {
            Fields { prompt: Some(TextOrTokens::Text(text)), messages: None } => Ok(Prompt::Text(text)),
            Fields { prompt: Some(TextOrTokens::Tokens(tokens)), messages: None } => {
                Ok(Prompt::Tokens(tokens))
            }
            Fields { prompt: None, messages: Some(messages) } => Ok(Prompt::Chat(messages)),
            Fields { prompt: Some(_), messages: Some(_) } => Err(D::Error::custom(
                "a request has both prompt and messages, but only one of them is allowed",
            )),
            Fields { prompt: None, messages: None } => Err(D::Error::custom(
                "a request has neither prompt nor messages, but one of them is required",
            )),
        }
    }
}

/// `truncation` of OpenAI's Responses API, or `context_shift` and `n_keep` of llama.cpp.
pub(crate) mod overflow {
    use super::*;
    use crate::overflow::Overflow;
    use serde::ser::SerializeMap;

    #[derive(Deserialize)]
    struct Fields {
        truncation: Option<Truncation>,
        context_shift: Option<bool>,
        n_keep: Option<i64>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Truncation {
        Auto,
        Disabled,
    }

    pub(crate) fn serialize<S: Serializer>(overflow: &Overflow, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        match overflow {
            Overflow::Refuse => {}
            Overflow::DropMessages => fields.serialize_entry("truncation", "auto")?,
            Overflow::Shift { keep } => {
                fields.serialize_entry("context_shift", &true)?;
                fields.serialize_entry("n_keep", &i64::try_from(*keep).unwrap_or(-1))?;
            }
        }
        fields.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Overflow, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        match (fields.truncation, fields.context_shift.unwrap_or(false)) {
            (Some(Truncation::Auto), true) => Err(D::Error::custom(
                "a request has both truncation: auto and context_shift, but only one of them is allowed",
            )),
            (Some(Truncation::Auto), false) => Ok(Overflow::DropMessages),
            (_, false) => Ok(Overflow::Refuse),
            (_, true) => match fields.n_keep.unwrap_or(0) {
                -1 => Ok(Overflow::Shift { keep: usize::MAX }),
                n => match usize::try_from(n) {
                    Ok(keep) => Ok(Overflow::Shift { keep }),
                    Err(_) => Err(D::Error::custom(format!("n_keep is {n}, but -1 or more is allowed"))),
                },
            },
        }
    }
}

/// `input` of OpenAI's embeddings: a text, a list of token ids, or a list of texts and of lists of ids.
/// Written as a list.
pub(crate) mod embed_inputs {
    use super::*;
    use crate::embed::EmbedInput;

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "input is a text, a list of texts, a list of token ids, or a list of lists of token ids"
    )]
    enum Inputs {
        Text(String),
        // Before the token ids, so that an empty list means no input rather than one empty input.
        List(Vec<EmbedInput>),
        Tokens(Vec<TokenId>),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<EmbedInput>, D::Error> {
        Ok(match Inputs::deserialize(deserializer)? {
            Inputs::Text(text) => vec![EmbedInput::Text(text)],
            Inputs::List(inputs) => inputs,
            Inputs::Tokens(tokens) => vec![EmbedInput::Tokens(tokens)],
        })
    }
}

/// `documents` of a rerank request: texts, or objects with a `text`.
pub(crate) fn documents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a document is a text or an object with a text")]
    enum Document {
        Plain(String),
        Object { text: String },
    }
    let documents = Vec::<Document>::deserialize(deserializer)?;
    let text = |document| match document {
        Document::Plain(text) | Document::Object { text } => text,
    };
    Ok(documents.into_iter().map(text).collect())
}

/// Whether a count is 0 and left out.
pub(crate) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Whether a flag is `true`, its default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_true(flag: &bool) -> bool {
    *flag
}

/// Default of a setting that is on.
pub(crate) fn on() -> bool {
    true
}

/// A time in seconds.
pub(crate) mod seconds {
    use super::*;
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An optional time in seconds.
pub(crate) mod optional_seconds {
    use super::*;
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(D::Error::custom)
    }
}

/// llama.cpp's `adaptive_target`: negative for none.
pub(crate) mod optional_target {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(target: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f32(target.unwrap_or(-1.0))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
        Ok(Some(f32::deserialize(deserializer)?).filter(|target| *target >= 0.0 || target.is_nan()))
    }
}

/// llama.cpp's `repeat_last_n`: -1 for all tokens.
pub(crate) mod last_n {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(window: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(window.map_or(-1, i64::from))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 => Ok(None),
            n => u32::try_from(n).map(Some).map_err(|_| D::Error::custom(format!("{n}, but -1 or more"))),
        }
    }
}

/// OpenAI's `logit_bias`, a map by token id; `false`, as in llama.cpp, forbids a token.
pub(crate) mod logit_bias {
    use super::*;
    use serde::de::{MapAccess, Visitor};
    use serde::ser::SerializeMap;
    use std::fmt;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Bias {
        Value(f32),
        Allowed(bool),
    }

    pub(crate) fn serialize<S: Serializer>(
        bias: &[(TokenId, f32)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(bias.len()))?;
        for (token, value) in bias {
            let value = if *value == f32::NEG_INFINITY { Bias::Allowed(false) } else { Bias::Value(*value) };
            map.serialize_entry(&token.to_string(), &value)?;
        }
        map.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(TokenId, f32)>, D::Error> {
        struct Biases;
        impl<'de> Visitor<'de> for Biases {
            type Value = Vec<(TokenId, f32)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token ids to numbers, or to false")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Vec::new())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut biases = Vec::new();
                while let Some((token, bias)) = map.next_entry::<String, Bias>()? {
                    let token: TokenId = token
                        .parse()
                        .map_err(|_| A::Error::custom(format!("'{token}' is not a token id")))?;
                    biases.push(match bias {
                        Bias::Value(value) => (token, value),
                        Bias::Allowed(false) => (token, f32::NEG_INFINITY),
                        Bias::Allowed(true) => return Err(A::Error::custom("true is not a valid bias")),
                    });
                }
                Ok(biases)
            }
        }
        deserializer.deserialize_any(Biases)
    }
}
