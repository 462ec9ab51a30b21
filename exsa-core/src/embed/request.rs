//! Embedding and rerank requests.

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
    /// Text; BOS and EOS are added if the model requires them.
    Text(String),
    /// Token ids, used unchanged.
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

/// Behaviour for a text that is longer than the engine can embed.
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
    /// Tokens at the start of the text are cut off; a required BOS is kept.
    #[cfg_attr(feature = "serde", serde(rename = "start", alias = "START"))]
    Start,
    /// Tokens at the end of the text are cut off; a required EOS is kept.
    #[cfg_attr(feature = "serde", serde(rename = "end", alias = "END"))]
    End,
}

/// A request for one vector per text.
///
/// As JSON, with the feature `serde`, it has the form of OpenAI's: `input`, the only required field, is a
/// text, a list of texts, a list of token ids, or a list of such lists. Other fields are ignored, such as
/// `encoding_format`, which concerns the response.
///
/// ```
/// use exsa_core::EmbedRequest;
///
/// let request = EmbedRequest::texts(["a frog", "a toad"]).dimensions(256);
/// # let _ = request;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EmbedRequest {
    /// Name of the model, for generators that serve several; see [`Request::model`](crate::Request::model).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// The texts.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "input", deserialize_with = "crate::wire::embed_inputs::deserialize")
    )]
    pub inputs: Vec<EmbedInput>,
    /// Whether vectors are normalized to length 1 (L2 norm); `true` by default. A zero vector is left
    /// unchanged.
    #[cfg_attr(feature = "serde", serde(default = "crate::wire::on"))]
    pub normalize: bool,
    /// Keeps the first `n` values of each vector, for models trained for it (Matryoshka representation
    /// learning, Kusupati et al. 2022); vectors are cut before they are normalized. At least 1; `None`, the
    /// default, keeps all values.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub dimensions: Option<usize>,
    /// Behaviour for texts that are too long; [`Truncate::Refuse`] by default.
    #[cfg_attr(feature = "serde", serde(default))]
    pub truncate: Truncate,
    /// Priority class.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: Priority,
    /// Time limit, measured from submission; the request then ends with
    /// [`EmbedError::Deadline`](super::EmbedError::Deadline). `None`, the default, sets no limit.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// User that the request counts for in
    /// [`EngineOptions::user_queue_max`](crate::EngineOptions::user_queue_max).
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

    /// A request for the vectors of texts, or of lists of token ids.
    pub fn texts<T: Into<EmbedInput>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::new(texts.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    request_setters!();

    /// Sets whether vectors are normalized to length 1.
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

    /// Sets the behaviour for texts that are too long.
    #[must_use]
    pub fn truncate(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }
}

/// A request for rerank scores: how well each document matches a query.
///
/// The model reads query and document as one text: `[BOS] query [EOS] [SEP] document [EOS]`, where each
/// special token is present only if the model's tokenizer adds it.
///
/// As JSON, with the feature `serde`, it has the form of Jina's and vLLM's: `query` and `documents` are
/// required, and a document is a text or an object with a `text`. Other fields are ignored, such as `top_n`
/// and `return_documents`, which concern the response.
///
/// ```
/// use exsa_core::RerankRequest;
///
/// let request = RerankRequest::new("Where do frogs live?", ["In ponds.", "On the moon."]);
/// # let _ = request;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RerankRequest {
    /// Name of the model, for generators that serve several; see [`Request::model`](crate::Request::model).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// The query.
    pub query: String,
    /// The documents.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::documents"))]
    pub documents: Vec<String>,
    /// Behaviour for pairs that are too long; [`Truncate::Refuse`] by default. The other values truncate the
    /// document, never the query.
    #[cfg_attr(feature = "serde", serde(default))]
    pub truncate: Truncate,
    /// Priority class.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: Priority,
    /// Time limit, measured from submission; the request then ends with
    /// [`EmbedError::Deadline`](super::EmbedError::Deadline). `None`, the default, sets no limit.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// User that the request counts for in
    /// [`EngineOptions::user_queue_max`](crate::EngineOptions::user_queue_max).
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

    /// Sets the behaviour for pairs that are too long.
    #[must_use]
    pub fn truncate(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }
}
