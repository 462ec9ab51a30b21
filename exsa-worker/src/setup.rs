//! [`Setup`], the settings that a worker starts with.

use crate::sandbox::SandboxOptions;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, PackedCache};
use exsa_core::error::LoadError;
use exsa_core::{Engine, EngineOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Settings that the host passes to a worker, for the function of [`run_if_worker`](crate::run_if_worker).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Setup {
    /// Number of the worker.
    pub worker: usize,
    /// Name of the backend, such as `candle`.
    pub backend: String,
    /// The model's file; `None` if the function selects the model.
    pub model: Option<PathBuf>,
    /// Packed cache of the model.
    pub packed_cache: Option<PackedCache>,
    /// Options of the engine.
    pub engine: EngineOptions,
    /// An arbitrary value from the host.
    pub host: serde_json::Value,
    pub(crate) sandbox: SandboxOptions,
    pub(crate) memory_max: Option<u64>,
    #[serde(skip)]
    pub(crate) progress: Arc<Progress>,
}

/// Progress of loading.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) done: AtomicU64,
    pub(crate) total: AtomicU64,
}

impl Setup {
    /// Loads the model's file with `backend` and starts its engine, as a function of
    /// [`run_if_worker`](crate::run_if_worker) must do.
    ///
    /// # Errors
    ///
    /// No file was given, or the reason why it cannot be loaded.
    pub fn start(self, backend: &dyn InferenceBackend) -> Result<Engine, LoadError> {
        let path = self.model.as_ref();
        let path = path.ok_or_else(|| LoadError::Backend("no file of a model was given".into()))?;
        let options = self.load_options();
        let mut progress = self.progress();
        let progress = &mut LoadProgress::new(&mut progress);
        let model = backend.load(&ModelSource::file(path), &options, progress)?;
        Engine::start(model, self.engine)
    }

    /// Returns the load options for the model's file: threads and packed cache.
    #[must_use]
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions::new().threads(self.engine.session.threads).packed_cache(self.packed_cache.clone())
    }

    /// Returns the packed file of the model.
    pub(crate) fn packed_file(&self) -> Option<PathBuf> {
        Some(self.packed_cache.as_ref()?.file(self.model.as_ref()?))
    }

    /// Returns a callback for [`LoadProgress::new`](exsa_core::backend::LoadProgress::new) that reports the
    /// progress to the host. A worker that loads for long without progress is replaced.
    pub fn progress(&self) -> impl FnMut(u64, u64) -> bool + use<> {
        let progress = self.progress.clone();
        move |done, total| {
            progress.done.store(done, Ordering::Relaxed);
            progress.total.store(total, Ordering::Relaxed);
            true
        }
    }
}
