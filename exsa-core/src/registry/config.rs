//! Configuration of one model.

use super::managed::{EngineLoader, Loader, Managed};
use crate::backend::{InferenceBackend, LoadOptions, MemoryEstimate, ModelSource};
use crate::error::LoadError;
use crate::options::EngineOptions;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Prepares an engine before its model is ready.
pub(super) type Prepare = Arc<dyn Fn(&dyn Managed) -> Result<(), LoadError> + Send + Sync>;

/// A model that a [`Registry`](super::Registry) can load: name, backend, source and options.
///
/// ```
/// use exsa_core::backend::{LoadOptions, ModelSource};
/// use exsa_core::registry::ModelConfig;
/// use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let backend = Arc::new(ScriptedBackend::new(ScriptedModel::echo("Hello.")));
/// let config = ModelConfig::new("hello", backend, ModelSource::file("hello.gguf"))
///     .alias("default")
///     .idle_timeout(Duration::from_secs(600));
/// # let _ = config;
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Name in requests; not empty.
    pub name: String,
    /// Further names in requests.
    pub aliases: Vec<String>,
    /// Loads the model and creates the generator that serves it.
    pub loader: Arc<dyn Loader>,
    /// The model's file or bytes.
    pub source: ModelSource,
    /// Options of loading.
    pub load: LoadOptions,
    /// Options of the engine, including those of its session.
    pub engine: EngineOptions,
    /// Whether the model is pinned: neither evicted nor put to sleep when idle; `false` by default.
    pub pinned: bool,
    /// Time without requests after which the model is put to sleep; `None`, the default, means never.
    pub idle_timeout: Option<Duration>,
    /// Memory of model and session, overriding the backend's estimate.
    pub memory: Option<MemoryEstimate>,
    pub(super) prepare: Option<Prepare>,
}

impl ModelConfig {
    /// A model with the default options, served by an in-process engine.
    #[must_use]
    pub fn new(name: impl Into<String>, backend: Arc<dyn InferenceBackend>, source: ModelSource) -> Self {
        Self::with_loader(name, Arc::new(EngineLoader::new(backend)), source)
    }

    /// A model with the default options, served by the generator that `loader` creates.
    #[must_use]
    pub fn with_loader(name: impl Into<String>, loader: Arc<dyn Loader>, source: ModelSource) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            loader,
            source,
            load: LoadOptions::default(),
            engine: EngineOptions::default(),
            pinned: false,
            idle_timeout: None,
            memory: None,
            prepare: None,
        }
    }

    /// Adds an alias.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// Sets the options of loading.
    #[must_use]
    pub fn load(mut self, options: LoadOptions) -> Self {
        self.load = options;
        self
    }

    /// Sets the options of the engine.
    #[must_use]
    pub fn engine(mut self, options: EngineOptions) -> Self {
        self.engine = options;
        self
    }

    /// Sets whether the model is pinned: neither evicted nor put to sleep when idle.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Sets the time without requests after which the model is put to sleep.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// Sets the memory of model and session, for backends without estimates.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<Option<MemoryEstimate>>) -> Self {
        self.memory = memory.into();
        self
    }

    /// Calls `prepare` on the loading thread with the model's generator, before the model becomes ready: for
    /// example to warm it up with a request, or to set other draft proposers. An error or panic fails the
    /// load.
    #[must_use]
    pub fn prepare(
        mut self,
        prepare: impl Fn(&dyn Managed) -> Result<(), LoadError> + Send + Sync + 'static,
    ) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }
}

impl fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelConfig")
            .field("name", &self.name)
            .field("aliases", &self.aliases)
            .field("loader", &self.loader.name())
            .field("pinned", &self.pinned)
            .field("idle_timeout", &self.idle_timeout)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
