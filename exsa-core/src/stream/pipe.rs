//! Streams whose events are passed directly to another stream or process, without a thread in between.

use super::channel::{QueuePosition, StreamSignal, TokenStream};
use super::event::Event;
use std::fmt;
use std::time::Duration;

/// Receives the events of a stream on the thread that sends them: [`TokenStream::pipe`].
///
/// Each call receives events that belong together: all events of one token, or of the end of an answer. After
/// an interruption between two calls, the consumer has all text of the previous tokens, so that
/// [`Resume`](crate::Resume) continues without a gap.
///
/// # Contract
///
/// `events` is called with the stream locked, often on the engine's thread: it must not block. Of the
/// stream's own handle, it may only use [`cancel`](StreamHandle::cancel) and
/// [`drained`](StreamHandle::drained).
pub trait EventSink: Send {
    /// Receives events; in the last call, the last event is [`Event::Finished`]. Returning `false` asks the
    /// sender for no more events before [`StreamHandle::drained`].
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

    /// Cancels the request; no effect after it has ended.
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// Signals that the sink has room again.
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
