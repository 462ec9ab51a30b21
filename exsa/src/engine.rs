//! [`Engine`], a cheap handle to a running engine.

use crate::{EngineBuilder, Result};
use exsa_core::backend::ModelSource;
use exsa_core::embed::{EmbedRequest, RerankRequest};
use exsa_core::stream::Completion;
use exsa_core::tokenizer::EncodeOptions;
use exsa_core::{Generator, Request, TokenId};
use std::ops::Deref;
use std::sync::Arc;

/// A loaded model and the thread that serves requests to it.
///
/// `Engine` is a handle: clones share one engine, which shuts down when the last of them is dropped. Every
/// method takes `&self` and can be called from any thread. It dereferences to [`exsa_core::Engine`], which
/// has the other methods: [`submit`](exsa_core::Engine::submit), [`stats`](exsa_core::Engine::stats),
/// [`set_mode`](exsa_core::Engine::set_mode), [`shut_down`](exsa_core::Engine::shut_down).
///
/// ```no_run
/// use exsa::{Engine, Request};
///
/// let engine = Engine::load("model.gguf")?;
/// let mut answer = engine.submit(Request::user("Name three rivers.").max_tokens(100))?;
/// for piece in answer.text() {
///     print!("{}", piece?);
/// }
/// # Ok::<(), exsa::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<exsa_core::Engine>,
}

impl Engine {
    /// Loads a model with the default options and starts an engine on it. Blocks until the model is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Load`](crate::Error::Load): the file cannot be read, is damaged, or needs a feature that the
    /// backend does not support; or its KV cache does not fit the limits.
    pub fn load(source: impl Into<ModelSource>) -> Result<Self> {
        Self::builder().load(source)
    }

    /// Returns a builder that sets the options which [`load`](Self::load) leaves at their defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Submits a request and blocks until the answer is complete.
    ///
    /// # Errors
    ///
    /// [`Error::Submit`](crate::Error::Submit) if the request is refused,
    /// [`Error::Request`](crate::Error::Request) if it fails later.
    pub fn complete(&self, request: Request) -> Result<Completion> {
        Ok(self.inner.submit(request)?.complete()?)
    }

    /// Like [`complete`](Self::complete), for async programs on any runtime. The first poll submits the
    /// request on the polling thread, which also tokenizes the prompt.
    ///
    /// # Errors
    ///
    /// Those of [`complete`](Self::complete).
    pub async fn complete_async(&self, request: Request) -> Result<Completion> {
        Ok(self.inner.submit(request)?.complete_async().await?)
    }

    /// Embeds texts and blocks until all vectors are ready. Returns one vector per text, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Submit`](crate::Error::Submit) if the model has no embeddings or a text does not fit;
    /// [`Error::Request`](crate::Error::Request) for the first text that fails.
    pub fn embed_texts<T: Into<exsa_core::embed::EmbedInput>>(
        &self,
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Vec<f32>>> {
        Ok(self.inner.embed(EmbedRequest::texts(texts))?.wait()?.into_vectors()?)
    }

    /// Reranks documents by their relevance to a query. Returns pairs of document index and score, best
    /// first.
    ///
    /// # Errors
    ///
    /// Those of [`embed_texts`](Self::embed_texts); the model must be a reranker.
    pub fn rank<T: Into<String>>(
        &self,
        query: impl Into<String>,
        documents: impl IntoIterator<Item = T>,
    ) -> Result<Vec<(usize, f32)>> {
        Ok(self.inner.rerank(RerankRequest::new(query, documents))?.wait()?.ranking())
    }

    /// Encodes a text as token ids, without BOS and EOS. Control tokens in the text are encoded as plain
    /// text.
    pub fn tokenize(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        self.inner.tokenizer().encode(text, &EncodeOptions::default(), &mut ids);
        ids
    }

    /// Decodes token ids to text, with U+FFFD for invalid UTF-8. Control tokens have no text.
    pub fn detokenize(&self, ids: &[TokenId]) -> String {
        let tokenizer = self.inner.tokenizer();
        let mut bytes = Vec::new();
        ids.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
        let from = usize::from(tokenizer.leading_space() && bytes.first() == Some(&b' '));
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Returns the engine as a [`Generator`], the interface shared by workers, pools and remote engines, and
    /// expected by the server.
    pub fn into_generator(self) -> Arc<dyn Generator> {
        self.inner
    }
}

impl Deref for Engine {
    type Target = exsa_core::Engine;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl From<exsa_core::Engine> for Engine {
    fn from(engine: exsa_core::Engine) -> Self {
        Self { inner: Arc::new(engine) }
    }
}
