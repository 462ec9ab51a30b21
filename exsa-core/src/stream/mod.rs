//! The answer to one request, as it is generated.
//!
//! [`TokenStream::text`] gives the text, [`TokenStream::complete`] the whole answer, and the stream itself
//! every [`Event`]. [`TokenStream::into_stream`] is the same for asynchronous programs, on any runtime.
//! [`channel()`] makes the two ends for implementations of [`Generator`](crate::generator::Generator).

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
