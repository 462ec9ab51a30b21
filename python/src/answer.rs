//! The answer to one request.

use crate::error::exception;
use crate::wake::waker;
use exsa::core::stream::TextStream;
use exsa::{CancelHandle, Event, RequestError, TokenStream};
use futures_core::Stream;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Poll interval for signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// The answer to one request, wrapped by a class of the package.
#[pyclass(frozen, module = "exsa._exsa")]
pub struct Answer {
    cancel: CancelHandle,
    reader: Mutex<Reader>,
}

struct Reader {
    // Dropped before the engine, which ends with its last handle.
    stream: TextStream,
    /// Keeps the engine running.
    _engine: exsa::Engine,
}

impl Answer {
    pub fn new(stream: TokenStream, engine: exsa::Engine) -> Self {
        let cancel = stream.cancel_handle();
        Self { cancel, reader: Mutex::new(Reader { stream: stream.into_text_stream(), _engine: engine }) }
    }

    fn reader(&self) -> PyResult<MutexGuard<'_, Reader>> {
        self.reader.try_lock().map_err(|_| PyRuntimeError::new_err("another thread is reading the answer"))
    }

    /// Waits in slices with the GIL released, so that signals are handled.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        next: impl Fn(&mut TextStream, Duration) -> Option<T> + Sync,
    ) -> PyResult<Option<T>> {
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|error| PyValueError::new_err(format!("timeout: {error}")))?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            let slice = left.min(SIGNALS_EVERY);
            let (item, ended) = py.detach(|| {
                let mut reader = self.reader()?;
                let item = next(&mut reader.stream, slice);
                Ok::<_, PyErr>((item, reader.stream.finished().is_some()))
            })?;
            if item.is_some() || ended || left <= slice {
                return Ok(item);
            }
            py.check_signals()?;
        }
    }

    fn has_ended(&self) -> PyResult<bool> {
        Ok(self.reader()?.stream.finished().is_some())
    }
}

#[pymethods]
impl Answer {
    /// Returns the next piece of text; empty after the last, None if none arrived within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        match self.wait(py, timeout, TextStream::next_timeout)? {
            Some(piece) => text(piece).map(Some),
            None => Ok(self.has_ended()?.then(String::new)),
        }
    }

    /// Returns the next event as JSON; empty after the last, None if none arrived within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next_event(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        let event: Option<Event> =
            self.wait(py, timeout, |stream, timeout| stream.get_mut().next_timeout(timeout))?;
        match event {
            Some(event) => json(serde_json::to_string(&event)).map(Some),
            None => Ok(self.has_ended()?.then(String::new)),
        }
    }

    /// Returns the next piece of text without waiting; empty after the last. After None, `wake` is called
    /// once, on another thread, when one is available.
    fn poll(&self, wake: Py<PyAny>) -> PyResult<Option<String>> {
        let waker = waker(wake);
        let mut context = Context::from_waker(&waker);
        match Pin::new(&mut self.reader()?.stream).poll_next(&mut context) {
            Poll::Ready(Some(piece)) => text(piece).map(Some),
            Poll::Ready(None) => Ok(Some(String::new())),
            Poll::Pending => Ok(None),
        }
    }

    /// Cancels the request.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Returns OpenAI's finish reason, or "cancelled" or "timeout"; None before the end was read.
    fn finish_reason(&self) -> PyResult<Option<&'static str>> {
        use exsa::FinishReason::{Cancelled, Deadline, FirstTokenTimeout};
        Ok(self.reader()?.stream.finished().map(|finished| match &finished.reason {
            Cancelled => "cancelled",
            Deadline | FirstTokenTimeout => "timeout",
            reason => reason.openai(),
        }))
    }

    /// Returns usage as JSON, and the seed; None before the end was read.
    fn usage(&self) -> PyResult<Option<(String, Option<u64>)>> {
        let reader = self.reader()?;
        let Some(finished) = reader.stream.finished() else { return Ok(None) };
        Ok(Some((json(serde_json::to_string(&finished.usage))?, finished.seed)))
    }
}

fn text(piece: Result<String, RequestError>) -> PyResult<String> {
    piece.map_err(exception)
}

fn json(written: serde_json::Result<String>) -> PyResult<String> {
    written.map_err(|error| PyValueError::new_err(error.to_string()))
}
