//! What Python's values do and minijinja's do otherwise: methods, filters, and how numbers are written.

use super::tojson::float;
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Makes the values of an environment behave as Python's.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.set_formatter(format);
    environment.set_unknown_method_callback(method);
    environment.add_filter("trim", trim);
    environment.add_filter("string", string);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", to_float);
    environment.add_test("sequence", is_sequence);
}

/// A float, which Python writes in its own way.
fn as_float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// What `{{ value }}` writes.
fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match as_float(value) {
        Some(x) => out.write_str(&float(x)).map_err(Error::from),
        None => escape_formatter(out, state, value),
    }
}

fn string(value: &Value) -> Value {
    match as_float(value) {
        Some(x) => Value::from(float(x)),
        None if value.kind() == ValueKind::String => value.clone(),
        None => Value::from(value.to_string()),
    }
}

/// `default(value, default_value='', boolean=false)`
fn default(
    value: &Value,
    fallback: Option<Value>,
    boolean: Option<bool>,
    args: Kwargs,
) -> Result<Value, Error> {
    let fallback = fallback.or(args.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(args.get("boolean")?).unwrap_or(false);
    args.assert_all_used()?;
    let missing = value.is_undefined() || boolean && !value.is_true();
    Ok(if missing { fallback } else { value.clone() })
}

/// `int(value, default=0, base=10)`: the default where a value is no number.
fn int(value: &Value, fallback: Option<Value>, base: Option<u32>, args: Kwargs) -> Result<Value, Error> {
    let fallback = fallback.or(args.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(args.get("base")?).unwrap_or(10);
    args.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(Error::new(ErrorKind::InvalidOperation, "int: a base is from 2 to 36"));
    }
    let number = match value.as_str() {
        Some(text) => {
            let text = text.trim_matches(is_space);
            i128::from_str_radix(text, base).ok().or_else(|| text.parse().ok().and_then(truncate))
        }
        None => i128::try_from(value.clone()).ok().or_else(|| as_float(value).and_then(truncate)),
    };
    Ok(number.map_or(fallback, Value::from))
}

/// The integer part of a finite float.
fn truncate(x: f64) -> Option<i128> {
    x.is_finite().then_some(x as i128)
}

/// `float(value, default=0.0)`: the default where a value is no number.
fn to_float(value: &Value, fallback: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    let fallback = fallback.or(args.get("default")?).unwrap_or_else(|| Value::from(0.0));
    args.assert_all_used()?;
    let number = match value.as_str() {
        Some(text) => text.trim_matches(is_space).parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or(fallback, |x: f64| Value::from(x)))
}

/// Whether a value has a length and items, which strings and dicts have too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

/// Calls a method of Python's `str`, `dict` or `list` on a value.
fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match string_method(text, method, args) {
            Err(error) if error.kind() == ErrorKind::UnknownMethod => {
                unknown_method_callback(state, value, method, args)
            }
            result => result,
        },
        None => unknown_method_callback(state, value, method, args),
    }
}

/// The filter `trim`: Python's `strip`.
fn trim(text: &str, chars: Option<&str>) -> String {
    text.trim_matches(|c| strips(c, chars)).to_owned()
}

/// White space as Python sees it: what Unicode calls so, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// Whether `strip` takes `c` away, given its argument.
fn strips(c: char, chars: Option<&str>) -> bool {
    chars.map_or_else(|| is_space(c), |chars| chars.contains(c))
}

/// Those that minijinja's own collection does not have, or has with another notion of white space.
fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let strips = |c| strips(c, chars);
            Ok(Value::from(match method {
                "strip" => text.trim_matches(strips),
                "lstrip" => text.trim_start_matches(strips),
                _ => text.trim_end_matches(strips),
            }))
        }
        "split" | "rsplit" => {
            let (separator, splits_max, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?);
            let splits_max = splits_max.or(named.get("maxsplit")?);
            named.assert_all_used()?;
            let splits_max = splits_max.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            let pieces_max = splits_max.saturating_add(1);
            let mut pieces: Vec<&str> = match (separator, method) {
                (Some(""), _) => {
                    return Err(Error::new(ErrorKind::InvalidOperation, "split: empty separator"));
                }
                (Some(separator), "split") => text.splitn(pieces_max, separator).collect(),
                (Some(separator), _) => text.rsplitn(pieces_max, separator).collect(),
                (None, "split") => words(text, splits_max),
                (None, _) => last_words(text, splits_max),
            };
            if method == "rsplit" {
                pieces.reverse();
            }
            Ok(pieces.into_iter().map(Value::from).collect())
        }
        "splitlines" => {
            let (keep_ends, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep_ends = keep_ends.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            Ok(lines(text, keep_ends).into_iter().map(Value::from).collect())
        }
        "isspace" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(is_space)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(parts(text.split_once(separator), separator, [text, "", ""]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(parts(text.rsplit_once(separator), separator, ["", "", text]))
        }
        "index" => {
            let (what,): (&str,) = from_args(args)?;
            let at = text
                .find(what)
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Ok(Value::from(text[..at].chars().count()))
        }
        "casefold" => {
            let () = from_args(args)?;
            Ok(Value::from(text.to_lowercase()))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn parts(found: Option<(&str, &str)>, separator: &str, missing: [&str; 3]) -> Value {
    Value::from(Tuple::from(
        found.map_or(missing, |(before, after)| [before, separator, after]).map(Value::from),
    ))
}

/// The words of a text; after `splits_max` of them, what is left.
fn words(text: &str, splits_max: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() && pieces.len() < splits_max {
        let (word, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        pieces.push(word);
        rest = after.trim_start_matches(is_space);
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// The words of a text, last first; after `splits_max` of them, what stands before.
fn last_words(text: &str, splits_max: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() && pieces.len() < splits_max {
        let start =
            rest.char_indices().rev().find(|(_, c)| is_space(*c)).map_or(0, |(i, c)| i + c.len_utf8());
        let (before, word) = rest.split_at(start);
        pieces.push(word);
        rest = before.trim_end_matches(is_space);
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// The lines of a text, at all the line boundaries that Python knows.
fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let ends_line =
        |c: char| matches!(c, '\n'..='\r' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.find(ends_line).unwrap_or(rest.len());
        let end = match rest.get(line..) {
            Some(end) if end.starts_with("\r\n") => 2,
            Some(end) => end.chars().next().map_or(0, char::len_utf8),
            None => 0,
        };
        let (with_end, after) = rest.split_at(line + end);
        lines.push(if keep_ends { with_end } else { with_end.get(..line).unwrap_or_default() });
        rest = after;
    }
    lines
}
