//! Output side of an answer: from certain text to the events of the stream.

use crate::stream::{Event, StreamSender, Token};

/// Turns the tokens of an answer, and the text that became certain with them, into events.
///
/// The text has passed detokenizer and stop strings. Parsers that part it, into reasoning, tool
/// calls and content, belong here; so does anything that holds events back.
pub(crate) struct Output {
    /// Index of the answer.
    index: usize,
    /// Events of an answer that is withheld until it is known whether it is among the best.
    withheld: Option<Vec<Event>>,
}

impl Output {
    /// The output of answer `index`.
    pub(crate) fn new(index: usize) -> Self {
        Self { index, withheld: None }
    }

    /// Withholds the events: [`take_withheld`](Self::take_withheld) gives them.
    #[must_use]
    pub(crate) fn withhold(mut self, withhold: bool) -> Self {
        self.withheld = withhold.then(Vec::new);
        self
    }

    /// The events withheld so far; `None` if events are sent as they come.
    pub(crate) fn take_withheld(&mut self) -> Option<Vec<Event>> {
        self.withheld.take()
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
        match &mut self.withheld {
            Some(events) => {
                events.push(event);
                true
            }
            None => stream.send(event),
        }
    }
}
