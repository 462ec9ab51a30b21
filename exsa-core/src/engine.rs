//! One loaded model, its sessions' sequences, and the thread that steps them.

use crate::backend::{Interrupt, Model, SessionOptions};
use crate::clock::{Clock, SystemClock};
use crate::error::LoadError;
use crate::finish::{FinishReason, RequestError};
use crate::generator::{Generator, SubmitError};
use crate::intake::Intake;
pub use crate::mailbox::Shutdown;
use crate::mailbox::{Command, Mailbox};
use crate::model_info::ModelInfo;
use crate::prefix::PrefixCacheOptions;
use crate::queue::{FairOptions, FairQueue, QueueOrder};
use crate::request::Request;
use crate::scheduler::Mode;
use crate::stats::EngineStats;
use crate::step::EngineLoop;
use crate::stream::TokenStream;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The session: KV, context, threads.
    pub session: SessionOptions,
    /// Requests that may wait for a sequence; 1,024 by default. More are refused with
    /// [`SubmitError::QueueFull`].
    pub queue_max: usize,
    /// Of one user; `None`, the default, sets no limit but `queue_max`.
    pub user_queue_max: Option<usize>,
    /// Most prompt tokens of a step in which streams decode, where the mode keeps latency in view; 256 by default. Smaller
    /// values let running streams go on more smoothly while a long prompt comes in, larger ones compute it faster.
    pub prefill_chunk_max: usize,
    /// What the engine is tuned for; [`Mode::Balanced`] by default. [`Engine::set_mode`] changes it later.
    pub mode: Mode,
    /// The time between two tokens of a stream that [`Mode::Balanced`] keeps to 95 % of the time; 200 ms by default. Where decoding
    /// alone takes more than half of it, twice that instead.
    pub inter_token_target: Duration,
    /// What is kept of prompts and answers, so as not to be computed again.
    pub prefix_cache: PrefixCacheOptions,
    /// How [`Engine::start`]'s queue shares the engine out.
    pub fair: FairOptions,
    /// Host memory for the KV of preempted requests in bytes; 256 MiB by default. 0 computes it again instead.
    pub saved_kv_bytes_max: u64,
    /// Times that a request gives way to others; 3 by default. After that, KV for the rest of its answer, up to 2,048
    /// tokens, is held ready for it, and it gives way again only to others of which this is true.
    pub preemptions_max: u32,
    /// Events that wait unread in a stream before its sequence is paused; 1,024 by default.
    pub stream_events_max: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            session: SessionOptions::default(),
            queue_max: 1024,
            user_queue_max: None,
            prefill_chunk_max: 256,
            mode: Mode::default(),
            inter_token_target: Duration::from_millis(200),
            prefix_cache: PrefixCacheOptions::default(),
            fair: FairOptions::default(),
            saved_kv_bytes_max: 256 << 20,
            preemptions_max: 3,
            stream_events_max: 1024,
        }
    }
}

/// An in-process engine: a model, and a thread that answers requests to it with continuous batching.
///
/// Dropping it ends all requests and waits for the thread.
///
/// ```
/// use exsa_core::{Engine, EngineOptions, Generator, Request};
/// use exsa_core::scripted::ScriptedModel;
///
/// let engine = Engine::start(ScriptedModel::echo("the quick brown fox").shared(), EngineOptions::default())?;
/// let answer = engine.submit(Request::text("go on: ").max_tokens(19))?.complete()?;
/// assert_eq!(answer.text, "the quick brown fox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    intake: Arc<Intake>,
    stats: Arc<Mutex<EngineStats>>,
    interrupt: Interrupt,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Makes a session of `model` and starts the thread, with a [`FairQueue`].
    pub fn start(model: Arc<dyn Model>, options: EngineOptions) -> Result<Self, LoadError> {
        let queue = Box::new(FairQueue::new(options.fair));
        Self::start_with(model, options, queue)
    }

    /// The same with a queue order of one's own.
    pub fn start_with(
        model: Arc<dyn Model>,
        options: EngineOptions,
        queue: Box<dyn QueueOrder>,
    ) -> Result<Self, LoadError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let interrupt = options.session.interrupt.clone();
        let mut engine = EngineLoop::new(model, options, queue, clock)?;
        let (intake, stats) = (engine.intake().clone(), engine.shared_stats());
        let thread = std::thread::Builder::new()
            .name("exsa-engine".into())
            .spawn(move || run(&mut engine))
            .map_err(|e| LoadError::Backend(format!("cannot start the engine's thread: {e}")))?;
        Ok(Self { intake, stats, interrupt, thread: Mutex::new(Some(thread)) })
    }

    /// Tunes for something else from the next step on.
    pub fn set_mode(&self, mode: Mode) {
        // An engine that has gone needs no mode.
        let _ = self.intake.mailbox.post(Command::Mode(mode));
    }

    /// Requests waiting, by user; those without a user under an empty name.
    pub fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.intake.waiting.by_user()
    }

    /// Ends the engine and waits until it has ended. No request is accepted from here on.
    pub fn shut_down(&self, how: Shutdown) {
        self.intake.mailbox.shut_down(how);
        if how == Shutdown::Abort {
            self.interrupt.raise();
        }
        if let Some(thread) = self.thread.lock().take() {
            // The thread catches panics of its own; there is nothing to learn from its result.
            let _ = thread.join();
        }
    }
}

impl Generator for Engine {
    fn model(&self) -> &ModelInfo {
        self.intake.model.info()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.intake.submit(request)
    }

    fn stats(&self) -> EngineStats {
        *self.stats.lock()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Abort);
    }
}

fn run(engine: &mut EngineLoop) {
    let mailbox: Arc<Mailbox> = engine.intake().mailbox.clone();
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
                let error = RequestError::Panicked(crate::step::panic_text(&*panic));
                engine.end_all(&FinishReason::Failed(error));
                return;
            }
        }
    }
}
