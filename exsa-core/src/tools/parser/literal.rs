//! Calls in programming notation: `f(a=1)` of Python, `call:f{a:1}` of Gemma.

use super::find::{Start, starts};
use super::sink::{CallSink, Step};
use crate::chat::Json;

/// Maximum nesting of lists and mappings in an argument.
const DEPTH_MAX: usize = 64;

/// JSON's quote. In notations with bare words, it opens a string only at the beginning of a value.
pub(super) const JSON_QUOTE: &str = "\"";

/// Notation of calls and their values.
#[derive(Debug)]
pub(super) struct Literals {
    /// Text before the name.
    pub(super) prefix: &'static str,
    pub(super) open: char,
    pub(super) close: char,
    /// Between a parameter and its argument.
    pub(super) assign: char,
    /// Texts around strings.
    pub(super) quotes: &'static [&'static str],
    /// Whether strings have escapes.
    pub(super) escapes: bool,
    /// Whether keys of mappings are unquoted and strings may be bare words.
    pub(super) bare: bool,
    /// Text after the name that is not part of it.
    pub(super) method: &'static str,
}

pub(super) static PYTHON: Literals = Literals {
    prefix: "",
    open: '(',
    close: ')',
    assign: '=',
    quotes: &["\"", "'"],
    escapes: true,
    bare: false,
    method: ".call",
};

/// State of a call in such a notation.
#[derive(Clone, Debug, Default)]
pub(super) struct LiteralCall {
    place: Place,
    /// Name, or argument with its parameter.
    held: String,
    depth: usize,
    /// The open string's quote, by index.
    quote: Option<usize>,
    escape: bool,
    arguments: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Prefix,
    Name,
    Argument,
}

impl LiteralCall {
    pub(super) fn step(&mut self, form: &Literals, text: &str, ended: bool, sink: &mut CallSink<'_>) -> Step {
        let mut at = 0;
        if self.place == Place::Prefix {
            match starts(text, form.prefix, ended) {
                Start::Yes => at = form.prefix.len(),
                Start::Unknown => return Step::More(0),
                Start::No => return Step::Failed(0),
            }
            self.place = Place::Name;
        }
        while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let next = at + c.len_utf8();
            if self.place == Place::Name {
                if c == form.open {
                    let name = self.held.trim();
                    let name = name.strip_suffix(form.method).unwrap_or(name).to_owned();
                    if !sink.name(&name) {
                        return Step::Failed(at);
                    }
                    self.held.clear();
                    self.place = Place::Argument;
                } else if c.is_alphanumeric()
                    || matches!(c, '_' | '.' | '-' | ':') && !self.held.is_empty()
                    || c == '_'
                {
                    self.held.push(c);
                } else {
                    return Step::Failed(at);
                }
                at = next;
                continue;
            }
            if std::mem::take(&mut self.escape) {
                self.held.push(c);
                at = next;
                continue;
            }
            let rest = text.get(at..).unwrap_or_default();
            if let Some(quote) = self.quote.and_then(|index| form.quotes.get(index)) {
                match starts(rest, quote, ended) {
                    Start::Unknown => return Step::More(at),
                    Start::Yes => {
                        self.quote = None;
                        self.held.push_str(quote);
                        at += quote.len();
                    }
                    Start::No => {
                        self.escape = (form.escapes || form.bare && *quote == JSON_QUOTE) && c == '\\';
                        self.held.push(c);
                        at = next;
                    }
                }
                continue;
            }
            let mut unknown = false;
            let value_begins = self.held.trim_end().ends_with([':', ',', '[', '{']);
            let opened = form.quotes.iter().position(|quote| match starts(rest, quote, ended) {
                _ if form.bare && *quote == JSON_QUOTE && !value_begins => false,
                Start::Yes => true,
                Start::Unknown => {
                    unknown = true;
                    false
                }
                Start::No => false,
            });
            if let Some(quote) = opened {
                self.quote = opened;
                self.held.push_str(form.quotes[quote]);
                at += form.quotes[quote].len();
                continue;
            }
            if unknown {
                return Step::More(at);
            }
            match c {
                _ if c == form.close && self.depth == 0 => {
                    if !self.held.trim().is_empty() && self.argument(form, sink).is_none() {
                        return Step::Failed(at);
                    }
                    sink.arguments(if self.arguments == 0 { "{}" } else { "}" });
                    return Step::Done(next);
                }
                ',' if self.depth == 0 => {
                    if self.argument(form, sink).is_none() {
                        return Step::Failed(at);
                    }
                }
                _ => {
                    match c {
                        '(' | '[' | '{' => self.depth += 1,
                        ')' | ']' | '}' => match self.depth.checked_sub(1) {
                            Some(depth) => self.depth = depth,
                            None => return Step::Failed(at),
                        },
                        _ => {}
                    }
                    self.held.push(c);
                }
            }
            at = next;
        }
        Step::More(at)
    }

    /// Emits the argument that was read.
    fn argument(&mut self, form: &Literals, sink: &mut CallSink<'_>) -> Option<()> {
        let held = std::mem::take(&mut self.held);
        let text = held.trim();
        let (key, value) = match text.split_once(form.assign) {
            Some((key, value)) if is_key(key.trim(), form) => (unquoted(key.trim(), form).to_owned(), value),
            _ if form.bare => return None,
            _ => (sink.types.parameter(sink.tool(), self.arguments)?.to_owned(), text),
        };
        let value = parse(value, form)?;
        sink.arguments(if self.arguments == 0 { "{" } else { ", " });
        sink.arguments(&format!("{}: {value}", Json::from(key)));
        self.arguments += 1;
        Some(())
    }
}

fn is_key(key: &str, form: &Literals) -> bool {
    let name = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'))
    };
    name(key) || form.bare && name(unquoted(key, form))
}

fn unquoted<'a>(key: &'a str, form: &Literals) -> &'a str {
    let inner = |quote: &&str| key.strip_prefix(*quote)?.strip_suffix(*quote);
    form.quotes.iter().find_map(inner).unwrap_or(key)
}

/// A value in the notation of `form`.
pub(super) fn parse(text: &str, form: &Literals) -> Option<Json> {
    let mut reader = Reader { rest: text.trim(), form };
    let value = reader.value(DEPTH_MAX)?;
    reader.rest.trim().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
    form: &'a Literals,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        if let Some(text) = self.string()? {
            return Some(Json::String(text));
        }
        match self.rest.chars().next()? {
            '[' | '(' | '{' if depth == 0 => None,
            '[' => self.list('[', ']', depth - 1),
            '(' => self.list('(', ')', depth - 1),
            '{' => self.mapping(depth - 1),
            _ => self.word(),
        }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, c: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A string, if one begins here; `None` if it does not end.
    #[allow(clippy::option_option)]
    fn string(&mut self) -> Option<Option<String>> {
        let Some(quote) = self.form.quotes.iter().find(|quote| self.rest.starts_with(**quote)) else {
            return Some(None);
        };
        if self.form.bare && *quote == JSON_QUOTE {
            return Some(self.json_string());
        }
        let mut rest = self.rest.get(quote.len()..)?;
        let mut text = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(*quote) {
                self.rest = after;
                return Some(Some(text));
            }
            let mut chars = rest.chars();
            match chars.next()? {
                '\\' if self.form.escapes => unescape(&mut chars, &mut text)?,
                c => text.push(c),
            }
            rest = chars.as_str();
        }
    }

    /// A JSON string; `None` if it is a bare word instead.
    fn json_string(&mut self) -> Option<String> {
        let mut escaped = true;
        let end = self.rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            // The first byte, the opening quote, counts as escaped.
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (text, rest) = self.rest.split_at_checked(end + 1)?;
        let Ok(Json::String(text)) = text.parse() else { return None };
        self.rest = rest;
        Some(text)
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> Option<Json> {
        self.eat(open);
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value(depth)?);
            if !self.eat(',') {
                self.eat(close).then_some(())?;
                break;
            }
        }
        Some(Json::Array(items))
    }

    fn mapping(&mut self, depth: usize) -> Option<Json> {
        self.eat('{');
        let mut fields = Vec::new();
        while !self.eat('}') {
            self.space();
            let key = match self.string()? {
                Some(key) => key,
                None if self.form.bare => {
                    let (key, _) = self.rest.split_once(':')?;
                    self.rest = self.rest.get(key.len()..)?;
                    key.trim().to_owned()
                }
                None => return None,
            };
            self.eat(':').then_some(())?;
            fields.push((key, self.value(depth)?));
            if !self.eat(',') {
                self.eat('}').then_some(())?;
                break;
            }
        }
        Some(Json::Object(fields))
    }

    /// A number, a constant, or a bare string.
    fn word(&mut self) -> Option<Json> {
        let end = self.rest.find([',', ']', ')', '}']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let word = word.trim();
        match word {
            "True" | "true" => Some(Json::Bool(true)),
            "False" | "false" => Some(Json::Bool(false)),
            "None" | "null" => Some(Json::Null),
            "" => None,
            _ => match word.parse() {
                Ok(number @ (Json::Int(_) | Json::Float(_))) => Some(number),
                _ => self.form.bare.then(|| Json::from(word)),
            },
        }
    }
}

/// Reads the rest of an escape sequence in a Python string, after the backslash. Unknown escapes are kept
/// unchanged.
fn unescape(chars: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    let mut code = |chars: &mut std::str::Chars<'_>, digits: usize| {
        let text = chars.as_str().get(..digits)?;
        let code = u32::from_str_radix(text, 16).ok()?;
        *chars = chars.as_str().get(digits..)?.chars();
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        Some(())
    };
    let c = chars.next()?;
    match c {
        'x' => return code(chars, 2),
        'u' => return code(chars, 4),
        'U' => return code(chars, 8),
        _ => {}
    }
    match c {
        'n' => out.push('\n'),
        't' => out.push('\t'),
        'r' => out.push('\r'),
        'b' => out.push('\u{8}'),
        'f' => out.push('\u{c}'),
        '0' => out.push('\0'),
        '\n' => {}
        '\\' | '\'' | '"' => out.push(c),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_values_become_json() {
        for (python, json) in [
            ("1", "1"),
            ("-0.5", "-0.5"),
            ("True", "true"),
            ("None", "null"),
            (r#"'it\'s "x"\n'"#, r#""it's \"x\"\n""#),
            (r"'\x41\u00e9\q'", r#""Aé\\q""#),
            ("[1, (2, 'a'), {'k': [True,],}]", r#"[1, [2, "a"], {"k": [true]}]"#),
        ] {
            let parsed = parse(python, &PYTHON).unwrap_or_else(|| panic!("{python}"));
            assert_eq!(parsed.to_string(), json);
        }
        for wrong in ["", "[1", "'a", "a", "{1: 2}", "1 2", "[1 2]", r"'\x4'", "1+1"] {
            assert_eq!(parse(wrong, &PYTHON), None, "{wrong}");
        }
        assert_eq!(parse(&"[".repeat(100_000), &PYTHON), None);
    }
}
