//! Output side of an answer: from certain text to the events of the stream.

use crate::stream::{Event, StreamSender, Token};

/// Turns the tokens of an answer, and the text that became certain with them, into events.
///
/// The text has passed detokenizer and stop strings. Parsers that part it, into reasoning, tool
/// calls and content, belong here; so does anything that holds events back.
pub(crate) struct Output {
    /// Index of the answer.
    index: usize,
}

impl Output {
    /// The output of answer `index`.
    pub(crate) fn new(index: usize) -> Self {
        Self { index }
    }

    /// Takes a token with its text. Returns whether the stream has room for more.
    pub(crate) fn token(&mut self, token: Token, stream: &StreamSender) -> bool {
        self.emit(Event::Token(token.index(self.index)), stream)
    }

    /// Takes the text that the end of the answer released. Returns the text for the answer's last event.
    pub(crate) fn finish(&mut self, text: String, _stream: &StreamSender) -> String {
        text
    }

    fn emit(&mut self, event: Event, stream: &StreamSender) -> bool {
        stream.send(event)
    }
}
