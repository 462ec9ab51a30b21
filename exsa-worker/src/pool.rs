//! [`WorkerPool`]: several workers of one model behind one queue.

use crate::host::{Worker, WorkerOptions, WorkerStatus};
use exsa_core::backend::ThreadOptions;
use exsa_core::chat::Rendered;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::FairOptions;
use exsa_core::stats::EngineStats;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Continuation, EmbedRequest, Generator, Mode, Request, RerankRequest, SubmitError, TokenStream,
};
use exsa_pool::{Member, Pool, PoolOptions};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings of a [`WorkerPool`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerPoolOptions {
    /// Number of workers; 2 by default.
    pub workers: usize,
    /// Compute threads per worker; `None`, the default, divides the processor's threads.
    pub threads: Option<NonZeroUsize>,
    /// Maximum concurrent answers per worker; the rest wait in the pool's queue. `None`, the default, is
    /// slightly more than its sequences.
    pub in_flight_max: Option<usize>,
    /// Options of each worker. The pool assigns their numbers.
    pub worker: WorkerOptions,
    /// Options of the queue, and of continued answers.
    pub pool: PoolOptions,
}

impl WorkerPoolOptions {
    /// Creates options for workers with these settings.
    #[must_use]
    pub fn new(worker: WorkerOptions) -> Self {
        Self { workers: 2, threads: None, in_flight_max: None, worker, pool: PoolOptions::new() }
    }

    /// Sets the number of workers, at least 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Sets the compute threads per worker.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<NonZeroUsize>>) -> Self {
        self.threads = threads.into();
        self
    }

    /// Sets the maximum concurrent answers per worker.
    #[must_use]
    pub fn in_flight_max(mut self, answers: impl Into<Option<usize>>) -> Self {
        self.in_flight_max = answers.into();
        self
    }

    /// Sets the options of the queue, and of continued answers.
    #[must_use]
    pub fn pool(mut self, pool: PoolOptions) -> Self {
        self.pool = pool;
        self
    }
}

/// Several workers of one model behind one queue, as one [`Generator`].
///
/// An answer whose worker is lost continues on another one, from the tokens that the consumer already has;
/// see [`Pool`]. Once all workers have been given up, requests fail with the reason, including waiting ones.
///
/// ```no_run
/// use exsa_core::{Generator, Request};
/// use exsa_worker::{WorkerOptions, WorkerPool, WorkerPoolOptions};
/// use std::time::Duration;
///
/// // In `main`, before anything else: exsa_worker::run_if_worker(...)
/// let pool = WorkerPool::start(WorkerPoolOptions::new(WorkerOptions::new().model("model.gguf")).workers(3))?;
/// pool.wait_ready(Duration::from_secs(60))?;
/// println!("{}", pool.submit(Request::text("Once upon a time").max_tokens(64))?.complete()?.text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WorkerPool {
    // Dropped first: its requests must end before their workers do.
    pool: Pool,
    workers: Vec<Arc<Worker>>,
}

impl WorkerPool {
    /// Starts the workers, and returns before their models are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`Worker::start`].
    pub fn start(options: WorkerPoolOptions) -> Result<Self, LoadError> {
        let count = options.workers.max(1);
        let pool = Pool::new(options.pool)?;
        let mut settings = options.worker;
        let threads = options.threads.map_or_else(|| share_of_threads(count), NonZeroUsize::get);
        if options.threads.is_some() || settings.engine.session.threads.compute.is_none() {
            settings.engine.session.threads = ThreadOptions::compute(threads);
        }
        let sequences = settings.engine.session.sequences_max;
        let in_flight_max = options.in_flight_max.unwrap_or(sequences + sequences / 4 + 1);
        let own = settings.on_change.take();
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (wake, own) = (pool.waker(), own.clone());
            let settings = settings.clone().number(number).on_change(move |status| {
                wake();
                if let Some(own) = &own {
                    own(status);
                }
            });
            let worker = Arc::new(Worker::start(settings)?);
            let (of_ready, of_failed) = (worker.clone(), worker.clone());
            let member = Member::new(name(number), worker.clone()).in_flight_max(in_flight_max);
            pool.add(member.ready(move || of_ready.is_ready()).failed(move || of_failed.failure()));
            workers.push(worker);
        }
        Ok(Self { pool, workers })
    }

    /// Waits until every worker accepts requests, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// The state of the first worker that does not.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), SubmitError> {
        let until = Instant::now() + timeout;
        self.workers
            .iter()
            .try_for_each(|worker| worker.wait_ready(until.saturating_duration_since(Instant::now())))
    }

    /// States of the workers, by number.
    pub fn status(&self) -> Vec<WorkerStatus> {
        self.workers.iter().map(|worker| worker.status()).collect()
    }

    /// The workers, by number.
    pub fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// Returns the pool with the queue.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Replaces the workers one after another, while the others serve. Each has `timeout` for its requests to
    /// end, and again for its replacement to become ready.
    ///
    /// # Errors
    ///
    /// The state of the first replacement that is not ready in time; later workers are not replaced.
    pub fn replace(&self, timeout: Duration) -> Result<(), SubmitError> {
        for (number, worker) in self.workers.iter().enumerate() {
            let (name, before) = (name(number), worker.status().pid);
            self.pool.drain(&name);
            self.pool.wait_idle(&name, timeout);
            worker.restart();
            let until = Instant::now() + timeout;
            while worker.status().pid == before && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            let ready = worker.wait_ready(until.saturating_duration_since(Instant::now()));
            self.pool.resume(&name);
            ready?;
        }
        Ok(())
    }

    /// Changes the mode of the running engines.
    pub fn set_mode(&self, mode: Mode) {
        self.workers.iter().for_each(|worker| worker.set_mode(mode));
    }

    /// Changes the settings of classes and shares.
    pub fn set_fair(&self, options: FairOptions) {
        self.pool.set_fair(options);
    }

    /// Refuses further requests, waits for at most `timeout` until all have ended, and ends the workers.
    /// Returns whether all requests ended by themselves.
    pub fn shut_down(&self, timeout: Duration) -> bool {
        let ended = self.pool.shut_down(timeout);
        self.workers.iter().for_each(|worker| worker.stop());
        ended
    }
}

fn name(number: usize) -> String {
    format!("worker {number}")
}

/// Returns the threads per worker for `workers` workers.
fn share_of_threads(workers: usize) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (threads / workers).max(1)
}

impl Generator for WorkerPool {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        self.pool.models()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.pool.submit(request)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.pool.embed(request)
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        self.pool.rerank(request)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        self.pool.count_tokens(request)
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.pool.render(request)
    }

    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        self.pool.tokenizer(model)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.pool.check(request)
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        self.pool.continuation(model)
    }

    fn stats(&self) -> EngineStats {
        self.pool.stats()
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("workers", &self.status()).finish_non_exhaustive()
    }
}
