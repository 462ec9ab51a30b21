//! Deltas of the output, and the call being written.

use super::super::schema::ToolTypes;
use crate::stream::{MalformedToolCall, ToolCallDelta};

/// Maximum bytes of a tool's name.
const NAME_BYTES_MAX: usize = 256;

/// A part of the model's output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delta {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning.
    Reasoning(String),
    /// A part of a tool call.
    ToolCall(ToolCallDelta),
    /// Text that began like a tool call but is not a valid one.
    Malformed(MalformedToolCall),
}

/// Appends deltas, and merges adjacent deltas of the same kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Deltas(pub(super) Vec<Delta>);

impl Deltas {
    pub(super) fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Text(last)) => last.push_str(text),
            _ => self.0.push(Delta::Text(text.to_owned())),
        }
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Reasoning(last)) => last.push_str(text),
            _ => self.0.push(Delta::Reasoning(text.to_owned())),
        }
    }

    fn arguments(&mut self, call: usize, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::ToolCall(last)) if last.call == call => last.arguments.push_str(text),
            _ => self.0.push(Delta::ToolCall(ToolCallDelta::new(call).arguments(text))),
        }
    }
}

/// The call being written.
#[derive(Clone, Debug, Default)]
pub(super) struct CallState {
    name: Option<String>,
    /// Arguments that came before the name.
    pending: String,
    id: Option<String>,
}

/// Receives the parts of one call.
pub(super) struct CallSink<'a> {
    pub(super) index: usize,
    pub(super) state: &'a mut CallState,
    pub(super) types: &'a ToolTypes,
    pub(super) out: &'a mut Deltas,
    /// Id of the call if the model writes none.
    pub(super) default_id: String,
    /// Whether only names of the request's tools are valid.
    pub(super) known_only: bool,
}

impl CallState {
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }
}

impl CallSink<'_> {
    /// The name of the tool, if known.
    pub(super) fn tool(&self) -> &str {
        self.state.name.as_deref().unwrap_or_default()
    }

    pub(super) fn is_named(&self) -> bool {
        self.state.is_named()
    }

    /// Sets the id written by the model. It is ignored after the name.
    pub(super) fn id(&mut self, id: &str) {
        if !id.is_empty() && id.len() <= NAME_BYTES_MAX {
            self.state.id = Some(id.to_owned());
        }
    }

    /// Sets the name of the tool. Returns whether it is valid.
    pub(super) fn name(&mut self, name: &str) -> bool {
        let name = name.trim();
        let valid = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.contains(|c: char| {
                c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '{')
            });
        if !valid || self.known_only && !self.types.knows(name) {
            return false;
        }
        if !self.is_named() {
            let id = self.state.id.take().unwrap_or_else(|| std::mem::take(&mut self.default_id));
            self.out.0.push(Delta::ToolCall(ToolCallDelta::new(self.index).id(id).name(name)));
            self.state.name = Some(name.to_owned());
            self.out.arguments(self.index, &std::mem::take(&mut self.state.pending));
        }
        true
    }

    /// Appends the next piece of the arguments, as JSON text.
    pub(super) fn arguments(&mut self, text: &str) {
        if self.is_named() {
            self.out.arguments(self.index, text);
        } else {
            self.state.pending.push_str(text);
        }
    }
}

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The call consumes this many bytes and needs more.
    More(usize),
    /// The call ends after this many bytes.
    Done(usize),
    /// After this many bytes, the text is not a call.
    Failed(usize),
    /// The text after this many bytes belongs to the answer, not to a call.
    Text(usize),
}
