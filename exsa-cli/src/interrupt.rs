//! Ctrl-C: stops the answer or the call of a tool; without one, ends the program.

use crate::error::CliError;
use exsa::CancelHandle;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Exit code of a program that Ctrl-C ends.
const INTERRUPTED: i32 = 130;

/// The handler of Ctrl-C.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    answer: Arc<Mutex<Option<CancelHandle>>>,
    stopped: Arc<AtomicBool>,
    /// Work is in progress that looks at `stopped` by itself.
    working: Arc<AtomicBool>,
}

impl Interrupt {
    /// Installs the handler.
    pub(crate) fn install() -> Result<Self, CliError> {
        let this = Self::default();
        let (answer, stopped, working) = (this.answer.clone(), this.stopped.clone(), this.working.clone());
        let handler = move || match answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(answer) => {
                stopped.store(true, Ordering::Relaxed);
                answer.cancel();
            }
            None if working.load(Ordering::Relaxed) => stopped.store(true, Ordering::Relaxed),
            None => std::process::exit(INTERRUPTED),
        };
        ctrlc::set_handler(handler).map_err(|error| CliError::Other(format!("Ctrl-C: {error}")))?;
        Ok(this)
    }

    /// Lets the next Ctrl-C stop this answer.
    pub(crate) fn watch(&self, answer: CancelHandle) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Does work that Ctrl-C stops; it asks now and then whether that has happened.
    pub(crate) fn during<R>(&self, work: impl FnOnce(&dyn Fn() -> bool) -> R) -> R {
        self.working.store(true, Ordering::Relaxed);
        let result = work(&|| self.stopped.load(Ordering::Relaxed));
        self.working.store(false, Ordering::Relaxed);
        self.stopped.store(false, Ordering::Relaxed);
        result
    }

    /// Ends the watch. Returns whether the answer was stopped.
    pub(crate) fn take_stopped(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stopped.swap(false, Ordering::Relaxed)
    }
}
