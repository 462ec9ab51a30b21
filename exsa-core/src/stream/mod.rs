//! The stream of events of one request.
//!
//! [`TokenStream::text`] iterates over the text, [`TokenStream::complete`] returns the whole answer, and the
//! stream itself is an iterator over every [`Event`]. [`TokenStream::into_stream`] is the asynchronous
//! version, for any runtime. [`channel()`] creates the two ends, for implementations of
//! [`Generator`](crate::generator::Generator).

mod channel;
mod completion;
mod event;
mod pipe;
mod text;

#[cfg(test)]
mod tests;

pub use channel::{
    CancelHandle, EventStream, QueuePosition, StreamSender, StreamSignal, TokenStream, channel,
};
pub use completion::Completion;
pub use event::{
    AnswerFinished, AnswerLogprob, Event, Finished, MalformedToolCall, PromptLogprobs, PromptToken, Token,
    ToolCallDelta, TopLogprob,
};
pub use pipe::{EventSink, StreamHandle};
pub use text::{Text, TextStream};
