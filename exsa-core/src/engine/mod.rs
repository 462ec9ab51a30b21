//! The in-process engine: one model, one session, and the thread that steps them.

mod adapters;
mod admission_control;
mod answer;
mod banned;
mod best_of;
mod embed_input;
mod embed_job;
mod external;
mod in_flight;
mod info;
mod input_processor;
pub(crate) mod mailbox;
mod output;
mod output_plan;
mod overflow;
mod reasoning_budget;
mod request_state;
mod step;
mod thread;
mod validator;

use crate::adapter::{AdapterError, AdapterStatus};
use crate::backend::{Model, ModelSource};
use crate::cache_events::CacheEvents;
use crate::chat::Rendered;
use crate::clock::{Clock, SystemClock};
use crate::embed::{EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use crate::error::LoadError;
use crate::finish::{FinishReason, RequestError};
use crate::generator::{Continuation, Continued, Generator, SubmitError};
use crate::model_info::ModelInfo;
use crate::options::EngineOptions;
use crate::request::Request;
use crate::schedule::queue::{FairOptions, FairQueue, QueueOrder};
use crate::schedule::scheduler::Mode;
use crate::speculate::Speculation;
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
pub use external::{AnswerDecoder, DecoderStep, EncodedPrompt, PromptEncoder};
pub use info::EngineInfo;
use input_processor::InputProcessor;
use mailbox::Command;
pub(crate) use mailbox::Mailbox;
pub use mailbox::Shutdown;
use parking_lot::Mutex;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
pub use step::EngineLoop;
#[cfg(feature = "registry")]
pub(crate) use step::panic_text;
use thread::EngineThread;
pub use validator::RequestValidator;

/// An in-process engine: a model and a thread that serves requests with continuous batching.
///
/// Dropping the engine ends all requests and waits for the thread.
///
/// ```
/// use exsa_core::{Engine, EngineOptions, Request};
/// use exsa_core::scripted::ScriptedModel;
///
/// let engine = Engine::start(ScriptedModel::echo("the quick brown fox").shared(), EngineOptions::default())?;
/// let answer = engine.submit(Request::text("go on: ").max_tokens(19))?.complete()?;
/// assert_eq!(answer.text, "the quick brown fox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    input: Arc<InputProcessor>,
    stats: Arc<Mutex<EngineStats>>,
    info: Arc<ModelInfo>,
    thread: EngineThread,
}

impl Engine {
    /// Creates a session of `model` and starts the engine's thread, with a [`FairQueue`].
    ///
    /// # Errors
    ///
    /// The session cannot be created, or the thread cannot be started ([`LoadError::Backend`]).
    pub fn start(model: Arc<dyn Model>, options: EngineOptions) -> Result<Self, LoadError> {
        let queue = Box::new(FairQueue::new(options.fair));
        Self::start_with(model, options, queue)
    }

    /// Like [`start`](Self::start), with a custom queue order.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_with(
        model: Arc<dyn Model>,
        options: EngineOptions,
        queue: Box<dyn QueueOrder>,
    ) -> Result<Self, LoadError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut engine = EngineLoop::new(model, options, queue, clock)?;
        let (input, stats) = (engine.input().clone(), engine.shared_stats());
        let thread = EngineThread::spawn(move || run(&mut engine))
            .map_err(|e| LoadError::Backend(format!("cannot start the engine's thread: {e}")))?;
        let info = Arc::new(input.info.model.clone());
        Ok(Self { input, stats, info, thread })
    }

    /// Accepts a request; see [`Generator::submit`].
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    pub fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.input.submit(request)
    }

    /// Accepts texts to embed; see [`Generator::embed`].
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    pub fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.input.embed(request)
    }

    /// Accepts documents to score against a query; see [`Generator::rerank`].
    ///
    /// # Errors
    ///
    /// The reason for refusing the request.
    pub fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        self.input.rerank(request)
    }

    /// The engine's only model, in the form of [`Generator::models`].
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        vec![self.info.clone()]
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> EngineStats {
        *self.stats.lock()
    }

    /// Metadata of the model.
    pub fn model(&self) -> &ModelInfo {
        &self.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.input.tokenizer.clone()
    }

    /// Number of prompt tokens of the request, including BOS and chat template. Does not validate the rest of
    /// the request.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Chat`] if the conversation cannot be rendered.
    pub fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        Ok(self.input.encode(request)?.tokens.len())
    }

    /// The text of the request's prompt; a conversation is rendered by the chat template.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Chat`] if the conversation cannot be rendered, [`SubmitError::Unsupported`] for a
    /// prompt of token ids.
    pub fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.input.render(request)
    }

    /// Properties of the engine: the model, and the abilities and limits of the session.
    pub fn info(&self) -> &EngineInfo {
        &self.input.info
    }

    /// Loads a LoRA adapter, which later requests can select by `name`; see [`Request::adapter`]. Does not
    /// block running passes.
    ///
    /// # Errors
    ///
    /// The reason for refusing the adapter.
    pub fn load_adapter(&self, name: &str, source: &ModelSource) -> Result<AdapterStatus, AdapterError> {
        self.input.load_adapter(name, source)
    }

    /// Unloads an adapter. The name is removed at once; requests that use the adapter are completed, and its
    /// memory is freed after the last of them.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unknown`] if no adapter has this name.
    pub fn unload_adapter(&self, name: &str) -> Result<(), AdapterError> {
        self.input.unload_adapter(name)
    }

    /// Charges the memory of adapters loaded from now on to a shared budget.
    #[cfg(feature = "registry")]
    pub(crate) fn share_adapter_memory(&self, memory: Arc<dyn crate::adapter::memory::AdapterMemory>) {
        self.input.share_adapter_memory(memory);
    }

    /// The loaded adapters, by name.
    pub fn adapters(&self) -> Vec<AdapterStatus> {
        self.input.list_adapters()
    }

    /// Changes the mode from the next step on.
    pub fn set_mode(&self, mode: Mode) {
        // An engine that has ended ignores the command.
        let _ = self.input.mailbox.post(Command::Mode(mode));
    }

    /// Changes the options of the fair queue from the next step on.
    pub fn set_fair(&self, options: FairOptions) {
        // An engine that has ended ignores the command.
        let _ = self.input.mailbox.post(Command::Fair(options));
    }

    /// Sets the proposers of drafts from the next step on, in place of those of
    /// [`EngineOptions::speculation`]; `None` turns speculation off.
    pub fn speculate(&self, speculation: Option<Speculation>) {
        // An engine that has ended ignores the command.
        let _ = self.input.mailbox.post(Command::Speculate(speculation.map(Box::new)));
    }

    /// Watches the prefix cache: returns a reader of its blocks and of all later changes. Unread events are
    /// limited to `bytes_max` bytes, apart from the initial announcement of all blocks, whose size is bounded
    /// by the cached tokens. A further call replaces the previous reader.
    pub fn watch_cache(&self, bytes_max: usize) -> CacheEvents {
        CacheEvents::new(self.input.mailbox.clone(), bytes_max)
    }

    /// Saves every cached prefix that is missing in the [prompt store](crate::prompt_cache::PromptStore), and
    /// waits at most `timeout` until the store has accepted them: before pinning an entry, or before a
    /// planned restart. Running streams pause meanwhile. Returns the number of prefixes; `None` after a
    /// timeout.
    pub fn save_prompts(&self, timeout: Duration) -> Option<usize> {
        let (done, saved) = std::sync::mpsc::channel();
        self.input.mailbox.post(Command::SavePrompts(done)).ok()?;
        saved.recv_timeout(timeout).ok()
    }

    /// The tokens of the request's prompt, by which a prompt store looks up entries.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Chat`] if the conversation cannot be rendered.
    pub fn prompt_tokens(&self, request: &Request) -> Result<Vec<TokenId>, SubmitError> {
        Ok(self.input.encode(request)?.tokens)
    }

    /// Number of answers waiting for a sequence, by user. Requests without a user count under an empty name.
    pub fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.input.admission.by_user()
    }

    /// Interrupts the running forward pass, if any. No request ends; the next pass recomputes the same
    /// tokens.
    pub fn interrupt(&self) {
        self.input.in_flight.end_pass();
    }

    /// Begins a shutdown and returns at once. No further request is accepted. An abort can follow a drain; a
    /// drain after an abort has no effect.
    pub fn begin_shutdown(&self, how: Shutdown) {
        self.input.mailbox.shut_down(how);
        if how == Shutdown::Abort {
            self.input.in_flight.abort();
        }
    }

    /// Calls [`begin_shutdown`](Self::begin_shutdown) and waits
    /// until the engine has ended and its session is dropped.
    pub fn shut_down(&self, how: Shutdown) {
        self.begin_shutdown(how);
        self.thread.wait(None);
    }

    /// Calls [`begin_shutdown`](Self::begin_shutdown) and waits for
    /// at most `timeout`. Returns whether the engine has ended.
    #[must_use = "the engine may still be running"]
    pub fn shut_down_timeout(&self, how: Shutdown, timeout: Duration) -> bool {
        self.begin_shutdown(how);
        self.thread.wait(Some(timeout))
    }

    /// Whether the engine has ended: after a shutdown, or because the backend panicked.
    pub fn is_shut_down(&self) -> bool {
        self.thread.has_ended()
    }
}

impl Generator for Engine {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        Engine::models(self)
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        Engine::submit(self, request)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        Engine::embed(self, request)
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        Engine::rerank(self, request)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        Engine::count_tokens(self, request)
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        Engine::render(self, request)
    }

    fn tokenizer(&self, _model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        Ok(Engine::tokenizer(self))
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.input.check(request)
    }

    fn load_adapter(
        &self,
        _model: Option<&str>,
        name: &str,
        source: &ModelSource,
    ) -> Result<AdapterStatus, AdapterError> {
        Engine::load_adapter(self, name, source)
    }

    fn unload_adapter(&self, _model: Option<&str>, name: &str) -> Result<(), AdapterError> {
        Engine::unload_adapter(self, name)
    }

    fn adapters(&self, _model: Option<&str>) -> Vec<AdapterStatus> {
        Engine::adapters(self)
    }

    fn continuation(&self, _model: Option<&str>) -> Continuation {
        let continued = match self.info().capabilities.batch_invariant {
            true => Continued::Identical,
            false => Continued::SameDistribution,
        };
        Continuation::new(continued, self.input.info.fingerprint)
    }

    fn stats(&self) -> EngineStats {
        Engine::stats(self)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.info.name)
            .field("shut_down", &self.is_shut_down())
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Abort);
    }
}

fn run(engine: &mut EngineLoop) {
    let mailbox: Arc<Mailbox> = engine.input().mailbox.clone();
    loop {
        let shutdown = mailbox.shutdown();
        if shutdown == Some(Shutdown::Abort) {
            engine.end_all(&FinishReason::Cancelled);
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| engine.step())) {
            Ok(true) => {}
            Ok(false) if engine.is_stopped() => return,
            Ok(false) if shutdown == Some(Shutdown::Drain) && engine.is_empty() => {
                engine.end_all(&FinishReason::Cancelled);
                return;
            }
            Ok(false) => mailbox.wait(shutdown, engine.until_wakeup()),
            Err(panic) => {
                let error = RequestError::Panicked(step::panic_text(&*panic));
                engine.end_all(&FinishReason::Failed(error));
                return;
            }
        }
    }
}
