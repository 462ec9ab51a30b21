//! Output of an answer: turns certain text into the events of the stream.

use crate::stream::{Event, StreamSender, Token};
use crate::text::Released;
#[cfg(feature = "tool-parsers")]
use crate::tools::{Delta, OutputParser};

/// Turns the tokens of an answer, and the text that became certain with them, into events.
///
/// The text has passed the detokenizer and the stop strings. This module holds the parser that splits it into
/// reasoning, tool calls and content, and withholds the events of candidates for
/// [`best_of`](crate::Request::best_of).
pub(crate) struct Output {
    /// Index of the answer.
    index: usize,
    /// Events withheld until it is known whether the answer is among the best; `None` if events are sent at
    /// once.
    withheld: Option<Vec<Event>>,
    /// Events of the current token, sent together, so that an interrupted stream has all or none of a token's
    /// events.
    group: Vec<Event>,
    /// Splits the text into reasoning, tool calls and content.
    #[cfg(feature = "tool-parsers")]
    parser: Option<Box<OutputParser>>,
}

impl Output {
    /// The output of answer `index`.
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            withheld: None,
            group: Vec::new(),
            #[cfg(feature = "tool-parsers")]
            parser: None,
        }
    }

    /// A copy that parses text and emits nothing.
    pub(crate) fn reader(&self) -> Self {
        Self {
            index: self.index,
            withheld: None,
            group: Vec::new(),
            #[cfg(feature = "tool-parsers")]
            parser: self.parser.clone(),
        }
    }

    /// Withholds the events until [`take_withheld`](Self::take_withheld) returns them.
    #[must_use]
    pub(crate) fn withhold(mut self, withhold: bool) -> Self {
        self.withheld = withhold.then(Vec::new);
        self
    }

    /// Sets the parser of the text.
    #[cfg(feature = "tool-parsers")]
    #[must_use]
    pub(crate) fn parser(mut self, parser: Option<OutputParser>) -> Self {
        self.parser = parser.map(Box::new);
        self
    }

    /// Takes the events withheld so far; `None` if events are sent at once.
    pub(crate) fn take_withheld(&mut self) -> Option<Vec<Event>> {
        self.withheld.take()
    }

    /// Sends `token`, given without its text, with the text released by it. Returns whether the stream has
    /// room for more.
    pub(crate) fn token(&mut self, token: Token, released: Released, stream: &StreamSender) -> bool {
        #[cfg(feature = "tool-parsers")]
        if self.parser.is_some() {
            let deltas = self.parse(&released, false);
            self.parsed_token(token, deltas);
            return self.send_group(stream);
        }
        let token = Token { text: released.text, ..token };
        self.group.push(Event::Token(token.index(self.index)));
        self.send_group(stream)
    }

    /// Reads text of a resumed answer, which was emitted before the interruption.
    pub(crate) fn replay(&mut self, released: &Released) {
        #[cfg(feature = "tool-parsers")]
        self.parse(released, false);
        let _ = released;
    }

    /// Processes the text released at the end of the answer. Returns the events for it, to be sent together
    /// with the answer's last event, and the text of that last event.
    pub(crate) fn finish(&mut self, released: Released) -> (Vec<Event>, String) {
        #[cfg(feature = "tool-parsers")]
        if self.parser.is_some() {
            let mut deltas = self.parse(&released, true);
            let last = match deltas.pop() {
                Some(Delta::Text(text)) => text,
                other => {
                    deltas.extend(other);
                    String::new()
                }
            };
            let events: Vec<_> = deltas.into_iter().map(|delta| self.event(delta)).collect();
            return match &mut self.withheld {
                Some(withheld) => {
                    withheld.extend(events);
                    (Vec::new(), last)
                }
                None => (events, last),
            };
        }
        (Vec::new(), released.text)
    }

    /// Whether the text is inside reasoning.
    pub(crate) fn in_reasoning(&self) -> bool {
        #[cfg(feature = "tool-parsers")]
        if let Some(parser) = &self.parser {
            return parser.in_reasoning();
        }
        false
    }

    /// Text that closes the reasoning; `None` if no reasoning is open.
    pub(crate) fn reasoning_end(&self) -> Option<String> {
        #[cfg(feature = "tool-parsers")]
        if let Some(parser) = &self.parser {
            return parser.reasoning_end();
        }
        None
    }

    /// Number of complete tool calls.
    pub(crate) fn calls(&self) -> usize {
        #[cfg(feature = "tool-parsers")]
        if let Some(parser) = &self.parser {
            return parser.calls();
        }
        0
    }

    #[cfg(feature = "tool-parsers")]
    fn parse(&mut self, released: &Released, ended: bool) -> Vec<Delta> {
        let Some(parser) = &mut self.parser else { return Vec::new() };
        let mut deltas = Vec::new();
        let mut at = 0;
        for control in &released.controls {
            deltas.extend(parser.push(released.text.get(at..control.start).unwrap_or_default()));
            deltas.extend(parser.push_control(released.text.get(control.clone()).unwrap_or_default()));
            at = control.end;
        }
        deltas.extend(parser.push(released.text.get(at..).unwrap_or_default()));
        if ended {
            deltas.extend(parser.finish());
        }
        deltas
    }

    /// Adds `token` with the first piece of text among `deltas`, and the other deltas as separate events.
    #[cfg(feature = "tool-parsers")]
    fn parsed_token(&mut self, token: Token, deltas: Vec<Delta>) {
        let index = self.index;
        let mut token = Some(token.index(index));
        if !deltas.iter().any(|delta| matches!(delta, Delta::Text(_) | Delta::Reasoning(_))) {
            // A token of a marker or of a tool call has no text.
            let token = token.take().unwrap_or_default();
            let event = if self.in_reasoning() { Event::Reasoning(token) } else { Event::Token(token) };
            self.group.push(event);
        }
        for delta in deltas {
            let mut event = self.event(delta);
            if let Event::Token(piece) | Event::Reasoning(piece) = &mut event
                && let Some(token) = token.take()
            {
                *piece = Token { text: std::mem::take(&mut piece.text), ..token };
            }
            self.group.push(event);
        }
    }

    #[cfg(feature = "tool-parsers")]
    fn event(&self, delta: Delta) -> Event {
        let index = self.index;
        match delta {
            Delta::Text(text) => Event::Token(Token::new(None, text).index(index)),
            Delta::Reasoning(text) => Event::Reasoning(Token::new(None, text).index(index)),
            Delta::ToolCall(call) => Event::ToolCall(call.index(index)),
            Delta::Malformed(malformed) => Event::MalformedToolCall(malformed.index(index)),
        }
    }

    fn send_group(&mut self, stream: &StreamSender) -> bool {
        match &mut self.withheld {
            Some(events) => {
                events.append(&mut self.group);
                true
            }
            None => stream.send(&mut self.group),
        }
    }
}
