//! The filter `tojson`, with the result of Python's `json.dumps`.

use super::markers::is_marker;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

/// Maximum nesting of values that are written.
const DEPTH_MAX: usize = 100;

/// How JSON is written.
struct Style {
    /// Whether characters outside ASCII are escaped.
    ensure_ascii: bool,
    /// Indentation of each level of depth; `None` writes all on one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, as transformers defines it.
pub(super) fn tojson(state: &State, value: &Value, args: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = args.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(usize::try_from(i64::try_from(indent)?.clamp(0, 32)).unwrap_or(0))),
        },
    };
    let separators: Option<Value> = args.get("separators")?;
    let (item_separator, key_separator) = match separators.filter(|separators| !separators.is_none()) {
        Some(separators) => {
            let part = |i: usize| -> Result<String, Error> {
                let part = separators.get_item(&Value::from(i))?;
                part.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| invalid("tojson: separators must be two strings"))
            };
            (part(0)?, part(1)?)
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Style {
        ensure_ascii: args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: args.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    args.assert_all_used()?;
    let mut out = String::new();
    let mut writer = Writer { style, out: &mut out, state, charged: 0 };
    writer.value(value, 0)?;
    Ok(out)
}

fn invalid(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

struct Writer<'a, 'out> {
    style: Style,
    out: &'out mut String,
    state: &'a State<'a, 'a>,
    charged: usize,
}

impl Writer<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(invalid("tojson: values are nested too deeply"));
        }
        // The engine counts the steps of the result; this counts them while it grows.
        if self.out.len() - self.charged >= 4096 {
            self.state.consume_fuel(((self.out.len() - self.charged) / 64) as u64)?;
            self.charged = self.out.len();
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.array(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            kind => return Err(invalid(format!("tojson: a value of type {kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.between(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut fields = Vec::new();
        for key in value.try_iter()? {
            let field = value.get_item(&key)?;
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                ValueKind::None => "null".to_owned(),
                ValueKind::Number => number(&key),
                kind => {
                    return Err(invalid(format!("tojson: a key of type {kind} cannot be written as JSON")));
                }
            };
            fields.push((name, field));
        }
        if self.style.sort_keys {
            // The order of characters equals that of their UTF-8 bytes.
            fields.sort_by(|a, b| {
                let chars = |name: &'_ str| name.chars().filter(|c| !is_marker(*c)).collect::<Vec<char>>();
                chars(&a.0).cmp(&chars(&b.0))
            });
        }
        self.out.push('{');
        for (i, (name, field)) in fields.iter().enumerate() {
            self.between(i == 0, depth + 1);
            self.string(name);
            self.out.push_str(&self.style.key_separator);
            self.value(field, depth + 1)?;
        }
        self.close(fields.is_empty(), depth, '}');
        Ok(())
    }

    /// Writes the separator before an item.
    fn between(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.style.item_separator);
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn number(&mut self, value: &Value) {
        self.out.push_str(&number(value));
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{C}' => self.out.push_str("\\f"),
                // Markers are kept, and removed after rendering.
                c if c < ' ' || self.style.ensure_ascii && c > '~' && !is_marker(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python's `repr` writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) => float(x),
        Err(_) => value.to_string(),
    }
}

/// A float as Python's `json` writes it.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // The same digits and the same switch to an exponent as in Python, whose exponents have a sign and two
    // digits.
    let text = format!("{x:?}");
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_in_python() {
        for (x, want) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(x), want);
        }
    }
}
