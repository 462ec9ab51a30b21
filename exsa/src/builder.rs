//! [`EngineBuilder`]: backend, load options, session options and scheduler options of an engine.

use crate::{Engine, Result, default_backend};
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource, PackedCache,
    ThreadOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::GgmlType;
use exsa_core::model_file::OverrideValue;
use exsa_core::speculate::DraftModelSource;
use exsa_core::{EngineOptions, Mode};
use std::fmt;
use std::sync::Arc;

/// Progress callback of a load: bytes loaded, total bytes. `false` cancels the load.
type Progress = Box<dyn FnMut(u64, u64) -> bool + Send>;

/// Builds an [`Engine`]: backend, device, threads, memory, scheduling.
///
/// | option | default |
/// |---|---|
/// | [`backend`](Self::backend) | candle if the feature is enabled, else llama.cpp |
/// | [`device`](Self::device) | the first device of the backend |
/// | [`packed_cache`](Self::packed_cache) | none |
/// | [`metadata_override`](Self::metadata_override) | none |
/// | [`quantize`](Self::quantize) | types of the file |
/// | [`threads`](Self::threads) | one per physical core available to the process |
/// | [`context_tokens`](Self::context_tokens) | context length of the model |
/// | [`sequences`](Self::sequences) | 16 |
/// | [`kv_bytes`](Self::kv_bytes) | at most 1 GiB |
/// | [`kv_type`](Self::kv_type) | f16 |
/// | [`mode`](Self::mode) | [`Mode::Balanced`] |
/// | [`draft_model`](Self::draft_model) | none |
/// | [`memory_max`](Self::memory_max) | no limit |
///
/// ```no_run
/// use exsa::{Engine, Mode};
///
/// let engine = Engine::builder()
///     .threads(4)
///     .context_tokens(8192)
///     .mode(Mode::Latency)
///     .memory_max(6 << 30)
///     .progress(|done, total| {
///         eprint!("\r{} %", done * 100 / total.max(1));
///         true
///     })
///     .load("model.gguf")?;
/// # Ok::<(), exsa::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing before `load` or `start`"]
pub struct EngineBuilder {
    backend: Option<Arc<dyn InferenceBackend>>,
    load: LoadOptions,
    options: EngineOptions,
    draft: Option<ModelSource>,
    drafts_max: Option<usize>,
    memory_max: Option<u64>,
    progress: Option<Progress>,
}

impl EngineBuilder {
    /// Sets the backend.
    pub fn backend(mut self, backend: impl InferenceBackend + 'static) -> Self {
        self.backend = Some(Arc::new(backend));
        self
    }

    /// Sets the device, by a name of [`InferenceBackend::devices`].
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.load.device = Some(name.into());
        self
    }

    /// Caches packed weights in a file, which later loads and other processes map.
    ///
    /// ```no_run
    /// use exsa::{Engine, PackedCache};
    ///
    /// let engine = Engine::builder().packed_cache(PackedCache::beside_model()).load("model.gguf")?;
    /// # Ok::<(), exsa::Error>(())
    /// ```
    pub fn packed_cache(mut self, cache: impl Into<Option<PackedCache>>) -> Self {
        self.load.packed_cache = cache.into();
        self
    }

    /// Sets the value of a metadata key in place of the file's, as llama.cpp's `--override-kv`.
    pub fn metadata_override(mut self, key: impl Into<String>, value: impl Into<OverrideValue>) -> Self {
        self.load = self.load.metadata_override(key, value);
        self
    }

    /// Sets the type that matrices of F32, F16 and BF16 are quantized to while they are loaded.
    ///
    /// ```no_run
    /// use exsa::Engine;
    /// use exsa::core::gguf::GgmlType;
    ///
    /// let engine = Engine::builder().quantize(GgmlType::Q8_0).load("SmolLM2-135M-Instruct")?;
    /// # Ok::<(), exsa::Error>(())
    /// ```
    pub fn quantize(mut self, dtype: impl Into<Option<GgmlType>>) -> Self {
        self.load = self.load.quantize(dtype);
        self
    }

    /// Sets the number of threads for loading and computing; 0 for the default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.load.threads = ThreadOptions::compute(threads);
        self.options.session.threads = ThreadOptions::compute(threads);
        self
    }

    /// Sets the context length: the maximum tokens of a sequence, prompt and answer together.
    pub fn context_tokens(mut self, tokens: usize) -> Self {
        self.options.session.context_tokens_max = Some(tokens);
        self
    }

    /// Sets the maximum number of concurrent sequences.
    pub fn sequences(mut self, sequences: usize) -> Self {
        self.options.session.sequences_max = sequences;
        self
    }

    /// Sets the maximum size of the KV cache in bytes.
    pub fn kv_bytes(mut self, bytes: u64) -> Self {
        self.options.session.kv_bytes_max = bytes;
        self
    }

    /// Sets the element type of cached keys and values.
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.options.session = self.options.session.kv_type(kv_type);
        self
    }

    /// Sets the goal of the scheduler.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    /// Loads a draft model for speculative decoding: a smaller model with the same vocabulary
    /// ([`DraftModelSource`]).
    ///
    /// ```no_run
    /// let engine = exsa::Engine::builder().draft_model("small.gguf").drafts_max(8).load("large.gguf")?;
    /// # Ok::<(), exsa::Error>(())
    /// ```
    pub fn draft_model(mut self, source: impl Into<ModelSource>) -> Self {
        self.draft = Some(source.into());
        self
    }

    /// Sets the maximum draft tokens of the [draft model](Self::draft_model) per request and step.
    pub fn drafts_max(mut self, drafts: usize) -> Self {
        self.drafts_max = Some(drafts);
        self
    }

    /// Refuses a model whose [estimate](Self::estimate) exceeds `bytes`, before it is loaded. The load fails
    /// if the backend cannot estimate memory.
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory_max = Some(bytes);
        self
    }

    /// Sets a progress callback, called with the bytes loaded and the total bytes. Returning `false` cancels
    /// the load, which then fails with [`LoadError::Cancelled`].
    pub fn progress(mut self, progress: impl FnMut(u64, u64) -> bool + Send + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Changes engine options that have no setter here: queue, prefix cache, fairness, chat template.
    ///
    /// ```no_run
    /// let engine = exsa::Engine::builder().options(|options| options.queue_max(64)).load("model.gguf")?;
    /// # Ok::<(), exsa::Error>(())
    /// ```
    pub fn options(mut self, change: impl FnOnce(EngineOptions) -> EngineOptions) -> Self {
        self.options = change(self.options);
        self
    }

    /// Estimates the memory of the model and one session with these options, including the draft model and
    /// its session. Reads only the headers of the files.
    ///
    /// # Errors
    ///
    /// [`Error::Load`](crate::Error::Load), also if the backend or the device cannot estimate memory.
    pub fn estimate(&self, source: impl Into<ModelSource>) -> Result<MemoryEstimate> {
        let own = self.backend_or_default()?.estimate(&source.into(), &self.load, &self.options.session)?;
        let Some(draft) = self.draft_source()? else { return Ok(own) };
        let draft = draft.estimate(&self.load, &self.options)?;
        Ok(MemoryEstimate::new(own.weights + draft.weights, own.kv + draft.kv, own.scratch + draft.scratch))
    }

    /// Loads a model and starts an engine on it. Blocks until the model is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Load`](crate::Error::Load).
    pub fn load(mut self, source: impl Into<ModelSource>) -> Result<Engine> {
        let source = source.into();
        if let Some(available) = self.memory_max {
            let needed = self.estimate(source.clone())?.total();
            if needed > available {
                return Err(LoadError::Memory { what: "the model", needed, available }.into());
            }
        }
        let backend = self.backend_or_default()?;
        let mut progress = match &mut self.progress {
            Some(progress) => LoadProgress::new(progress),
            None => LoadProgress::none(),
        };
        let model = backend.load(&source, &self.load, &mut progress)?;
        self.start_with(model)
    }

    /// Starts an engine on a loaded model. Load options then apply only to the draft model.
    ///
    /// ```
    /// use exsa::core::scripted::ScriptedModel;
    /// use exsa::{Engine, Request};
    ///
    /// let engine = Engine::builder().start(ScriptedModel::echo("Good morning.").shared())?;
    /// let answer = engine.complete(Request::text("Say hello: ").max_tokens(13))?;
    /// assert_eq!(answer.text, "Good morning.");
    /// # Ok::<(), exsa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Load`](crate::Error::Load): the session cannot be created, or the thread cannot be started.
    pub fn start(self, model: Arc<dyn Model>) -> Result<Engine> {
        self.start_with(model)
    }

    fn start_with(self, model: Arc<dyn Model>) -> Result<Engine> {
        let engine = match self.draft_source()? {
            None => exsa_core::Engine::start(model, self.options)?,
            Some(draft) => draft.start(model, &self.load, self.options, &mut LoadProgress::none())?,
        };
        Ok(engine.into())
    }

    /// The draft model, loaded by the backend of the model.
    fn draft_source(&self) -> Result<Option<DraftModelSource>, LoadError> {
        let Some(source) = &self.draft else { return Ok(None) };
        let draft = DraftModelSource::new(self.backend_or_default()?, source.clone());
        Ok(Some(match self.drafts_max {
            Some(max) => draft.drafts_max(max),
            None => draft,
        }))
    }

    fn backend_or_default(&self) -> Result<Arc<dyn InferenceBackend>, LoadError> {
        match &self.backend {
            Some(backend) => Ok(Arc::clone(backend)),
            None => default_backend().ok_or_else(|| LoadError::Option {
                option: "backend",
                problem: "this build has no backend; enable the feature `candle` or `llamacpp`, or set one"
                    .into(),
            }),
        }
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("backend", &self.backend.as_ref().map(|backend| backend.name()))
            .field("load", &self.load)
            .field("options", &self.options)
            .field("draft", &self.draft)
            .field("memory_max", &self.memory_max)
            .finish_non_exhaustive()
    }
}
