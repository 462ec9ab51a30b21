//! Wakers that call Python.

use pyo3::prelude::*;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::thread;

/// Sends functions from engine threads to the calling thread.
static CALLS: OnceLock<Mutex<Sender<Py<PyAny>>>> = OnceLock::new();

/// Returns a waker that calls `function` once, without arguments, on a thread of the library. The engine's
/// own thread never waits for the interpreter.
pub fn waker(function: Py<PyAny>) -> Waker {
    Waker::from(Arc::new(Call(Mutex::new(Some(function)))))
}

struct Call(Mutex<Option<Py<PyAny>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let function = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(function) = function {
            // Without a calling thread, the interpreter is shutting down.
            let _ = calls().lock().unwrap_or_else(PoisonError::into_inner).send(function);
        }
    }
}

/// Returns the channel to the calling thread, which the first use starts.
fn calls() -> &'static Mutex<Sender<Py<PyAny>>> {
    CALLS.get_or_init(|| {
        let (sender, functions) = channel::<Py<PyAny>>();
        // If no thread can be started, the calls are lost, and waiting for an answer never ends.
        let _ = thread::Builder::new().name("exsa-wake".into()).spawn(move || {
            for function in functions {
                // An event loop that was closed meanwhile refuses the call; nothing waits on it any more.
                let called = Python::try_attach(|py| drop(function.call0(py)));
                if called.is_none() {
                    return;
                }
            }
        });
        Mutex::new(sender)
    })
}
