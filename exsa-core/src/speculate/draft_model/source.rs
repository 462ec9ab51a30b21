//! A draft model that is loaded together with its target.

use super::super::{Speculation, SpeculationMode};
use super::DraftModel;
use crate::backend::{
    InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource, SessionOptions,
    ThreadTeam,
};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::options::EngineOptions;
use std::fmt;
use std::sync::Arc;

/// Default of [`DraftModelSource::kv_bytes_max`].
const KV_BYTES: u64 = 256 << 20;

/// File and options of a draft model, for loaders that load it together with its target and start one engine
/// with both.
///
/// ```
/// use exsa_core::EngineOptions;
/// use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
/// use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
/// use exsa_core::speculate::DraftModelSource;
/// use std::sync::Arc;
///
/// let backend = Arc::new(ScriptedBackend::new(ScriptedModel::echo("Good morning.")));
/// let (load, options) = (LoadOptions::new(), EngineOptions::default());
/// let target = backend.load(&ModelSource::file("large.gguf"), &load, &mut LoadProgress::none())?;
/// let draft = DraftModelSource::new(backend, ModelSource::file("small.gguf")).drafts_max(8);
/// let engine = draft.start(target, &load, options, &mut LoadProgress::none())?;
/// # let _ = engine;
/// # Ok::<(), exsa_core::error::LoadError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DraftModelSource {
    /// The backend that loads the draft model.
    pub backend: Arc<dyn InferenceBackend>,
    /// The model's file or bytes.
    pub source: ModelSource,
    /// Maximum drafts per request and step; 16 by default.
    pub drafts_max: usize,
    /// Maximum bytes of the draft model's KV cache; 256 MiB by default.
    pub kv_bytes_max: u64,
    /// Whether the number of drafts is determined from estimated acceptance and measured costs; `true` by
    /// default ([`Speculation::adaptive`]).
    pub adaptive: bool,
}

impl DraftModelSource {
    /// A draft model to load from `source`, with default options.
    #[must_use]
    pub fn new(backend: Arc<dyn InferenceBackend>, source: ModelSource) -> Self {
        let drafts_max = crate::speculate::speculation::DRAFTS_MAX;
        Self { backend, source, drafts_max, kv_bytes_max: KV_BYTES, adaptive: true }
    }

    /// Sets the maximum drafts per request and step.
    #[must_use]
    pub fn drafts_max(mut self, max: usize) -> Self {
        self.drafts_max = max;
        self
    }

    /// Sets the maximum bytes of the draft model's KV cache.
    #[must_use]
    pub fn kv_bytes(mut self, max: u64) -> Self {
        self.kv_bytes_max = max;
        self
    }

    /// Sets whether the number of drafts is determined from estimated acceptance and measured costs.
    #[must_use]
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// Memory of the draft model and its session, for a target with these options.
    ///
    /// # Errors
    ///
    /// Those of [`InferenceBackend::estimate`].
    pub fn estimate(&self, load: &LoadOptions, options: &EngineOptions) -> Result<MemoryEstimate, LoadError> {
        self.backend.estimate(&self.source, load, &self.session(&options.session))
    }

    /// Loads the draft model and starts an engine that serves `target` with it, in addition to the
    /// [default](Speculation::default) proposers. Both sessions share the threads of `options`.
    ///
    /// The draft model is also used with sessions that are not batch-invariant: configuring it turns
    /// speculation on.
    ///
    /// # Errors
    ///
    /// [`LoadError::Option`] if [`EngineOptions::speculation`] is off or no draft is allowed;
    /// [`LoadError::Unsupported`] if its vocabulary differs from the target's; and the errors of loading it
    /// and of [`Engine::start`].
    pub fn start(
        &self,
        target: Arc<dyn Model>,
        load: &LoadOptions,
        mut options: EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Engine, LoadError> {
        let refused =
            |problem: &str| LoadError::Option { option: "draft model", problem: problem.to_owned() };
        if options.speculation == SpeculationMode::Off {
            return Err(refused("speculation is off, but a draft model requires auto or on"));
        }
        if self.drafts_max == 0 {
            return Err(refused("at most 0 drafts, but at least 1 is required"));
        }
        // The two models compute alternately: two thread teams would compete for the cores.
        let team =
            options.session.team.get_or_insert_with(|| ThreadTeam::new(options.session.threads)).clone();
        let name = target.info().name.clone();
        let draft = self.backend.load(&self.source, load, progress)?;
        let session = SessionOptions { team: Some(team), ..self.session(&options.session) };
        let model = DraftModel::new(draft, &*target, &session)?;
        let engine = Engine::start(target, options)?;
        if !engine.info().capabilities.truncate {
            let what = format!("a draft model for '{name}', whose session cannot truncate");
            return Err(LoadError::Unsupported { what, supported: "models whose session can".into() });
        }
        let speculation = Speculation::default().draft_model(model);
        engine.speculate(Some(speculation.drafts_max(self.drafts_max).adaptive(self.adaptive)));
        Ok(engine)
    }

    /// Options of the draft model's session, for a target session with `options`.
    fn session(&self, options: &SessionOptions) -> SessionOptions {
        SessionOptions {
            kv_bytes_max: self.kv_bytes_max,
            kv_tokens_max: None,
            sequences_idle_max: 0,
            span_adapters_max: 0,
            pooling: None,
            ..options.clone()
        }
    }
}

impl fmt::Debug for DraftModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraftModelSource")
            .field("backend", &self.backend.name())
            .field("source", &self.source)
            .field("drafts_max", &self.drafts_max)
            .field("kv_bytes_max", &self.kv_bytes_max)
            .field("adaptive", &self.adaptive)
            .finish()
    }
}
