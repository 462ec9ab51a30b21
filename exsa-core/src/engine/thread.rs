//! The thread of an engine, and waiting for its end.

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

/// Reports the end when it is dropped, so that a panic does, too.
struct Report(Arc<Ended>);

impl Drop for Report {
    fn drop(&mut self) {
        *self.0.ended.lock() = true;
        self.0.changed.notify_all();
    }
}

impl EngineThread {
    /// Starts a thread that does `work`.
    pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let ended = Arc::<Ended>::default();
        let report = Report(ended.clone());
        let handle = std::thread::Builder::new().name("exsa-engine".into()).spawn(move || {
            let _report = report;
            work();
        })?;
        Ok(Self { id: handle.thread().id(), handle: Mutex::new(Some(handle)), ended })
    }

    /// Waits until the thread has ended, at most for `timeout`; any number of threads may. Whether it has ended. The engine's own
    /// thread, which gets here when a waker drops the engine, does not wait for itself.
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
            // The thread catches panics of its own; its result tells nothing.
            let _ = handle.join();
        }
        true
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.ended.lock()
    }
}
