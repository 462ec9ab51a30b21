//! Ctrl-C: stops the answer or the download; without one, ends the program.

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
}

impl Interrupt {
    /// Installs the handler.
    pub(crate) fn install() -> Result<Self, CliError> {
        let this = Self::default();
        let (answer, stopped) = (this.answer.clone(), this.stopped.clone());
        let handler = move || match answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(answer) => {
                stopped.store(true, Ordering::Relaxed);
                answer.cancel();
            }
            None => std::process::exit(INTERRUPTED),
        };
        ctrlc::set_handler(handler).map_err(|error| CliError::Other(format!("Ctrl-C: {error}")))?;
        Ok(this)
    }

    /// Lets the next Ctrl-C stop this answer.
    pub(crate) fn watch(&self, answer: CancelHandle) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Ends the watch. Returns whether the answer was stopped.
    pub(crate) fn take_stopped(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stopped.swap(false, Ordering::Relaxed)
    }
}
