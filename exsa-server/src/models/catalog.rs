//! Models of a server: a registry, and the configuration from which its models are created.

use super::config::{ModelEntry, ModelsConfig};
use super::error::ModelsError;
use super::folders::Folders;
use super::guarded::GuardedBackend;
use super::name;
use super::packed_place::PackedPlace;
use super::pulled::Pulls;
use super::remote::RemoteLoader;
use super::warm_up::warm_up;
use crate::http::error::ApiError;
use axum::http::StatusCode;
use exsa_core::EngineOptions;
use exsa_core::adapter::AdapterError;
use exsa_core::backend::{InferenceBackend, ModelSource, PackedCache, SessionOptions, ThreadOptions};
use exsa_core::chat::ChatTemplateSource;
use exsa_core::error::LoadError;
use exsa_core::model_file::{MetadataOverride, ModelFile};
use exsa_core::registry::{
    EngineLoader, LoadPacing, Managed, ModelConfig, Operation, Registry, RegistryError, RegistryOptions,
};
use exsa_core::speculate::{DraftModelSource, SpeculationMode, check_vocabulary};
use exsa_core::tokenizer::Tokenizer;
use exsa_worker::{WorkerLoader, WorkerOptions, WorkerPoolOptions};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A registry of models with its configuration.
///
/// ```
/// use exsa_core::registry::{Registry, RegistryOptions};
/// use exsa_server::models::Models;
/// use std::sync::Arc;
///
/// let models = Models::new(Arc::new(Registry::new(RegistryOptions::new())?));
/// # let _ = models;
/// # Ok::<(), exsa_core::registry::RegistryError>(())
/// ```
pub struct Models {
    registry: Arc<Registry>,
    load_wait: Option<Duration>,
    load_on_request: bool,
    /// The configuration at start.
    config: ModelsConfig,
    builder: Option<Mutex<Builder>>,
    discover: bool,
    /// Loads that must complete before the server is ready.
    starting: Vec<(String, Operation)>,
    active: Option<String>,
    /// The folder of models that administrators fetch.
    pub(super) pulls: Option<Arc<Pulls>>,
}

/// Tables of models that were read again.
#[derive(Default)]
pub(crate) struct Staged {
    builder: Option<Builder>,
    models: Vec<ModelConfig>,
}

/// Creates models from tables and files.
#[derive(Clone)]
struct Builder {
    folders: Arc<Folders>,
    backend: Arc<dyn InferenceBackend>,
    /// Defaults for options that a table omits.
    defaults: EngineOptions,
    idle_timeout: Option<Duration>,
    packed_cache: PackedPlace,
}

impl Models {
    /// Uses the models of a registry that the host fills itself.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            load_wait: None,
            load_on_request: false,
            config: ModelsConfig::default(),
            builder: None,
            discover: false,
            starting: Vec::new(),
            active: None,
            pulls: None,
        }
    }

    /// Creates a registry with the configured models and begins the loads at start. Without a table and a
    /// discovered model, the built-in model is served. Tables override `defaults`.
    ///
    /// # Errors
    ///
    /// The invalid setting, and the allowed values.
    pub fn open(
        config: &ModelsConfig,
        backend: Arc<dyn InferenceBackend>,
        defaults: EngineOptions,
    ) -> Result<Self, ModelsError> {
        let mut models = Self::prepare(config, backend, defaults)?;
        let names: Vec<_> = models.registry.list().into_iter().map(|model| model.name).collect();
        for name in names {
            let loads = match config.models.get(&name) {
                Some(entry) => entry.load.unwrap_or(!config.load_on_request),
                // More models may be discovered than fit; the built-in one is small.
                None => name == BUILTIN,
            };
            if loads {
                let operation = models.registry.load(&name);
                models.starting.push((name, operation));
            }
        }
        Ok(models)
    }

    /// Checks a configuration, and creates a registry with its models, without loading them.
    ///
    /// # Errors
    ///
    /// The invalid setting, and the allowed values.
    pub fn prepare(
        config: &ModelsConfig,
        backend: Arc<dyn InferenceBackend>,
        defaults: EngineOptions,
    ) -> Result<Self, ModelsError> {
        let pacing = match config.keep_streams {
            None => LoadPacing::FullSpeed,
            Some(share) if (0.0..=0.99).contains(&share) => LoadPacing::keep_streams(share),
            Some(share) => {
                return Err(ModelsError::new("keep_streams", format!("{share} is not between 0 and 0.99")));
            }
        };
        let options = RegistryOptions::new()
            .memory_bytes(config.memory)
            .load_on_request(config.load_on_request)
            .load_pacing(pacing);
        let registry = Registry::new(options).map_err(|error| ModelsError::new("", error.to_string()))?;
        let folders = Arc::new(
            Folders::new(&config.folders).map_err(|error| ModelsError::new("folders", error.to_string()))?,
        );
        let (idle_timeout, packed_cache) = (config.idle_timeout, config.packed_cache.clone());
        let builder = Builder { folders, backend, defaults, idle_timeout, packed_cache };
        for (name, entry) in &config.models {
            let model = builder.configured(name, entry)?;
            registry.add(model).map_err(|error| ModelsError::new(name, error.to_string()))?;
        }
        if config.discover {
            if config.folders.is_empty() {
                return Err(ModelsError::new(
                    "discover",
                    "folders are needed, of which there are none".into(),
                ));
            }
            for (name, path) in builder.folders.discover() {
                // Names and aliases of tables are taken.
                if registry.status(&name).is_err() {
                    let added = registry.add(builder.found(&name, &path)?);
                    added.map_err(|error| ModelsError::new(&name, error.to_string()))?;
                }
            }
        }
        if registry.list().is_empty() && !config.discover {
            let added = registry.add(builder.builtin()?);
            added.map_err(|error| ModelsError::new(BUILTIN, error.to_string()))?;
        }
        if let Some(active) = &config.active {
            registry.status(active).map_err(|error| ModelsError::new("active", error.to_string()))?;
        }
        Ok(Self {
            registry: Arc::new(registry),
            load_wait: config.load_wait,
            load_on_request: config.load_on_request,
            config: config.clone(),
            builder: Some(Mutex::new(builder)),
            discover: config.discover,
            starting: Vec::new(),
            active: config.active.clone(),
            pulls: None,
        })
    }

    /// Applies the tables of a reloaded configuration: new models are added; modes and fairness of running
    /// engines, aliases, pins and idle timeouts change immediately, other settings with the next load or
    /// reload. Models without a table are removed unless they are in memory. Folders, memory and loading
    /// settings do not change.
    ///
    /// # Errors
    ///
    /// The invalid setting; nothing has changed.
    pub fn apply(&self, config: &ModelsConfig, defaults: EngineOptions) -> Result<(), ModelsError> {
        self.replace(self.stage(config, defaults)?);
        Ok(())
    }

    /// Creates the models of a configuration's tables, without applying them.
    pub(crate) fn stage(
        &self,
        config: &ModelsConfig,
        defaults: EngineOptions,
    ) -> Result<Staged, ModelsError> {
        let Some(builder) = self.builder() else { return Ok(Staged::default()) };
        // The store was opened at start.
        let defaults = defaults.prompt_cache(builder.defaults.prompt_cache.clone());
        let (idle_timeout, packed_cache) = (config.idle_timeout, config.packed_cache.clone());
        let builder = Builder { defaults, idle_timeout, packed_cache, ..builder };
        let mut models = Vec::new();
        for (name, entry) in &config.models {
            models.push(builder.configured(name, entry)?);
        }
        if models.is_empty() && !self.discover {
            models.push(builder.builtin()?);
        }
        Ok(Staged { builder: Some(builder), models })
    }

    /// Applies staged models.
    pub(crate) fn replace(&self, staged: Staged) {
        let (Some(own), Some(builder)) = (&self.builder, staged.builder) else { return };
        *own.lock().unwrap_or_else(PoisonError::into_inner) = builder;
        for model in self.registry.list() {
            let fetched = self.pulls.is_some() && model.name.starts_with("hf.co/");
            if !self.discover && !fetched && !staged.models.iter().any(|staged| staged.name == model.name) {
                // A model in memory stays until it is unloaded.
                let _ = self.registry.remove(&model.name);
            }
        }
        for model in staged.models {
            let (name, engine) = (model.name.clone(), model.engine.clone());
            let status = self.registry.status(&name).ok().filter(|known| known.name == name);
            let applied = match &status {
                Some(_) => self.registry.configure(model),
                None => self.registry.add(model),
            };
            if let Err(error) = applied {
                tracing::error!(model = %name, %error, "settings of a model not taken over");
            }
            if status.is_some_and(|status| status.info.is_some())
                && let Ok(running) = self.registry.engine(Some(&name))
            {
                running.set_mode(engine.mode);
                running.set_fair(engine.fair);
            }
        }
    }

    /// The configuration at start.
    pub(crate) fn config(&self) -> &ModelsConfig {
        &self.config
    }

    /// The backend for models of tables.
    pub(crate) fn backend(&self) -> Option<Arc<dyn InferenceBackend>> {
        self.builder().map(|builder| builder.backend)
    }

    fn builder(&self) -> Option<Builder> {
        let builder = self.builder.as_ref()?;
        Some(builder.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Waits for the loads at start, and activates the configured model. Failures are logged; the server
    /// continues with the other models.
    ///
    /// # Errors
    ///
    /// The first failure, if no model was loaded.
    pub fn wait_for_start(&self) -> Result<(), RegistryError> {
        let mut errors = Vec::new();
        for (name, operation) in &self.starting {
            match operation.wait() {
                Ok(()) => {
                    let info = self.registry.status(name).ok().and_then(|status| status.info);
                    tracing::info!(model = info.map(|info| info.summary()), "model loaded");
                }
                Err(error) => {
                    tracing::error!(model = %name, %error, "model not loaded");
                    errors.push(error);
                }
            }
        }
        if let Some(active) = &self.active
            && let Err(error) = self.registry.set_active(active)
        {
            tracing::warn!(%error, "the configured model is not the active one");
        }
        match errors.into_iter().next() {
            Some(error) if self.registry.active().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns whether a load at start is running.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting.iter().any(|(_, operation)| !operation.is_done())
    }

    pub(crate) fn load_wait(&self) -> Option<Duration> {
        self.load_wait
    }

    pub(crate) fn load_on_request(&self) -> bool {
        self.load_on_request
    }

    /// Calls `load` with an adapter in the model folders.
    pub(crate) fn with_adapter<T>(
        &self,
        path: &Path,
        load: impl FnOnce(&ModelSource) -> Result<T, AdapterError>,
    ) -> Result<T, ApiError> {
        let folders = self.builder().map(|builder| builder.folders).filter(|folders| !folders.is_empty());
        let Some(folders) = folders else {
            let message = "adapters are loaded from the folders of models, of which there are none";
            return Err(
                ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message).code("not_supported")
            );
        };
        Ok(guarded(&folders, path, load)?)
    }

    /// Bytes of a model's file.
    pub(crate) fn file_bytes(&self, model: &str) -> Option<u64> {
        match self.registry.config(model).ok()?.source {
            ModelSource::File(path) => Some(fs::metadata(path).ok()?.len()),
            ModelSource::Files(paths) => {
                paths.iter().map(|path| Some(fs::metadata(path).ok()?.len())).sum::<Option<u64>>()
            }
            ModelSource::Embedded(bytes) => Some(bytes.len() as u64).filter(|bytes| *bytes > 0),
            ModelSource::Memory(bytes) => Some(bytes.len() as u64),
            _ => None,
        }
    }

    /// Adds a model from a file in one of `folders`.
    pub(super) fn add_file(&self, name: &str, path: &Path, folders: Arc<Folders>) {
        let Some(builder) = self.builder() else { return };
        let added = Builder { folders, ..builder }.found(name, path).map_err(|error| error.to_string());
        let added = added.and_then(|config| self.registry.add(config).map_err(|error| error.to_string()));
        if let Err(error) = added {
            tracing::warn!(model = %name, %error, "fetched model not added");
        }
    }

    /// Adds a model for a file that was added to a folder, if there is one of this name.
    pub(crate) fn find(&self, model: &str) {
        let Some(builder) = self.builder().filter(|_| self.discover) else { return };
        if name::check(model).is_err() || self.registry.status(model).is_ok() {
            return;
        }
        let located = builder.folders.locate(Path::new(&format!("{model}.gguf")));
        let Some(path) = located.filter(|path| builder.folders.open(path).is_ok()) else { return };
        // A concurrent request may have added it.
        if let Ok(config) = builder.found(model, &path) {
            let _ = self.registry.add(config);
        }
    }
}

/// Calls `load` with an adapter in the folders; errors name it relative to its folder.
fn guarded<T>(
    folders: &Folders,
    path: &Path,
    load: impl FnOnce(&ModelSource) -> Result<T, AdapterError>,
) -> Result<T, AdapterError> {
    let io = |source| AdapterError::Load(LoadError::Io { path: folders.shown(path), source });
    let opened = folders.open_adapter(path).map_err(io)?;
    load(&ModelSource::file(&opened.path)).map_err(|error| match error {
        AdapterError::Load(LoadError::Io { source, .. }) => io(source),
        AdapterError::Load(LoadError::Adapter { problem, .. }) => AdapterError::Load(LoadError::Adapter {
            name: folders.shown(path).display().to_string(),
            problem,
        }),
        error => error,
    })
}

/// Maximum worker processes per model.
const WORKERS_MAX: usize = 256;

/// Name of the built-in model.
const BUILTIN: &str = "exsa-tiny";

impl Builder {
    /// Creates the model of a table.
    fn configured(&self, name: &str, entry: &ModelEntry) -> Result<ModelConfig, ModelsError> {
        let at = |field: &str, problem: String| ModelsError::new(&format!("{name}.{field}"), problem);
        if let Some((alias, problem)) =
            entry.aliases.iter().find_map(|alias| Some((alias, name::check(alias).err()?)))
        {
            return Err(at("aliases", format!("'{alias}': {problem}")));
        }
        let template = match (&entry.chat_template, &entry.chat_template_name) {
            (Some(_), Some(_)) => {
                return Err(at(
                    "chat_template",
                    "chat_template_name is given too; one of both is allowed".into(),
                ));
            }
            (Some(path), None) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| at("chat_template", format!("{}: {error}", path.display())))?;
                Some(ChatTemplateSource::text(text))
            }
            (None, name) => name.as_ref().map(ChatTemplateSource::name),
        };
        if !entry.adapters.is_empty() && (!entry.remote.is_empty() || entry.workers.is_some()) {
            let problem =
                "only an engine in the server's process loads adapters, not workers or remote engines";
            return Err(at("adapters", problem.into()));
        }
        if entry.draft.is_some() && (!entry.remote.is_empty() || entry.workers.is_some()) {
            let problem =
                "only an engine in the server's process has a draft model, not workers or remote engines";
            return Err(at("draft", problem.into()));
        }
        let mut config = match (entry.remote.is_empty(), entry.workers) {
            (false, _) => {
                let loader = RemoteLoader::new(name, entry)?;
                ModelConfig::with_loader(name, Arc::new(loader), ModelSource::Embedded(&[]))
            }
            (true, Some(workers)) => {
                let (backend, source) = self.source(name, entry)?;
                if entry.builtin {
                    let problem = "the built-in model has no file, which workers open; give the path of one";
                    return Err(at("workers", problem.into()));
                }
                if workers.get() > WORKERS_MAX {
                    return Err(at("workers", format!("{workers} is over the limit of {WORKERS_MAX}")));
                }
                let worker =
                    WorkerOptions::new().backend(self.backend.name()).memory_max(entry.worker_memory);
                let options = WorkerPoolOptions::new(worker).workers(workers.get());
                let loader = WorkerLoader::new(backend, options);
                ModelConfig::with_loader(name, Arc::new(loader), source).prepare(warm_up)
            }
            (true, None) if entry.worker_memory.is_some() => {
                let problem = "workers is not set, whose memory it would limit";
                return Err(at("worker_memory", problem.into()));
            }
            (true, None) => {
                let (backend, source) = self.source(name, entry)?;
                let adapters = self.adapters(name, entry)?;
                let draft = self.draft(name, entry, &source)?;
                let loader = EngineLoader::new(backend).draft_model(draft);
                ModelConfig::with_loader(name, Arc::new(loader), source).prepare(move |engine| {
                    warm_up(engine)?;
                    adapters(engine)
                })
            }
        };
        for text in &entry.override_kv {
            let item = text.parse::<MetadataOverride>();
            config.load.metadata_overrides.push(item.map_err(|error| at("override_kv", error.to_string()))?);
        }
        config.load.packed_cache = self.packed_cache(entry).map_err(|problem| at("packed_cache", problem))?;
        config.aliases.clone_from(&entry.aliases);
        config.idle_timeout = self.idle_timeout;
        config.load.threads = self.defaults.session.threads;
        config.engine = self.defaults.clone();
        config.engine.chat_template = template.or(config.engine.chat_template);
        Ok(changed(config, entry))
    }

    /// Returns the packed cache of a table.
    fn packed_cache(&self, entry: &ModelEntry) -> Result<Option<PackedCache>, String> {
        let cache = entry.packed_cache.as_ref().unwrap_or(&self.packed_cache).cache();
        if cache.is_none() && (entry.packed_pages.is_some() || entry.packed_check.is_some()) {
            return Err("it is off, and packed_pages and packed_check are settings of it".into());
        }
        Ok(cache.map(|cache| {
            cache.pages(entry.packed_pages.unwrap_or_default()).check(entry.packed_check.unwrap_or_default())
        }))
    }

    /// Loads the adapters of a table into an engine.
    fn adapters(
        &self,
        name: &str,
        entry: &ModelEntry,
    ) -> Result<impl Fn(&dyn Managed) -> Result<(), LoadError> + Send + Sync + use<>, ModelsError> {
        let (folders, adapters) = (self.folders.clone(), entry.adapters.clone());
        let anywhere = folders.is_empty() || entry.trusted;
        for (adapter, path) in &adapters {
            let found =
                if anywhere { path.metadata().map(drop) } else { folders.open_adapter(path).map(drop) };
            found.map_err(|error| {
                ModelsError::new(
                    &format!("{name}.adapters.{adapter}"),
                    format!("{}: {error}", path.display()),
                )
            })?;
        }
        Ok(move |engine: &dyn Managed| {
            for (adapter, path) in &adapters {
                let load = |source: &ModelSource| engine.load_adapter(None, adapter, source);
                let loaded =
                    if anywhere { load(&ModelSource::file(path)) } else { guarded(&folders, path, load) };
                loaded.map_err(|error| match error {
                    AdapterError::Load(error) => error,
                    error @ AdapterError::Budget { .. } => error.into(),
                    error => LoadError::Adapter { name: adapter.clone(), problem: error.to_string() },
                })?;
            }
            Ok(())
        })
    }

    /// Returns the draft model of a table.
    fn draft(
        &self,
        name: &str,
        entry: &ModelEntry,
        target: &ModelSource,
    ) -> Result<Option<DraftModelSource>, ModelsError> {
        let Some(draft) = &entry.draft else { return Ok(None) };
        if self.defaults.speculation == SpeculationMode::Off {
            let problem = "speculation is off in [engine]; auto or on is needed for a draft model";
            return Err(ModelsError::new(&format!("{name}.draft"), problem.into()));
        }
        let field = format!("{name}.draft.path");
        let (backend, source) = if draft.builtin {
            if draft.path.is_some() {
                return Err(ModelsError::new(&field, "builtin is set too; one of both is allowed".into()));
            }
            (self.backend.clone(), ModelSource::Embedded(exsa_tiny::GGUF))
        } else {
            let Some(path) = &draft.path else {
                let problem = "the path of a GGUF file is needed, or builtin = true";
                return Err(ModelsError::new(&format!("{name}.draft"), problem.into()));
            };
            if !self.folders.is_empty() && !entry.trusted {
                self.locate(&field, path)?
            } else if let Err(error) = path.metadata() {
                return Err(ModelsError::new(&field, format!("{}: {error}", path.display())));
            } else {
                (self.backend.clone(), ModelSource::file(path))
            }
        };
        if let (Some(own), Some(target)) = (tokenizer(&source), tokenizer(target)) {
            check_vocabulary(&*own, &*target).map_err(|problem| ModelsError::new(&field, problem))?;
        }
        let mut source = DraftModelSource::new(backend, source);
        source.drafts_max = draft.drafts_max.map_or(source.drafts_max, Into::into);
        source.kv_bytes_max = draft.kv_bytes.unwrap_or(source.kv_bytes_max);
        Ok(Some(source))
    }

    /// Creates the built-in model.
    fn builtin(&self) -> Result<ModelConfig, ModelsError> {
        self.configured(BUILTIN, &ModelEntry { builtin: true, ..ModelEntry::default() })
    }

    fn found(&self, name: &str, path: &Path) -> Result<ModelConfig, ModelsError> {
        self.configured(name, &ModelEntry { path: Some(path.to_owned()), ..ModelEntry::default() })
    }

    /// Returns backend and source of a model.
    fn source(
        &self,
        name: &str,
        entry: &ModelEntry,
    ) -> Result<(Arc<dyn InferenceBackend>, ModelSource), ModelsError> {
        let at = |problem: String| ModelsError::new(&format!("{name}.path"), problem);
        if entry.builtin {
            if entry.path.is_some() {
                return Err(at("builtin is set too; one of both is allowed".into()));
            }
            return Ok((self.backend.clone(), ModelSource::Embedded(exsa_tiny::GGUF)));
        }
        let path = entry.path.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.gguf")));
        if self.folders.is_empty() || entry.trusted {
            if entry.path.is_none() {
                return Err(
                    at("a path is needed: there are no folders in which to look for the file".into()),
                );
            }
            return Ok((self.backend.clone(), ModelSource::file(path)));
        }
        self.locate(&format!("{name}.path"), &path)
    }

    /// Finds a file in the folders, with a backend that reads no other files.
    fn locate(
        &self,
        field: &str,
        path: &Path,
    ) -> Result<(Arc<dyn InferenceBackend>, ModelSource), ModelsError> {
        let at = |problem: String| ModelsError::new(field, problem);
        let located = self
            .folders
            .locate(path)
            .ok_or_else(|| at(format!("no folder of models has the file {}", path.display())))?;
        self.folders.open(&located).map_err(|error| at(format!("{}: {error}", located.display())))?;
        let guarded = GuardedBackend { inner: self.backend.clone(), folders: self.folders.clone() };
        Ok((Arc::new(guarded), ModelSource::file(located)))
    }
}

/// Reads the tokenizer from the header of a GGUF; `None` for a file without one, which cannot be loaded.
fn tokenizer(source: &ModelSource) -> Option<Arc<dyn Tokenizer>> {
    let file = ModelFile::open(source).ok()?;
    exsa_core::tokenizer::load(file.gguf().metadata()).ok()
}

/// Returns a configuration with the settings in `entry` applied.
pub(super) fn changed(mut config: ModelConfig, entry: &ModelEntry) -> ModelConfig {
    config.pinned |= entry.pinned;
    config.idle_timeout = entry.idle_timeout.or(config.idle_timeout);
    let engine = &mut config.engine;
    engine.mode = entry.mode.unwrap_or(engine.mode);
    engine.inter_token_target = entry.inter_token_target.unwrap_or(engine.inter_token_target);
    engine.fair.ageing = entry.ageing.unwrap_or(engine.fair.ageing);
    engine.queue_max = entry.queue.map_or(engine.queue_max, Into::into);
    engine.user_queue_max = entry.user_queue.map(Into::into).or(engine.user_queue_max);
    let session: &mut SessionOptions = &mut engine.session;
    session.sequences_max = entry.sequences.map_or(session.sequences_max, Into::into);
    session.context_tokens_max = entry.context.map(Into::into).or(session.context_tokens_max);
    session.key_type = entry.key_type.or(session.key_type);
    session.value_type = entry.value_type.or(session.value_type);
    session.kv_bytes_max = entry.kv_bytes.unwrap_or(session.kv_bytes_max);
    session.adapter_rank_max = entry.adapter_rank.map_or(session.adapter_rank_max, Into::into);
    engine.adapters.count_max = entry.adapters_max.map_or(engine.adapters.count_max, Into::into);
    engine.adapters.bytes_max = entry.adapter_bytes.unwrap_or(engine.adapters.bytes_max);
    if entry.threads.is_some() {
        let threads = ThreadOptions::new(entry.threads);
        (engine.session.threads, config.load.threads) = (threads, threads);
    }
    config
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models")
            .field("registry", &self.registry)
            .field("load_wait", &self.load_wait)
            .field("load_on_request", &self.load_on_request)
            .finish_non_exhaustive()
    }
}
