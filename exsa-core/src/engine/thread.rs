//! The engine's thread.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// The thread that steps an engine.
pub(super) struct EngineThread {
    id: ThreadId,
    handle: Mutex<Option<JoinHandle<()>>>,
    ended: Arc<Ended>,
}

#[derive(Default)]
struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

/// Signals the end of the thread on drop, and so also after a panic.
struct Report(Arc<Ended>);

impl Drop for Report {
    fn drop(&mut self) {
        *self.0.ended.lock() = true;
        self.0.changed.notify_all();
    }
}

impl EngineThread {
    /// Starts a thread that runs `work`.
    pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let ended = Arc::<Ended>::default();
        let report = Report(ended.clone());
        let handle = std::thread::Builder::new().name("exsa-engine".into()).spawn(move || {
            let _report = report;
            work();
        })?;
        Ok(Self { id: handle.thread().id(), handle: Mutex::new(Some(handle)), ended })
    }

    /// Waits for the thread to end, for at most `timeout`; any number of threads may wait. Returns whether it
    /// has ended. On the engine's own thread, which can get here if a waker drops the engine, it returns
    /// without waiting.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> bool {
        if std::thread::current().id() == self.id {
            return false;
        }
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ended = self.ended.ended.lock();
        while !*ended {
            match until {
                Some(until) if self.ended.changed.wait_until(&mut ended, until).timed_out() => return *ended,
                Some(_) => {}
                None => self.ended.changed.wait(&mut ended),
            }
        }
        drop(ended);
        if let Some(handle) = self.handle.lock().take() {
            // The thread catches its own panics, so its result carries no information.
            let _ = handle.join();
        }
        true
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.ended.lock()
    }
}
