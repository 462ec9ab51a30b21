//! Streams whose events go straight to another stream or process, without a thread between.

use super::channel::{QueuePosition, StreamSignal, TokenStream};
use super::event::Event;
use std::fmt;
use std::time::Duration;

/// Takes the events of a stream on the thread that sends them: [`TokenStream::pipe`].
///
/// Each call has events that belong together: all that came of one token, or of the end of an answer. A
/// consumer that was cut off between two calls has all text of the tokens before, so that
/// [`Resume`](crate::Resume) goes on without a gap.
///
/// # Contract
///
/// `events` is called with the stream locked, often on the engine's thread: it must not block. Of the
/// stream's own handle, it may only use [`cancel`](StreamHandle::cancel) and
/// [`drained`](StreamHandle::drained).
pub trait EventSink: Send {
    /// Takes the events; the last call has [`Event::Finished`] at its end. `false` means that no more should
    /// come before [`StreamHandle::drained`].
    fn events(&mut self, events: &mut Vec<Event>) -> bool;
}

/// The consumer's side of a stream whose events go to an [`EventSink`]. Dropping it cancels the request.
#[must_use = "dropping the handle cancels the request"]
pub struct StreamHandle {
    stream: TokenStream,
}

impl StreamHandle {
    pub(super) fn new(stream: TokenStream) -> Self {
        Self { stream }
    }

    /// Ends the request; no effect once it has ended.
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// Announces that the sink has room again.
    pub fn drained(&self) {
        self.stream.notify(StreamSignal::Drained);
    }

    /// The place in the queue; see [`TokenStream::queue_position`].
    pub fn queue_position(&self, timeout: Duration) -> Option<QueuePosition> {
        self.stream.queue_position(timeout)
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamHandle").field(&self.stream).finish()
    }
}
