//! Calls with a tag for each parameter.

use super::super::schema::Types;
use super::find::{Found, Start, find, space_len, starts};
use super::literal;
use super::object::escaped;
use super::sink::{CallSink, Step};
use crate::chat::Json;

/// Maximum bytes of a name or a key.
const KEY_BYTES_MAX: usize = 512;

/// Tags of a call. Untyped values get their type from the tool's schema.
#[derive(Debug)]
pub(super) struct Xml {
    pub(super) name_open: &'static str,
    pub(super) name_close: &'static str,
    pub(super) key_open: &'static str,
    pub(super) key_close: &'static str,
    /// Whether there is a `true` or `false` between `key_close` and `value_open`, which tells whether the
    /// value is a string.
    pub(super) typed: bool,
    /// Between key and value; empty if the value follows `key_close`.
    pub(super) value_open: &'static str,
    pub(super) value_close: &'static str,
    pub(super) call_close: &'static str,
    /// Whether a line break on either side of a value is not part of it.
    pub(super) lines: bool,
}

/// State of a call in tags.
#[derive(Clone, Debug, Default)]
pub(super) struct XmlCall {
    place: Place,
    /// Value that is not emitted before its end.
    held: String,
    arguments: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Open,
    Name,
    Parameters,
    Key,
    /// Before `value_open`.
    Type(Types),
    Value {
        types: Types,
        /// Whether the value is emitted while it is read.
        string: bool,
        /// Whether it has begun.
        begun: bool,
    },
}

impl XmlCall {
    pub(super) fn step(&mut self, form: &Xml, text: &str, ended: bool, sink: &mut CallSink<'_>) -> Step {
        let mut at = 0;
        loop {
            let rest = text.get(at..).unwrap_or_default();
            match self.part(form, rest, ended, sink) {
                Part::Taken(n) => at += n,
                Part::More(n) => return Step::More(at + n),
                Part::Done(n) => return Step::Done(at + n),
                Part::Failed => return Step::Failed(at),
            }
        }
    }

    fn part(&mut self, form: &Xml, text: &str, ended: bool, sink: &mut CallSink<'_>) -> Part {
        match self.place {
            Place::Open => match starts(text, form.name_open, ended) {
                Start::Yes => self.go(Place::Name, form.name_open.len()),
                Start::Unknown => Part::More(0),
                Start::No => Part::Failed,
            },
            Place::Name => {
                let ends = [form.name_close, form.key_open, form.call_close];
                let (at, index) = match find(text, &ends, ended) {
                    Found::Marker { at, index } => (at, index),
                    _ if text.len() > KEY_BYTES_MAX || ended => return Part::Failed,
                    _ => return Part::More(0),
                };
                if !sink.name(text.get(..at).unwrap_or_default()) {
                    return Part::Failed;
                }
                self.go(Place::Parameters, if index == 0 { at + form.name_close.len() } else { at })
            }
            Place::Parameters => self.parameters(form, text, ended, sink),
            Place::Key => {
                let (key, len) = match find(text, &[form.key_close], ended) {
                    Found::Marker { at, .. } => {
                        (text.get(..at).unwrap_or_default(), at + form.key_close.len())
                    }
                    _ if text.len() > KEY_BYTES_MAX || ended => return Part::Failed,
                    _ => return Part::More(0),
                };
                let key = key.trim();
                let types = sink.types.types(sink.tool(), key);
                sink.arguments(if self.arguments == 0 { "{" } else { ", " });
                sink.arguments(&format!("{}: ", Json::from(key)));
                self.arguments += 1;
                self.go(if form.value_open.is_empty() { value(types) } else { Place::Type(types) }, len)
            }
            Place::Type(types) => {
                let (between, len) = match find(text, &[form.value_open], ended) {
                    Found::Marker { at, .. } => {
                        (text.get(..at).unwrap_or_default(), at + form.value_open.len())
                    }
                    _ if text.len() > KEY_BYTES_MAX || ended => return Part::Failed,
                    _ => return Part::More(0),
                };
                match (form.typed, between.trim()) {
                    (true, "true") => self.go(value(Types::STRING), len),
                    (true, "false") | (false, "") => self.go(value(types), len),
                    _ => Part::Failed,
                }
            }
            Place::Value { types, string, begun } => {
                self.value(form, (types, string, begun), text, ended, sink)
            }
        }
    }

    fn go(&mut self, place: Place, taken: usize) -> Part {
        self.place = place;
        Part::Taken(taken)
    }

    fn parameters(&mut self, form: &Xml, text: &str, ended: bool, sink: &mut CallSink<'_>) -> Part {
        let space = space_len(text);
        let rest = text.get(space..).unwrap_or_default();
        if rest.is_empty() {
            return if ended { Part::Failed } else { Part::More(space) };
        }
        match (starts(rest, form.key_open, ended), starts(rest, form.call_close, ended)) {
            (Start::Yes, _) => self.go(Place::Key, space + form.key_open.len()),
            (_, Start::Yes) => {
                sink.arguments(if self.arguments == 0 { "{}" } else { "}" });
                Part::Done(space + form.call_close.len())
            }
            (Start::No, Start::No) => Part::Failed,
            _ => Part::More(space),
        }
    }

    fn value(
        &mut self,
        form: &Xml,
        (types, string, begun): (Types, bool, bool),
        text: &str,
        ended: bool,
        sink: &mut CallSink<'_>,
    ) -> Part {
        if text.is_empty() {
            return if ended { Part::Failed } else { Part::More(0) };
        }
        if !begun {
            self.place = Place::Value { types, string, begun: true };
            if string {
                sink.arguments("\"");
            }
            if form.lines && text.starts_with('\n') {
                return Part::Taken(1);
            }
        }
        let found = find(text, &[form.value_close], ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => text.len(),
        };
        let mut content = text.get(..end).unwrap_or_default();
        if form.lines {
            content = content.strip_suffix('\n').unwrap_or(content);
        }
        if string {
            sink.arguments(&escaped(content));
        } else {
            self.held.push_str(content);
        }
        match found {
            Found::Marker { at, .. } => {
                if string {
                    sink.arguments("\"");
                } else {
                    sink.arguments(&convert(&std::mem::take(&mut self.held), types).to_string());
                }
                self.go(Place::Parameters, at + form.value_close.len())
            }
            _ if ended => Part::Failed,
            _ => Part::More(content.len()),
        }
    }
}

enum Part {
    Taken(usize),
    More(usize),
    Done(usize),
    Failed,
}

fn value(types: Types) -> Place {
    Place::Value { types, string: types == Types::STRING, begun: false }
}

/// Converts the text of a value, given the types that the schema allows.
fn convert(text: &str, types: Types) -> Json {
    let parsed = match text.trim() {
        "True" => Some(Json::Bool(true)),
        "False" => Some(Json::Bool(false)),
        "None" => Some(Json::Null),
        trimmed => {
            let python =
                || (!types.is_unknown()).then(|| literal::parse(trimmed, &literal::PYTHON)).flatten();
            trimmed.parse().ok().or_else(python)
        }
    };
    match parsed {
        Some(value) if types.is_unknown() && !matches!(value, Json::String(_)) => value,
        // This includes quoted strings among other types, since as JSON they are unambiguous.
        Some(value) if !types.is_unknown() && types.allow(&value) => value,
        Some(value) if !types.is_unknown() && !types.allow(&Json::from("")) => value,
        _ => Json::from(text),
    }
}
