//! JSON values, for tools and additional fields of messages.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Maximum nesting of arrays and objects in a value.
pub(super) const DEPTH_MAX: usize = 64;

/// Maximum bytes of a JSON text. A value takes at most about 40 times as much memory as its text.
pub const JSON_BYTES_MAX: usize = 16 << 20;

/// A JSON value. Objects keep the order of their keys, which is visible in rendered templates.
///
/// ```
/// use exsa_core::chat::Json;
///
/// let value: Json = r#"{"type": "object", "required": ["city"]}"#.parse()?;
/// assert_eq!(value.get("type"), Some(&Json::from("object")));
/// # Ok::<(), exsa_core::chat::JsonError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction and exponent.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: keys and values in order. If a key occurs several times, the last value applies.
    Object(Vec<(String, Json)>),
}

/// Error of parsing a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON, byte {offset}: {problem}")]
pub struct JsonError {
    /// Position of the problem, in bytes from the start.
    pub offset: usize,
    /// The problem.
    pub problem: &'static str,
}

impl Json {
    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether arrays and objects are nested at most [`DEPTH_MAX`] levels deep.
    pub(crate) fn is_shallow(&self) -> bool {
        fn within(value: &Json, depth: usize) -> bool {
            match value {
                Json::Array(_) | Json::Object(_) if depth == 0 => false,
                Json::Array(items) => items.iter().all(|item| within(item, depth - 1)),
                Json::Object(fields) => fields.iter().all(|(_, field)| within(field, depth - 1)),
                _ => true,
            }
        }
        within(self, DEPTH_MAX)
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if this is an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// Writes the value as JSON on one line. Infinities and NaN, which JSON cannot represent, become `null`.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) if !value.is_finite() => f.write_str("null"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::String(text) => quoted(text, f),
            Self::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (i, (key, value)) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    quoted(key, f)?;
                    f.write_str(": ")?;
                    value.fmt(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Writes a string in quotes.
fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    /// `null` for `None`.
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<K: Into<String>, V: Into<Json>> From<BTreeMap<K, V>> for Json {
    fn from(fields: BTreeMap<K, V>) -> Self {
        fields.into_iter().collect()
    }
}

/// An array.
impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

/// An object, its keys in the order of the iterator.
impl<K: Into<String>, V: Into<Json>> FromIterator<(K, V)> for Json {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

macro_rules! from_integer {
    ($($type:ty)*) => {$(
        impl From<$type> for Json {
            fn from(value: $type) -> Self {
                Self::Int(value.into())
            }
        }
    )*};
}

from_integer!(i32 i64 i128 u32 u64);

impl From<f64> for Json {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl FromStr for Json {
    type Err = JsonError;

    /// Parses a JSON text (RFC 8259) of at most [`JSON_BYTES_MAX`] bytes, with arrays and objects nested up
    /// to 64 levels.
    fn from_str(text: &str) -> Result<Self, JsonError> {
        if text.len() > JSON_BYTES_MAX {
            return Err(JsonError {
                offset: JSON_BYTES_MAX,
                problem: "the text exceeds the limit of 16 MiB",
            });
        }
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(DEPTH_MAX)?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.error("unexpected text after the value"));
        }
        Ok(value)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, problem: &'static str) -> JsonError {
        JsonError { offset: self.at, problem }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Consumes `text` if it comes next.
    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.space();
        match self.peek() {
            None => Err(self.error("the text ends where a value is expected")),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'[' | b'{') if depth == 0 => {
                Err(self.error("arrays and objects are nested more than 64 levels deep"))
            }
            Some(b'[') => self.array(depth - 1),
            Some(b'{') => self.object(depth - 1),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) if self.take("null") => Ok(Json::Null),
            Some(_) if self.take("true") => Ok(Json::Bool(true)),
            Some(_) if self.take("false") => Ok(Json::Bool(false)),
            Some(_) => Err(self.error("a value is expected")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            if !self.take(",") {
                return Err(self.error("',' or ']' is expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut fields = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotes is expected"));
            }
            let key = self.string()?;
            self.space();
            if !self.take(":") {
                return Err(self.error("':' is expected"));
            }
            fields.push((key, self.value(depth)?));
            self.space();
            if self.take("}") {
                return Ok(Json::Object(fields));
            }
            if !self.take(",") {
                return Err(self.error("',' or '}' is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        self.take("-");
        let first = self.at;
        let digits = self.digits()?;
        if digits > 1 && self.text.as_bytes().get(first) == Some(&b'0') {
            return Err(JsonError { offset: first, problem: "a number has a leading 0" });
        }
        let mut whole = true;
        if self.take(".") {
            whole = false;
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            whole = false;
            let _ = self.take("+") || self.take("-");
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let out_of_range = JsonError { offset: start, problem: "a number is out of range" };
        if whole {
            return text.parse().map(Json::Int).map_err(|_| out_of_range);
        }
        text.parse().ok().filter(|x: &f64| x.is_finite()).map(Json::Float).ok_or(out_of_range)
    }

    /// Reads at least one digit, and returns the number of digits.
    fn digits(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("a digit is expected")) } else { Ok(self.at - start) }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.rest().find(|c: char| c == '"' || c == '\\' || c < ' ');
            let Some(plain) = plain else {
                self.at = self.text.len();
                return Err(self.error("the text ends within a string"));
            };
            out.push_str(self.rest().get(..plain).unwrap_or_default());
            self.at += plain;
            if self.take("\"") {
                return Ok(out);
            }
            if !self.take("\\") {
                return Err(self.error("a control character in a string is not escaped"));
            }
            out.push(self.escape()?);
        }
    }

    /// The character of an escape sequence, read after its backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(kind) = self.peek() else { return Err(self.error("the text ends within a string")) };
        let plain = match kind {
            b'"' | b'\\' | b'/' => kind as char,
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                let first = self.hex()?;
                if !(0xD800..0xDC00).contains(&first) {
                    return char::from_u32(first).ok_or(self.error("half of a surrogate pair"));
                }
                if !self.take("\\u") {
                    return Err(self.error("half of a surrogate pair"));
                }
                let second = self.hex()?;
                let low = second.checked_sub(0xDC00).filter(|&low| low < 0x400);
                let both = low.and_then(|low| char::from_u32(0x10000 + ((first - 0xD800) << 10) + low));
                return both.ok_or(self.error("half of a surrogate pair"));
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let value = value.ok_or(self.error("four hexadecimal digits are expected"))?;
        self.at += 4;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, &'static str) {
        let error = text.parse::<Json>().unwrap_err();
        (error.offset, error.problem)
    }

    #[test]
    fn values_are_read() {
        let value: Json =
            r#" {"a": [1, -2.5e1, true, false, null], "b": {}, "c": [], "a": "ü\n\u00e9\ud83d\ude00\/"} "#
                .parse()
                .unwrap();
        assert_eq!(value.get("a").unwrap().as_str(), Some("ü\né😀/"));
        let Json::Object(fields) = &value else { panic!() };
        assert_eq!(fields.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "a"]);
        let numbers = [Json::Int(1), Json::Float(-25.0), Json::Bool(true), Json::Bool(false), Json::Null];
        assert_eq!(fields[0].1.as_array().unwrap(), numbers);
        assert_eq!("18446744073709551616".parse(), Ok(Json::Int(1 << 64)));
        assert_eq!("-0".parse(), Ok(Json::Int(0)));
    }

    #[test]
    fn errors_name_the_place() {
        assert_eq!(error(""), (0, "the text ends where a value is expected"));
        assert_eq!(error("[1,]"), (3, "a value is expected"));
        assert_eq!(error("[1 2]"), (3, "',' or ']' is expected"));
        assert_eq!(error("{a: 1}"), (1, "a key in quotes is expected"));
        assert_eq!(error("{\"a\" 1}"), (5, "':' is expected"));
        assert_eq!(error("01"), (0, "a number has a leading 0"));
        assert_eq!(error("-"), (1, "a digit is expected"));
        assert_eq!(error("1."), (2, "a digit is expected"));
        assert_eq!(error("1e999"), (0, "a number is out of range"));
        assert_eq!(error(&"9".repeat(60)), (0, "a number is out of range"));
        assert_eq!(error("\"a"), (2, "the text ends within a string"));
        assert_eq!(error("\"a\n\""), (2, "a control character in a string is not escaped"));
        assert_eq!(error(r#""\x""#), (2, "an unknown escape"));
        assert_eq!(error(r#""\u12g4""#), (3, "four hexadecimal digits are expected"));
        assert_eq!(error(r#""\u12é""#), (3, "four hexadecimal digits are expected"));
        assert_eq!(error(r#""\ud800""#), (7, "half of a surrogate pair"));
        assert_eq!(error(r#""\ud800\ud800""#), (13, "half of a surrogate pair"));
        assert_eq!(error(r#""\udc00""#), (7, "half of a surrogate pair"));
        assert_eq!(error("1 2"), (2, "unexpected text after the value"));
        assert_eq!(error("NaN"), (0, "a value is expected"));
        assert_eq!(
            error(&"[".repeat(1_000_000)),
            (64, "arrays and objects are nested more than 64 levels deep")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:0-9eE+\\-.truefalsn\\\\ud8é ]{0,40}") {
            let _ = text.parse::<Json>();
        }
    }
}
