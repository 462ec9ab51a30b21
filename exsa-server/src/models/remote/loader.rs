//! Loader of models served by remote engines.

use crate::models::config::ModelEntry;
use crate::models::error::ModelsError;
use exsa_backend_remote::{RemoteEngine, RemoteOptions};
use exsa_core::EngineOptions;
use exsa_core::backend::{LoadOptions, LoadProgress, MemoryEstimate, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::registry::{Loader, Managed};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Interval between attempts to reach an engine that did not respond at start.
const RETRY: Duration = Duration::from_secs(5);

/// Connects to the engines of a model.
#[derive(Debug)]
pub(in crate::models) struct RemoteLoader {
    engines: Vec<RemoteOptions>,
}

impl RemoteLoader {
    pub(in crate::models) fn new(name: &str, entry: &ModelEntry) -> Result<Self, ModelsError> {
        let at = |field: &str, problem: &str| {
            ModelsError::new(
                &format!("{name}.{field}"),
                format!("{problem}; remote is set too, and one of both is allowed"),
            )
        };
        if entry.path.is_some() {
            return Err(at("path", "the model's file is not read"));
        }
        if entry.builtin {
            return Err(at("builtin", "the built-in model is not served"));
        }
        if entry.workers.is_some() {
            return Err(at("workers", "there are no worker processes"));
        }
        let mut engines: Vec<RemoteOptions> = Vec::new();
        for (number, remote) in entry.remote.iter().enumerate() {
            let field = |field: &str| format!("{name}.remote[{number}].{field}");
            let options =
                remote.options().map_err(|(setting, problem)| ModelsError::new(&field(setting), problem))?;
            if engines.iter().any(|other| other.url == options.url && other.model == options.model) {
                let problem = format!("'{}' is given twice with the same model", options.url);
                return Err(ModelsError::new(&field("url"), problem));
            }
            engines.push(options);
        }
        if engines.len() > 1 {
            // Another engine is tried immediately instead of retrying the same one.
            engines.iter_mut().for_each(|options| options.retries = 0);
        }
        Ok(Self { engines })
    }

    /// Connects to all engines concurrently.
    fn connect(&self) -> Vec<Result<RemoteEngine, String>> {
        thread::scope(|scope| {
            let connecting: Vec<_> = self
                .engines
                .iter()
                .map(|options| scope.spawn(|| RemoteEngine::connect(options.clone())))
                .collect();
            connecting
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(connected) => connected.map_err(|error| error.to_string()),
                    Err(_) => Err("the attempt to connect panicked".into()),
                })
                .collect()
        })
    }

    /// Returns the name of an engine in its pool.
    fn name_of(options: &RemoteOptions) -> String {
        match &options.model {
            Some(model) => format!("{} {model}", options.url),
            None => options.url.clone(),
        }
    }
}

/// Creates the pool member of a connected engine.
fn member(options: &RemoteOptions, engine: RemoteEngine) -> Member {
    Member::new(RemoteLoader::name_of(options), Arc::new(engine)).in_flight_max(options.in_flight_max)
}

impl Loader for RemoteLoader {
    fn name(&self) -> &str {
        "remote"
    }

    fn inspect(&self, _source: &ModelSource) -> Result<ModelInfo, LoadError> {
        let mut problems = Vec::new();
        for connected in self.connect() {
            match connected {
                Ok(engine) => return Ok(engine.model().clone()),
                Err(problem) => problems.push(problem),
            }
        }
        Err(LoadError::Backend(problems.join("; ")))
    }

    /// The memory is not on this machine.
    fn estimate(
        &self,
        _source: &ModelSource,
        _load: &LoadOptions,
        _engine: &EngineOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        Ok(MemoryEstimate::new(0, 0, 0))
    }

    /// Returns once an engine was reached; the others are retried periodically.
    fn load(
        &self,
        _source: &ModelSource,
        _load: &LoadOptions,
        engine: &EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Box<dyn Managed>, LoadError> {
        let total = self.engines.len() as u64;
        progress.report(0, total)?;
        let mut options = PoolOptions::new().queue_max(engine.queue_max).fair(engine.fair);
        options.user_queue_max = engine.user_queue_max;
        let pool = Pool::new(options)?;
        let (mut missing, mut problems) = (Vec::new(), Vec::new());
        for (options, connected) in self.engines.iter().zip(self.connect()) {
            match connected {
                Ok(engine) => pool.add(member(options, engine)),
                Err(problem) => {
                    missing.push(options.clone());
                    problems.push(problem);
                }
            }
        }
        if missing.len() == self.engines.len() {
            return Err(LoadError::Backend(problems.join("; ")));
        }
        problems.iter().for_each(|problem| tracing::warn!(%problem, "a remote engine is not reached yet"));
        for options in missing {
            pool.add_later(Self::name_of(&options), RETRY, move || {
                let engine = RemoteEngine::connect(options.clone()).ok()?;
                tracing::info!(engine = %options.url, "a remote engine is reached");
                Some(member(&options, engine))
            })?;
        }
        progress.report(total, total)?;
        Ok(Box::new(pool))
    }
}
