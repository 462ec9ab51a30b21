//! Values as Python writes them: `str` and `repr`.

use super::markers::is_marker;
use super::tojson::float;
use crate::tokenizer::unicode::is_printable;
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::borrow::Cow;
use std::fmt::Write;

/// Maximum nesting of lists and dicts that are written.
const DEPTH_MAX: usize = 500;

/// A float, which Python writes in its own way.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// `str(value)`, as Jinja2 converts the operand of a string filter (its `soft_str`).
pub(super) fn soft_str(value: &Value) -> Result<Cow<'_, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    if value.is_undefined() {
        return Ok(Cow::Borrowed(""));
    }
    let mut out = String::new();
    repr(value, DEPTH_MAX, &mut out)?;
    Ok(Cow::Owned(out))
}

/// Appends `repr(value)`.
fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::new(ErrorKind::InvalidOperation, "lists and dicts are nested too deeply"));
    };
    match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), out),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number if !value.is_integer() => match as_float(value) {
            Some(x) if x.is_nan() => out.push_str("nan"),
            Some(x) if x.is_infinite() => out.push_str(if x > 0.0 { "inf" } else { "-inf" }),
            Some(x) => out.push_str(&float(x)),
            None => out.push_str(&value.to_string()),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
            let (open, close) = if is_tuple { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter()? {
                if count > 0 {
                    out.push_str(", ");
                }
                count += 1;
                repr(&item, depth, out)?;
            }
            if is_tuple && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&key, depth, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth, out)?;
            }
            out.push('}');
        }
        // Writing to a String cannot fail.
        _ => drop(write!(out, "{value}")),
    }
    Ok(())
}

/// Appends `repr(text)`.
fn string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            // Markers are kept, and removed after rendering.
            c if is_printable(c) || is_marker(c) => out.push(c),
            c => {
                let code = c as u32;
                // Writing to a String cannot fail.
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}
