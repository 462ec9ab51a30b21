//! Settings of a worker.

use super::policy::{RestartPolicy, Timeouts};
use super::status::WorkerStatus;
use crate::sandbox::SandboxOptions;
use exsa_core::EngineOptions;
use exsa_core::backend::PackedCache;
use exsa_core::tokenizer::Tokenizer;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

type OnChange = Arc<dyn Fn(&WorkerStatus) + Send + Sync>;

/// Settings of a [`Worker`](super::Worker).
#[derive(Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Number of the worker, used in messages and passed to the worker; 0 by default.
    pub number: usize,
    /// Program of the worker process; `None`, the default, is the current program, whose `main` must begin
    /// with [`run_if_worker`](crate::run_if_worker).
    pub program: Option<PathBuf>,
    /// Name of the backend, passed to the function of `run_if_worker`; `candle` by default.
    pub backend: String,
    /// The model's file, from which the host reads the tokenizer; `None` if the worker selects the model.
    pub model: Option<PathBuf>,
    /// Packed cache of the model, whose file all workers of the model map; `None` by default. In a sandbox,
    /// the worker may read the packed file but not write it. The host must write it first with
    /// [`InferenceBackend::prepare`](exsa_core::backend::InferenceBackend::prepare), as
    /// [`WorkerLoader`](crate::WorkerLoader) does.
    pub packed_cache: Option<PackedCache>,
    /// The model's tokenizer, if the host should not read it from the file.
    pub tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Engine options. The host validates requests with them.
    pub engine: EngineOptions,
    /// An arbitrary value for the function of `run_if_worker`.
    pub host: serde_json::Value,
    /// Maximum private memory of the worker in bytes, without shared pages such as those of the model's file;
    /// `None`, the default, sets no limit.
    pub memory_max: Option<u64>,
    /// The sandbox.
    pub sandbox: SandboxOptions,
    /// Restart policy.
    pub restart: RestartPolicy,
    /// Timeouts of supervision.
    pub timeouts: Timeouts,
    /// Additional environment variables of the worker. It inherits only `PATH`, `HOME`, `TMPDIR`, `LANG`,
    /// `LD_LIBRARY_PATH`, `RUST_LOG` and `RUST_BACKTRACE`, since other variables may hold secrets.
    pub environment: Vec<(OsString, OsString)>,
    pub(crate) on_change: Option<OnChange>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            number: 0,
            program: None,
            backend: "candle".into(),
            model: None,
            packed_cache: None,
            tokenizer: None,
            engine: EngineOptions::default(),
            host: serde_json::Value::Null,
            memory_max: None,
            sandbox: SandboxOptions::default(),
            restart: RestartPolicy::default(),
            timeouts: Timeouts::default(),
            environment: Vec::new(),
            on_change: None,
        }
    }
}

impl WorkerOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of the worker.
    #[must_use]
    pub fn number(mut self, number: usize) -> Self {
        self.number = number;
        self
    }

    /// Sets the program of the worker process.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Sets the name of the backend.
    #[must_use]
    pub fn backend(mut self, backend: impl Into<String>) -> Self {
        self.backend = backend.into();
        self
    }

    /// Sets the model's file.
    #[must_use]
    pub fn model(mut self, model: impl Into<PathBuf>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the packed cache of the model.
    #[must_use]
    pub fn packed_cache(mut self, cache: impl Into<Option<PackedCache>>) -> Self {
        self.packed_cache = cache.into();
        self
    }

    /// Sets the model's tokenizer, so that it is not read from the file.
    #[must_use]
    pub fn tokenizer(mut self, tokenizer: Arc<dyn Tokenizer>) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Sets the options of the engine.
    #[must_use]
    pub fn engine(mut self, engine: EngineOptions) -> Self {
        self.engine = engine;
        self
    }

    /// Sets a value for the function of `run_if_worker`.
    #[must_use]
    pub fn host(mut self, value: impl Into<serde_json::Value>) -> Self {
        self.host = value.into();
        self
    }

    /// Sets the memory limit in bytes.
    #[must_use]
    pub fn memory_max(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_max = bytes.into();
        self
    }

    /// Sets the sandbox.
    #[must_use]
    pub fn sandbox(mut self, sandbox: SandboxOptions) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Sets the restart policy.
    #[must_use]
    pub fn restart(mut self, restart: RestartPolicy) -> Self {
        self.restart = restart;
        self
    }

    /// Sets the timeouts.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets a callback for status changes. It runs on the supervisor's thread and must not block.
    #[must_use]
    pub fn on_change(mut self, on_change: impl Fn(&WorkerStatus) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Arc::new(on_change));
        self
    }
}

impl fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("number", &self.number)
            .field("program", &self.program)
            .field("backend", &self.backend)
            .field("model", &self.model)
            .field("packed_cache", &self.packed_cache)
            .field("memory_max", &self.memory_max)
            .field("sandbox", &self.sandbox)
            .field("restart", &self.restart)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}
