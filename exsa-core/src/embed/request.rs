//! Requests for vectors and scores.

use crate::priority::Priority;
use crate::setters::request_setters;
use crate::token::TokenId;
use std::time::Duration;

/// A text to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(untagged, expecting = "a text or a list of token ids")
)]
#[non_exhaustive]
pub enum EmbedInput {
    /// Text; BOS and EOS are put around it where the model wants them.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<TokenId>),
}

impl From<&str> for EmbedInput {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for EmbedInput {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<TokenId>> for EmbedInput {
    fn from(tokens: Vec<TokenId>) -> Self {
        Self::Tokens(tokens)
    }
}

/// The treatment of a text that is longer than the engine can embed.
///
/// As JSON `"none"`, `"start"` and `"end"`, the names of Cohere's API, in lower or upper case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Truncate {
    /// The request is refused.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "none", alias = "NONE"))]
    Refuse,
    /// The text is cut at its start; a BOS that the model wants stays.
    #[cfg_attr(feature = "serde", serde(rename = "start", alias = "START"))]
    Start,
    /// The text is cut at its end; an EOS that the model wants stays.
    #[cfg_attr(feature = "serde", serde(rename = "end", alias = "END"))]
    End,
}

/// A request for one vector per text.
///
/// As JSON, with the feature `serde`, it has the form of OpenAI's: `input`, the only field that is required,
/// is a text, a list of texts, a list of token ids, or a list of such lists. Fields of other names are
/// ignored: `encoding_format` is about the answer.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EmbedRequest {
    /// Name of the model, for generators that have several; as in [`Request::model`](crate::Request::model).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// The texts.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "input", deserialize_with = "crate::wire::embed_inputs::deserialize")
    )]
    pub inputs: Vec<EmbedInput>,
    /// Whether vectors are scaled to length 1 (L2 norm); `true` by default. A vector of zeros stays.
    #[cfg_attr(feature = "serde", serde(default = "crate::wire::on"))]
    pub normalize: bool,
    /// Keeps the first `n` values of each vector, for models trained for it (Matryoshka representation
    /// learning, Kusupati et al. 2022); they are cut before they are scaled. At least 1; all by default.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub dimensions: Option<usize>,
    /// The treatment of texts that are too long; [`Truncate::Refuse`] by default.
    #[cfg_attr(feature = "serde", serde(default))]
    pub truncate: Truncate,
    /// How urgent the request is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: Priority,
    /// The request ends with [`EmbedError::Deadline`](super::EmbedError::Deadline) when this much time has
    /// passed.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// The user, whose waiting requests
    /// [`EngineOptions::user_queue_max`](crate::EngineOptions::user_queue_max) limits.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub user: Option<String>,
}

impl EmbedRequest {
    /// A request with the default settings.
    pub fn new(inputs: impl Into<Vec<EmbedInput>>) -> Self {
        Self {
            model: None,
            inputs: inputs.into(),
            normalize: true,
            dimensions: None,
            truncate: Truncate::default(),
            priority: Priority::default(),
            timeout: None,
            user: None,
        }
    }

    /// Vectors of texts, or of lists of token ids.
    pub fn texts<T: Into<EmbedInput>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::new(texts.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    request_setters!();

    /// Sets whether vectors are scaled to length 1.
    #[must_use]
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// Sets the number of values to keep of each vector.
    #[must_use]
    pub fn dimensions(mut self, n: impl Into<Option<usize>>) -> Self {
        self.dimensions = n.into();
        self
    }

    /// Sets the treatment of texts that are too long.
    #[must_use]
    pub fn truncate(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }
}

/// A request for scores: how well each document fits a query.
///
/// The model reads query and document in one: `[BOS] query [EOS] [SEP] document [EOS]`, each special token
/// where the model's tokenizer adds it.
///
/// As JSON, with the feature `serde`, it has the form of Jina's and vLLM's: `query` and `documents` are
/// required, and a document is a text or an object with a `text`. Fields of other names are ignored: `top_n`
/// and `return_documents` are about the answer.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RerankRequest {
    /// Name of the model, for generators that have several; as in [`Request::model`](crate::Request::model).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// The query.
    pub query: String,
    /// The documents.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::documents"))]
    pub documents: Vec<String>,
    /// The treatment of pairs that are too long; [`Truncate::Refuse`] by default. The others cut documents,
    /// never the query.
    #[cfg_attr(feature = "serde", serde(default))]
    pub truncate: Truncate,
    /// How urgent the request is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: Priority,
    /// The request ends with [`EmbedError::Deadline`](super::EmbedError::Deadline) when this much time has
    /// passed.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// The user, whose waiting requests
    /// [`EngineOptions::user_queue_max`](crate::EngineOptions::user_queue_max) limits.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub user: Option<String>,
}

impl RerankRequest {
    /// A request with the default settings.
    pub fn new<T: Into<String>>(query: impl Into<String>, documents: impl IntoIterator<Item = T>) -> Self {
        Self {
            model: None,
            query: query.into(),
            documents: documents.into_iter().map(Into::into).collect(),
            truncate: Truncate::default(),
            priority: Priority::default(),
            timeout: None,
            user: None,
        }
    }

    request_setters!();

    /// Sets the treatment of pairs that are too long.
    #[must_use]
    pub fn truncate(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }
}
