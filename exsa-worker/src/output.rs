//! Sending half of a connection: a buffer that any thread appends to, and the thread that writes it.

use crate::frame::{self, FrameError};
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Buffered bytes above which senders should pause.
const WAITING_MAX: usize = 64 << 20;
/// Time to collect frames of one step into one write.
const LINGER: Duration = Duration::from_micros(50);

/// A buffer of frames to be written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    state: Mutex<State>,
    changed: Condvar,
    waiting: AtomicUsize,
    lingers: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl Output {
    /// Appends a message. It is dropped if the connection has ended.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`].
    pub(crate) fn send<T: Serialize>(&self, message: &T) -> Result<(), FrameError> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        frame::encode(message, &mut state.buffer)?;
        self.waiting.store(state.buffer.len(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Returns whether senders should pause.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > WAITING_MAX
    }

    /// Sets whether further frames are expected within microseconds.
    pub(crate) fn linger(&self, lingers: bool) {
        self.lingers.store(lingers, Ordering::Relaxed);
    }

    /// Ends [`run`](Self::run) once everything is written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until everything is written, for at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock();
        while !state.closed && (state.writing || !state.buffer.is_empty()) {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    /// Writes frames to `to` until it fails or the output is closed. `drained` is called when a full output
    /// has room again.
    pub(crate) fn run(&self, mut to: impl Write, drained: impl Fn()) {
        let mut buffer = Vec::new();
        loop {
            let mut state = self.state.lock();
            state.writing = false;
            while state.buffer.is_empty() && !state.closed {
                self.changed.notify_all();
                self.changed.wait(&mut state);
            }
            if state.buffer.is_empty() {
                return;
            }
            if self.lingers.load(Ordering::Relaxed) && !state.closed {
                drop(state);
                std::thread::sleep(LINGER);
                state = self.state.lock();
            }
            std::mem::swap(&mut state.buffer, &mut buffer);
            state.writing = true;
            drop(state);
            let was_full = self.is_full();
            self.waiting.store(0, Ordering::Relaxed);
            if to.write_all(&buffer).and_then(|()| to.flush()).is_err() {
                let mut state = self.state.lock();
                (state.closed, state.writing) = (true, false);
                state.buffer = Vec::new();
                drop(state);
                self.changed.notify_all();
                return;
            }
            if buffer.capacity() > 1 << 20 {
                buffer = Vec::new();
            }
            buffer.clear();
            if was_full {
                drained();
            }
        }
    }
}
