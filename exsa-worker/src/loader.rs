//! [`WorkerLoader`]: workers as models of a registry.

use crate::host::{WorkerOptions, WorkerState};
use crate::pool::{WorkerPool, WorkerPoolOptions};
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::FairOptions;
use exsa_core::registry::{Loader, Managed, MemberState};
use exsa_core::{EngineOptions, Mode, Shutdown};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Poll interval for loading workers.
const LOOK: Duration = Duration::from_millis(20);
/// Units of progress: a worker reports a share.
const UNITS: u64 = 1000;

/// Loads models of a [`Registry`](exsa_core::registry::Registry) into worker processes, with a [`WorkerPool`]
/// per model.
///
/// ```no_run
/// use exsa_core::backend::ModelSource;
/// use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
/// use exsa_worker::{WorkerLoader, WorkerOptions, WorkerPoolOptions};
/// # use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
/// use std::sync::Arc;
///
/// # let backend = ScriptedBackend::new(ScriptedModel::echo("Hello."));
/// let options = WorkerPoolOptions::new(WorkerOptions::new()).workers(3);
/// let loader = WorkerLoader::new(Arc::new(backend), options); // a real program: CandleBackend::new()
/// let registry = Registry::new(RegistryOptions::new())?;
/// registry.add(ModelConfig::with_loader("story", Arc::new(loader), ModelSource::file("story.gguf")))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WorkerLoader {
    backend: Arc<dyn InferenceBackend>,
    options: WorkerPoolOptions,
}

impl WorkerLoader {
    /// Creates a loader of pools with these options. The registry replaces the model's file and the engine
    /// options. `backend` reads headers and estimates memory; the workers compute with their own backend.
    #[must_use]
    pub fn new(backend: Arc<dyn InferenceBackend>, options: WorkerPoolOptions) -> Self {
        Self { backend, options }
    }

    fn options(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
    ) -> Result<WorkerPoolOptions, LoadError> {
        if !load.metadata_overrides.is_empty() || load.quantize.is_some() {
            return Err(LoadError::Unsupported {
                what: "metadata overrides and quantization while loading, for worker processes".into(),
                supported: "a model in the process itself".into(),
            });
        }
        let ModelSource::File(path) = source else {
            return Err(LoadError::Unsupported {
                what: "a model in memory, for worker processes".into(),
                supported: "a file, which workers open themselves".into(),
            });
        };
        let mut options = self.options.clone();
        options.workers = options.workers.max(1);
        let WorkerOptions { model, engine: own, .. } = &mut options.worker;
        (*model, *own) = (Some(path.clone()), engine.clone());
        let packed_cache = &mut options.worker.packed_cache;
        *packed_cache = load.packed_cache.clone().or_else(|| packed_cache.take());
        // If unset, the model's threads are divided among the workers.
        options.threads = options.threads.or_else(|| {
            let all = engine.session.threads.compute?.get();
            NonZeroUsize::new((all / options.workers).max(1))
        });
        Ok(options)
    }
}

impl fmt::Debug for WorkerLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLoader").field("backend", &self.backend.name()).finish_non_exhaustive()
    }
}

impl Loader for WorkerLoader {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.backend.inspect(source)
    }

    /// The sum over the workers; shared file pages count once.
    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let load = match &self.options.worker.packed_cache {
            Some(cache) if load.packed_cache.is_none() => load.clone().packed_cache(cache.clone()),
            _ => load.clone(),
        };
        let one = self.backend.estimate(source, &load, &engine.session)?;
        Ok(one.of_processes(self.options.workers.max(1) as u64))
    }

    fn load(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Box<dyn Managed>, LoadError> {
        // A file that the backend refuses must not crash one worker after another.
        self.backend.inspect(source)?;
        let options = self.options(source, load, engine)?;
        let workers = UNITS * options.workers as u64;
        // The workers map the packed file, which their sandbox does not let them write.
        let cache = options.worker.packed_cache.clone();
        let prepared = if cache.is_some() { workers } else { 0 };
        let total = prepared + workers;
        if cache.is_some() {
            let mut share = |done: u64, all: u64| {
                let done = u128::from(done) * u128::from(prepared) / u128::from(all.max(1));
                progress.report(done as u64, total).is_ok()
            };
            let load = load.clone().packed_cache(cache);
            self.backend.prepare(source, &load, &mut LoadProgress::new(&mut share))?;
        }
        let pool = WorkerPool::start(options)?;
        loop {
            let mut done = prepared;
            for status in pool.status() {
                done += match status.state {
                    WorkerState::Starting(share) => (share.clamp(0.0, 1.0) * UNITS as f32) as u64,
                    WorkerState::Failed(cause) => {
                        return Err(LoadError::Backend(format!("worker {}: {cause}", status.number)));
                    }
                    _ => UNITS,
                };
            }
            let ready = pool.status().iter().all(|status| status.state == WorkerState::Ready);
            progress.report(if ready { total } else { done.min(total - 1) }, total)?;
            if ready {
                return Ok(Box::new(pool));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Managed for WorkerPool {
    fn begin_shutdown(&self, how: Shutdown) {
        Managed::begin_shutdown(self.pool(), how);
    }

    fn shut_down(&self, how: Shutdown) {
        let timeout = if how == Shutdown::Abort { Duration::ZERO } else { Duration::MAX };
        WorkerPool::shut_down(self, timeout);
    }

    /// True after a shutdown, or when every worker was given up.
    fn is_shut_down(&self) -> bool {
        self.status()
            .iter()
            .all(|status| matches!(status.state, WorkerState::Stopped | WorkerState::Failed(_)))
    }

    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.pool().waiting_by_user()
    }

    fn members(&self) -> Vec<MemberState> {
        let mut members = Managed::members(self.pool());
        for (member, status) in members.iter_mut().zip(self.status()) {
            member.restarts = status.restarts;
            if status.state != WorkerState::Ready {
                (member.state, member.ready) = (status.state.to_string(), false);
            }
        }
        members
    }

    fn set_mode(&self, mode: Mode) {
        WorkerPool::set_mode(self, mode);
    }

    fn set_fair(&self, options: FairOptions) {
        WorkerPool::set_fair(self, options);
    }
}
