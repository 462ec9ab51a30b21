//! The in-process engine: one loaded model, one session, and the thread that steps them.

mod admission_control;
mod in_flight;
mod input_processor;
mod mailbox;
mod request_state;
mod step;

use crate::backend::{Interrupt, Model};
use crate::clock::{Clock, SystemClock};
use crate::error::LoadError;
use crate::finish::{FinishReason, RequestError};
use crate::generator::{Generator, SubmitError};
use crate::model_info::ModelInfo;
use crate::options::EngineOptions;
use crate::request::Request;
use crate::schedule::queue::{FairQueue, QueueOrder};
use crate::schedule::scheduler::Mode;
use crate::speculate::Speculation;
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use input_processor::InputProcessor;
pub use mailbox::Shutdown;
use mailbox::{Command, Mailbox};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
pub use step::EngineLoop;

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
    input: Arc<InputProcessor>,
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
        let (input, stats) = (engine.input().clone(), engine.shared_stats());
        let thread = std::thread::Builder::new()
            .name("exsa-engine".into())
            .spawn(move || run(&mut engine))
            .map_err(|e| LoadError::Backend(format!("cannot start the engine's thread: {e}")))?;
        Ok(Self { input, stats, interrupt, thread: Mutex::new(Some(thread)) })
    }

    /// Tunes for something else from the next step on.
    pub fn set_mode(&self, mode: Mode) {
        // An engine that has gone needs no mode.
        let _ = self.input.mailbox.post(Command::Mode(mode));
    }

    /// Verifies the drafts of a proposer from the next step on, or none: the default.
    pub fn speculate(&self, speculation: Option<Speculation>) {
        // An engine that has gone needs no drafts.
        let _ = self.input.mailbox.post(Command::Speculate(speculation.map(Box::new)));
    }

    /// Requests waiting, by user; those without a user under an empty name.
    pub fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.input.admission.by_user()
    }

    /// Ends the engine and waits until it has ended. No request is accepted from here on.
    pub fn shut_down(&self, how: Shutdown) {
        self.input.mailbox.shut_down(how);
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
        self.input.model.info()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.input.submit(request)
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
