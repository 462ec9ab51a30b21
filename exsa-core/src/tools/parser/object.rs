//! Calls written as JSON objects with a name and arguments.

use super::json_scan::JsonScan;
use super::sink::{CallSink, Step};
use crate::chat::Json;

/// `{"name": "f", "arguments": {…}}` and similar forms, with keys in any order. Arguments that are an object
/// are emitted while they are read.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectCall {
    scan: JsonScan,
    slot: Slot,
    /// Key or value that is being read, unless it is emitted at once.
    held: String,
    /// Last key.
    key: String,
    /// Whether name and arguments are those of an inner object `function`.
    nested: bool,
    has_arguments: bool,
}

/// Meaning of the text that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    None,
    Key,
    Name,
    Id,
    /// Arguments as an object.
    Arguments,
    /// Arguments as a string that holds an object, or null.
    ArgumentsText,
    Ignored,
}

impl ObjectCall {
    pub(super) fn step(&mut self, text: &str, sink: &mut CallSink<'_>) -> Step {
        let mut piece = String::new();
        for (at, c) in text.char_indices() {
            if self.push(c, &mut piece, sink).is_none() {
                sink.arguments(&piece);
                return Step::Failed(at);
            }
            if self.scan.is_done() {
                sink.arguments(&piece);
                if !self.has_arguments {
                    sink.arguments("{}");
                }
                let end = at + c.len_utf8();
                return if sink.is_named() { Step::Done(end) } else { Step::Failed(end) };
            }
        }
        sink.arguments(&piece);
        Step::More(text.len())
    }

    /// Reads a character; `None` if the text is not a call.
    fn push(&mut self, c: char, piece: &mut String, sink: &mut CallSink<'_>) -> Option<()> {
        let base = if self.nested { 2 } else { 1 };
        let at_base = self.scan.depth() == base;
        let in_string = self.scan.in_string();
        if at_base && self.scan.expects_key() && c == '"' {
            self.slot = Slot::Key;
        } else if at_base && self.scan.expects_value() && !c.is_ascii_whitespace() {
            self.begin_value(c)?;
        }
        let in_number = self.scan.in_number();
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            self.scan.push(byte).ok()?;
        }
        if at_base && in_number && !self.scan.in_number() {
            // The character after a number ends it.
            self.end_value(sink)?;
        }
        let out = if self.slot == Slot::Arguments { piece } else { &mut self.held };
        match self.slot {
            Slot::None | Slot::Ignored => {}
            _ if in_string && c < ' ' => push_escaped(c, out),
            _ => out.push(c),
        }
        let depth = self.scan.depth();
        if self.slot == Slot::Key && !self.scan.in_key() {
            self.key = take_string(&mut self.held)?;
            self.slot = Slot::None;
        } else if self.slot != Slot::None && depth == base && self.scan.after() {
            self.end_value(sink)?;
        }
        if self.nested && depth < 2 {
            self.nested = false;
        }
        Some(())
    }

    /// Determines the meaning of the value of `key` that begins with `c`.
    fn begin_value(&mut self, c: char) -> Option<()> {
        self.slot = match (&*self.key, c) {
            ("function", '{') if !self.nested => {
                self.nested = true;
                Slot::None
            }
            ("name" | "tool_name" | "function", '"') => Slot::Name,
            ("id" | "call_id" | "tool_call_id", '"' | '0'..='9') => Slot::Id,
            ("arguments" | "parameters" | "args", _) if self.has_arguments => return None,
            ("arguments" | "parameters" | "args", '{') => Slot::Arguments,
            ("arguments" | "parameters" | "args", '"' | 'n') => Slot::ArgumentsText,
            ("arguments" | "parameters" | "args", _) => return None,
            _ => Slot::Ignored,
        };
        self.has_arguments |= matches!(self.slot, Slot::Arguments | Slot::ArgumentsText);
        Some(())
    }

    fn end_value(&mut self, sink: &mut CallSink<'_>) -> Option<()> {
        match std::mem::take(&mut self.slot) {
            Slot::Name => {
                let name = take_string(&mut self.held)?;
                sink.name(&name).then_some(())?;
            }
            Slot::Id => {
                let id = match std::mem::take(&mut self.held).parse().ok()? {
                    Json::String(id) => id,
                    number => number.to_string(),
                };
                sink.id(&id);
            }
            Slot::ArgumentsText => match std::mem::take(&mut self.held).parse().ok()? {
                Json::Null => sink.arguments("{}"),
                Json::String(text) => {
                    let text = if text.trim().is_empty() { "{}" } else { text.trim() };
                    matches!(text.parse(), Ok(Json::Object(_))).then_some(())?;
                    sink.arguments(text);
                }
                _ => return None,
            },
            Slot::None | Slot::Key | Slot::Arguments | Slot::Ignored => self.held.clear(),
        }
        Some(())
    }
}

/// Arguments alone: a JSON object, emitted while it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct ArgumentsObject {
    scan: JsonScan,
}

impl ArgumentsObject {
    pub(super) fn step(&mut self, text: &str, sink: &mut CallSink<'_>) -> Step {
        let mut piece = String::new();
        for (at, c) in text.char_indices() {
            let in_string = self.scan.in_string();
            let mut bytes = [0; 4];
            if self.scan.depth() == 0 && c.is_whitespace() {
                continue;
            }
            let started = self.scan.depth() > 0 || c == '{';
            if !started || c.encode_utf8(&mut bytes).bytes().any(|byte| self.scan.push(byte).is_err()) {
                sink.arguments(&piece);
                return Step::Failed(at);
            }
            if in_string && c < ' ' {
                push_escaped(c, &mut piece);
            } else {
                piece.push(c);
            }
            if self.scan.is_done() {
                sink.arguments(&piece);
                return Step::Done(at + c.len_utf8());
            }
        }
        sink.arguments(&piece);
        Step::More(text.len())
    }
}

/// Takes the text of a JSON string.
fn take_string(held: &mut String) -> Option<String> {
    match std::mem::take(held).parse() {
        Ok(Json::String(text)) => Some(text),
        _ => None,
    }
}

/// Appends a character, escaped as in a JSON string.
fn push_escaped(c: char, out: &mut String) {
    out.push_str(&escaped(c.encode_utf8(&mut [0; 4])));
}

/// Text, escaped as in a JSON string, without the quotes.
pub(super) fn escaped(text: &str) -> String {
    let quoted = Json::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}
