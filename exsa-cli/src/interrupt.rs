//! Ctrl-C: stops the running answer or tool call; without one, exits.

use crate::error::CliError;
use exsa::CancelHandle;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Exit code of a program that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The Ctrl-C handler.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    answer: Arc<Mutex<Option<CancelHandle>>>,
    stopped: Arc<AtomicBool>,
    /// Whether work is running that polls `stopped`.
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

    /// Makes the next Ctrl-C cancel this answer.
    pub(crate) fn watch(&self, answer: CancelHandle) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Runs work that polls whether Ctrl-C was pressed.
    pub(crate) fn during<R>(&self, work: impl FnOnce(&dyn Fn() -> bool) -> R) -> R {
        self.working.store(true, Ordering::Relaxed);
        let result = work(&|| self.stopped.load(Ordering::Relaxed));
        self.working.store(false, Ordering::Relaxed);
        self.stopped.store(false, Ordering::Relaxed);
        result
    }

    /// Stops watching. Returns whether the answer was stopped.
    pub(crate) fn take_stopped(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stopped.swap(false, Ordering::Relaxed)
    }
}
