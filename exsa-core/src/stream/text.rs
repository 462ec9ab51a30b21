//! The text of an answer as an iterator or stream.

use super::channel::{EventStream, TokenStream};
use super::event::{Event, Finished};
use crate::finish::{FinishReason, RequestError, Usage};
use futures_core::Stream;
use futures_core::stream::FusedStream;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

impl TokenStream {
    /// The text of the answer, piece by piece, followed by an error if the request fails.
    pub fn text(&mut self) -> Text<'_> {
        Text { stream: self, pieces: Pieces::default() }
    }

    /// The text of the answer as an asynchronous stream.
    pub fn into_text_stream(self) -> TextStream {
        TextStream { stream: self.into_stream(), pieces: Pieces::default() }
    }
}

/// The text of an answer as a blocking iterator: [`TokenStream::text`].
///
/// Each item is a non-empty piece of final text; concatenated, the items are the whole answer, including text
/// that was held back until the end. If the request fails, the last item is an `Err`. If there are several
/// answers, the text is that of the first.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is read"]
pub struct Text<'a> {
    stream: &'a mut TokenStream,
    pieces: Pieces,
}

impl Text<'_> {
    /// How the request ended, after the last event was read.
    pub fn finished(&self) -> Option<&Finished> {
        self.stream.finished()
    }

    /// Tokens and times, after the last event was read.
    pub fn usage(&self) -> Option<&Usage> {
        self.stream.usage()
    }
}

impl Iterator for Text<'_> {
    type Item = Result<String, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.pieces.error.take() {
            return Some(Err(error));
        }
        loop {
            if let Some(piece) = self.pieces.of(self.stream.next()?) {
                return Some(piece);
            }
        }
    }
}

impl FusedIterator for Text<'_> {}

/// The text of an answer as an asynchronous stream: [`TokenStream::into_text_stream`]. The items are those of
/// [`Text`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct TextStream {
    stream: EventStream,
    pieces: Pieces,
}

impl TextStream {
    /// Waits at most `timeout` for the next piece; `None` on timeout, or after the last piece
    /// ([`is_terminated`](FusedStream::is_terminated) tells which). A timeout of zero polls;
    /// [`Duration::MAX`] waits without a limit.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<String, RequestError>> {
        if let Some(error) = self.pieces.error.take() {
            return Some(Err(error));
        }
        let until = Instant::now().checked_add(timeout);
        loop {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            let event = self.stream.get_mut().next_timeout(left)?;
            if let Some(piece) = self.pieces.of(event) {
                return Some(piece);
            }
        }
    }

    /// The underlying stream of events, for example to cancel the request or to query its place in the queue.
    pub fn get_ref(&self) -> &TokenStream {
        self.stream.get_ref()
    }

    /// The underlying stream of events, mutably. The text of events read from it is missing from this text
    /// stream.
    pub fn get_mut(&mut self) -> &mut TokenStream {
        self.stream.get_mut()
    }

    /// How the request ended, after the last event was read.
    pub fn finished(&self) -> Option<&Finished> {
        self.stream.get_ref().finished()
    }

    /// Tokens and times, after the last event was read.
    pub fn usage(&self) -> Option<&Usage> {
        self.stream.get_ref().usage()
    }
}

impl Stream for TextStream {
    type Item = Result<String, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { stream, pieces } = &mut *self;
        if let Some(error) = pieces.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(event) = ready!(Pin::new(&mut *stream).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if let Some(piece) = pieces.of(event) {
                return Poll::Ready(Some(piece));
            }
        }
    }
}

impl FusedStream for TextStream {
    fn is_terminated(&self) -> bool {
        self.pieces.error.is_none() && self.stream.is_terminated()
    }
}

/// Turns events into text of the first answer.
#[derive(Debug, Default)]
struct Pieces {
    /// The error to return after the last piece of text.
    error: Option<RequestError>,
    /// Whether the first answer has ended.
    ended: bool,
}

impl Pieces {
    fn of(&mut self, event: Event) -> Option<Result<String, RequestError>> {
        let (index, text) = match event {
            Event::Token(token) => (token.index, token.text),
            Event::MalformedToolCall(malformed) => (malformed.index, malformed.text),
            Event::AnswerFinished(end) => {
                if end.index == 0 {
                    self.end(end.reason);
                }
                (end.index, end.text)
            }
            Event::Finished(finished) => {
                self.end(finished.reason);
                (finished.index, finished.text)
            }
            Event::Reasoning(_) | Event::ToolCall(_) | Event::Prompt(_) => return None,
        };
        if index == 0 && !text.is_empty() { Some(Ok(text)) } else { self.error.take().map(Err) }
    }

    fn end(&mut self, reason: FinishReason) {
        if !std::mem::replace(&mut self.ended, true) {
            self.error = reason.into_result().err();
        }
    }
}
