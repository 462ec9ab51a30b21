//! [`Worker`], a generator over a worker process.

use super::connection::Connection;
use super::open::{Flow, Open, OpenEmbed, OpenRerank, OpenStream};
use super::options::WorkerOptions;
use super::slot::{Facts, Message, Slot, Supervisor};
use super::status::{WorkerState, WorkerStatus};
use crate::frame::{Beat, FrameError, StreamRules, TEXTS_MAX, ToWorker};
use exsa_core::backend::Pooling;
use exsa_core::chat::Rendered;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput, pending};
use exsa_core::error::LoadError;
use exsa_core::generator::QueueScope;
use exsa_core::model_file::ModelFile;
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::FairOptions;
use exsa_core::stats::EngineStats;
use exsa_core::stream::channel;
use exsa_core::tokenizer::{Tokenizer, load};
use exsa_core::{
    Continuation, Continued, EmbedRequest, Generator, Mode, Prompt, Request, RerankRequest, SubmitError,
    TokenStream,
};
use parking_lot::Mutex;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Poll interval of callers that wait for a state.
const LOOK: Duration = Duration::from_millis(2);

/// An engine in a separate process, which is supervised and restarted.
///
/// When the process is lost, its requests end with [`RequestError::Lost`](exsa_core::RequestError::Lost),
/// after everything that it had sent. While no process is ready, requests are refused with
/// [`SubmitError::ModelLoading`] or [`SubmitError::ModelFailed`]. A [`WorkerPool`](crate::WorkerPool)
/// continues the answers elsewhere.
///
/// Dropping the worker ends its process and all its requests.
///
/// ```no_run
/// use exsa_core::{Generator, Request};
/// use exsa_worker::{Worker, WorkerOptions};
/// use std::time::Duration;
///
/// // In `main`, before anything else: exsa_worker::run_if_worker(...)
/// let worker = Worker::start(WorkerOptions::new().model("model.gguf"))?;
/// worker.wait_ready(Duration::from_secs(60))?;
/// println!("{}", worker.submit(Request::text("Once upon a time").max_tokens(64))?.complete()?.text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Worker {
    slot: Arc<Slot>,
    messages: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the process and its supervisor, and returns before the model is loaded.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the tokenizer cannot be read from the model's file, or the supervisor's thread cannot
    /// be started. Errors of the process are reported in [`status`](Self::status).
    pub fn start(options: WorkerOptions) -> Result<Self, LoadError> {
        let tokenizer = match (&options.tokenizer, &options.model) {
            (Some(tokenizer), _) => tokenizer.clone(),
            (None, Some(path)) => tokenizer_of(path)?,
            (None, None) => {
                let problem = "a worker needs a model's file, or a tokenizer".into();
                return Err(LoadError::Option { option: "tokenizer", problem });
            }
        };
        let name = options.model.as_ref().and_then(|path| path.file_stem());
        let name = name.map_or_else(|| options.backend.clone(), |name| name.to_string_lossy().into_owned());
        let slot = Arc::new(Slot {
            name: Mutex::new(name),
            status: Mutex::new(WorkerStatus::new(options.number)),
            tokenizer,
            options,
            facts: Mutex::default(),
            live: Mutex::default(),
            beat: Mutex::new(Beat::default()),
            next_beat: Mutex::default(),
            ended_stats: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let (messages, receiver) = mpsc::channel();
        let supervisor = Supervisor::new(slot.clone(), receiver, messages.clone());
        // The process is killed when the thread that started it exits, so that thread lives as long as the
        // worker.
        let thread = std::thread::Builder::new()
            .name("exsa-supervisor".into())
            .spawn(move || supervisor.run())
            .map_err(|error| LoadError::Backend(format!("cannot start the supervisor's thread: {error}")))?;
        Ok(Self { slot, messages, thread: Mutex::new(Some(thread)) })
    }

    /// Returns the state of the worker and its process.
    pub fn status(&self) -> WorkerStatus {
        self.slot.status.lock().clone()
    }

    /// Returns whether the worker accepts requests.
    pub fn is_ready(&self) -> bool {
        self.slot.live.lock().as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Returns the error for requests to a worker that was given up or stopped and stays so until
    /// [`restart`](Self::restart); `None` for a worker that accepts requests, or will.
    pub fn failure(&self) -> Option<SubmitError> {
        // A worker that was given up no longer counts as failed once a restart was requested.
        if self.slot.asked.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let state = self.status().state;
        let ended = matches!(state, WorkerState::Failed(_) | WorkerState::Stopped);
        ended.then(|| self.refusal(state))
    }

    /// Waits until the worker accepts requests, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// The state after that time, or the state of a worker that was given up or stopped.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), SubmitError> {
        let until = Instant::now() + timeout;
        while !self.is_ready() {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if Instant::now() >= until {
                return Err(self.unavailable());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Replaces the process once its requests have ended, or [`drain`](super::Timeouts::drain) has passed.
    /// Also restarts a worker that was given up or stopped.
    pub fn restart(&self) {
        self.slot.asked.fetch_add(1, Ordering::SeqCst);
        self.send(Message::Restart);
    }

    /// Stops accepting requests, and ends the process when its requests are done, or
    /// [`drain`](super::Timeouts::drain) has passed. Returns immediately.
    pub fn stop(&self) {
        self.send(Message::Stop { abort: false });
    }

    /// Changes the mode of the engine; a restart resets it to that of the options.
    pub fn set_mode(&self, mode: Mode) {
        self.tell(&ToWorker::Mode(mode));
    }

    /// Changes the fairness settings; a restart resets them to those of the options.
    pub fn set_fair(&self, options: FairOptions) {
        self.tell(&ToWorker::Fair(options));
    }

    fn send(&self, message: Message) {
        // The supervisor lives as long as the worker.
        let _ = self.messages.send(message);
    }

    fn tell(&self, message: &ToWorker) {
        if let Some(connection) = &*self.slot.live.lock() {
            // Such messages are short.
            let _ = connection.output.send(message);
        }
    }

    fn live(&self) -> Result<Arc<Connection>, SubmitError> {
        self.slot.live.lock().clone().ok_or_else(|| self.unavailable())
    }

    /// Returns the reason why no process can accept a request.
    fn unavailable(&self) -> SubmitError {
        self.refusal(self.status().state)
    }

    fn refusal(&self, state: WorkerState) -> SubmitError {
        let model = self.slot.name.lock().clone();
        match state {
            WorkerState::Failed(cause) => {
                SubmitError::ModelFailed { model, reason: format!("{} {cause}", self.slot.title()) }
            }
            WorkerState::Stopped | WorkerState::Stopping => SubmitError::ShuttingDown,
            WorkerState::Starting(_) | WorkerState::Ready => {
                SubmitError::ModelLoading { model, retry_after: None }
            }
        }
    }

    fn facts(&self) -> Result<Facts, SubmitError> {
        self.slot.facts.lock().clone().ok_or_else(|| self.unavailable())
    }

    /// Refuses a request if too many are waiting, as an in-process engine would.
    fn admit(&self, connection: &Connection, request: &Request) -> Result<(), SubmitError> {
        let beat = *self.slot.beat.lock();
        let unseen = connection.sent.load(Ordering::Relaxed).saturating_sub(beat.received);
        let waiting = beat.stats.scheduler.waiting + usize::try_from(unseen).unwrap_or(usize::MAX);
        let limit = self.slot.options.engine.queue_max;
        if waiting == 0 || waiting.saturating_add(request.n) <= limit {
            return Ok(());
        }
        let priority = request.priority;
        let depths = &beat.stats.scheduler.waiting_by_class;
        let class_depth = depths[priority.index()];
        // Requests that the worker has not counted yet are ahead of it.
        let ahead = depths[..=priority.index()]
            .iter()
            .sum::<usize>()
            .saturating_add(waiting.saturating_sub(depths.iter().sum()));
        let (scope, estimated_wait) = (QueueScope::All, None);
        Err(SubmitError::QueueFull { waiting, limit, scope, priority, class_depth, ahead, estimated_wait })
    }

    /// Sends a request; `entry` creates the part that waits for its end.
    fn enter(
        &self,
        connection: &Connection,
        entry: impl FnOnce(u64) -> Open,
        message: impl FnOnce(u64) -> ToWorker,
    ) -> Result<(), SubmitError> {
        match connection.enter(entry, message) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.unavailable()),
            Err(error @ FrameError::TooLong { .. }) => {
                Err(SubmitError::Option { option: "request", problem: format!("as a message, {error}") })
            }
            Err(error) => Err(SubmitError::Generator(error.to_string())),
        }
    }
}

/// Serializes the request as JSON.
fn json(request: &impl Serialize) -> Result<String, SubmitError> {
    serde_json::to_string(request).map_err(|error| SubmitError::Generator(format!("the request: {error}")))
}

fn tokenizer_of(path: &std::path::Path) -> Result<Arc<dyn Tokenizer>, LoadError> {
    let file = ModelFile::open(&path.into())?;
    Ok(load(file.gguf().metadata())?)
}

/// Estimates an upper bound on the tokens of a prompt from the length of its request.
fn prompt_tokens(request: &Request, json: &str) -> u64 {
    let resumed = request.resume.as_ref().map_or(0, |resume| resume.tokens.len());
    let prompt = match &request.prompt {
        Prompt::Tokens(tokens) => tokens.len(),
        Prompt::Text(text) => text.len() + 1,
        // Includes tools and the template's own text; few texts have more than one token per two bytes.
        _ => json.len() / 2,
    };
    (prompt + resumed) as u64
}

impl Generator for Worker {
    /// The model; empty until the process was ready for the first time.
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        self.slot.facts.lock().iter().map(|facts| facts.model.clone()).collect()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let connection = self.live()?;
        self.check(&request)?;
        self.admit(&connection, &request)?;
        let json = json(&request)?;
        let rules = StreamRules::new(&request, connection.info());
        let prompt_tokens = prompt_tokens(&request, &json);
        let flow: Arc<OnceLock<Arc<Flow>>> = Arc::default();
        let known = flow.clone();
        let (sender, stream) = channel(self.slot.options.engine.stream_events_max, move |signal| {
            if let Some(flow) = known.get() {
                flow.signal(signal);
            }
        });
        let output = connection.output.clone();
        let entry = move |id| {
            let own = Arc::new(Flow::new(id, output));
            _ = flow.set(own.clone());
            Open::Stream(Box::new(OpenStream {
                sender: Mutex::new(Some(sender)),
                rules,
                prompt_tokens,
                began: AtomicBool::new(false),
                flow: own,
            }))
        };
        self.enter(&connection, entry, |id| ToWorker::Submit { id, request: json })?;
        Ok(stream)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let connection = self.live()?;
        let info = connection.info();
        if !matches!(info.capabilities.embed, Some(pooling) if pooling != Pooling::Rank) {
            let reason = "the model, or its backend, gives no vectors".into();
            return Err(SubmitError::Unsupported { operation: "embed", reason });
        }
        check_texts(request.inputs.len(), "input")?;
        let (json, texts) = (json(&request)?, request.inputs.len());
        let id = Arc::new(OnceLock::new());
        let (sender, pending) = pending(cancels(&connection, &id));
        let entry = move |number| {
            _ = id.set(number);
            Open::Embed(OpenEmbed { sender: Mutex::new(Some(sender)), texts })
        };
        self.enter(&connection, entry, |id| ToWorker::Embed { id, request: json })?;
        Ok(pending)
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let connection = self.live()?;
        if connection.info().capabilities.embed != Some(Pooling::Rank) {
            let reason = "the model gives no scores; load a reranker".into();
            return Err(SubmitError::Unsupported { operation: "rerank", reason });
        }
        check_texts(request.documents.len(), "documents")?;
        let (json, texts) = (json(&request)?, request.documents.len());
        let id = Arc::new(OnceLock::new());
        let (sender, pending) = pending(cancels(&connection, &id));
        let entry = move |number| {
            _ = id.set(number);
            Open::Rerank(OpenRerank { sender: Mutex::new(Some(sender)), texts })
        };
        self.enter(&connection, entry, |id| ToWorker::Rerank { id, request: json })?;
        Ok(pending)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        self.facts()?.validator.count_tokens(request)
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.facts()?.validator.render(request)
    }

    fn tokenizer(&self, _model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        Ok(self.slot.tokenizer.clone())
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        if !request.transforms.is_empty() {
            let reason = "transforms of the host cannot run in a worker process".into();
            return Err(SubmitError::Unsupported { operation: "transforms", reason });
        }
        self.facts()?.validator.check(request)
    }

    fn continuation(&self, _model: Option<&str>) -> Continuation {
        let Ok(facts) = self.facts() else { return Continuation::refused() };
        let info = facts.validator.info();
        let continued = match info.capabilities.batch_invariant {
            true => Continued::Identical,
            false => Continued::SameDistribution,
        };
        Continuation::new(continued, info.fingerprint)
    }

    /// The counters as of the last heartbeat, plus those of earlier processes.
    fn stats(&self) -> EngineStats {
        let mut stats = self.slot.beat.lock().stats;
        stats.merge(&self.slot.ended_stats.lock());
        stats
    }
}

fn check_texts(texts: usize, option: &'static str) -> Result<(), SubmitError> {
    if texts <= TEXTS_MAX {
        return Ok(());
    }
    Err(SubmitError::Option { option, problem: format!("{texts} texts, but at most {TEXTS_MAX}") })
}

/// Cancels an embedding or reranking request whose result is no longer awaited.
fn cancels(connection: &Arc<Connection>, id: &Arc<OnceLock<u64>>) -> impl Fn() + Send + Sync + 'static {
    let (output, id) = (connection.output.clone(), id.clone());
    move || {
        if let Some(&id) = id.get() {
            // The message cannot be too long.
            let _ = output.send(&ToWorker::Cancel { id });
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("model", &*self.slot.name.lock())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Message::Quit);
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread ends by itself.
            let _ = thread.join();
        }
    }
}
