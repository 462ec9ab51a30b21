//! Behaviour of Python's values where minijinja's differ: methods, filters, and the text of numbers.

use super::marked::Marked;
use super::markers::{Marking, is_marker};
use super::repr::{as_float, soft_str};
use super::source::PLAIN;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter, filters};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::borrow::Cow;
use std::sync::Arc;

/// Makes the values of an environment behave like Python's.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.set_formatter(format);
    // The filters that Jinja2 passes `soft_str(value)` to.
    environment.add_filter("upper", |value: &Value| Ok::<_, Error>(soft_str(value)?.to_uppercase()));
    environment.add_filter("lower", |value: &Value| Ok::<_, Error>(soft_str(value)?.to_lowercase()));
    environment.add_filter("capitalize", capitalize);
    environment.add_filter("title", |value: &Value| soft_str(value).map(filters::title));
    environment.add_filter("center", center);
    environment.add_filter("indent", indent);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("format", format_filter);
    environment.add_filter("join", join);
    for name in ["escape", "e", "forceescape"] {
        environment.add_filter(name, escape);
    }
    environment.add_filter("string", string);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", to_float);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
}

/// Makes string methods and filters ignore the markers of a conversation.
pub(super) fn install_marking(environment: &mut Environment<'_>, marking: &Arc<Marking>) {
    install_comparisons(environment, marking);
    let of_methods = Arc::clone(marking);
    environment.set_unknown_method_callback(move |state, value, name, args| {
        method(state, &of_methods, value, name, args)
    });
    let of_trim = Arc::clone(marking);
    environment.add_filter("trim", move |value: &Value, chars: Option<&str>| {
        let text = soft_str(value)?;
        let marked = Marked::new(&text, &of_trim);
        let chars = chars.map(|chars| plain(&of_trim, chars));
        let trimmed = marked.plain().trim_matches(|c| strips(c, chars.as_deref()));
        Ok::<_, Error>(marked.part(trimmed).into_owned())
    });
    let of_replace = Arc::clone(marking);
    environment.add_filter(
        "replace",
        move |state: &State, value: &Value, old: &Value, new: &Value, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            let (count, named): (Option<i64>, Kwargs) = from_args(&args)?;
            let count = count.or(named.get("count")?);
            named.assert_all_used()?;
            replace(state, &of_replace, &soft_str(value)?, &soft_str(old)?, &soft_str(new)?, count)
        },
    );
}

/// Makes comparisons and lookups ignore the markers of a conversation. [`source`](super::source) passes
/// subscripts and the operands of `==`, `!=` and `in` through a filter; the tests of the same names, as used
/// by `selectattr`, remove the markers themselves.
fn install_comparisons(environment: &mut Environment<'_>, marking: &Arc<Marking>) {
    let of_filter = Arc::clone(marking);
    environment.add_filter(PLAIN, move |state: &State, value: &Value| {
        Ok::<_, Error>(
            unmarked(state, &of_filter, value, COMPARED_DEPTH_MAX)?.unwrap_or_else(|| value.clone()),
        )
    });
    for (name, equal) in [("eq", true), ("equalto", true), ("==", true), ("ne", false), ("!=", false)] {
        let marking = Arc::clone(marking);
        environment.add_test(name, move |state: &State, value: &Value, other: &Value| {
            let left = unmarked(state, &marking, value, COMPARED_DEPTH_MAX)?;
            let right = unmarked(state, &marking, other, COMPARED_DEPTH_MAX)?;
            Ok::<_, Error>((left.as_ref().unwrap_or(value) == right.as_ref().unwrap_or(other)) == equal)
        });
    }
    let of_in = Arc::clone(marking);
    environment.add_test("in", move |state: &State, value: &Value, container: &Value| {
        let left = unmarked(state, &of_in, value, COMPARED_DEPTH_MAX)?;
        let right = unmarked(state, &of_in, container, COMPARED_DEPTH_MAX)?;
        minijinja::tests::is_in(state, left.as_ref().unwrap_or(value), right.as_ref().unwrap_or(container))
    });
}

/// Maximum nesting of lists whose strings are compared without markers.
const COMPARED_DEPTH_MAX: usize = 16;

/// `value` without the markers of a string, or of the strings of a list; `None` if it has none.
fn unmarked(state: &State, marking: &Marking, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(marking.decode(text).map(|decoded| Value::from(decoded.plain)));
    }
    if depth == 0 || value.kind() != ValueKind::Seq {
        return Ok(None);
    }
    let mut items = Vec::new();
    let mut changed = false;
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        let new = unmarked(state, marking, &item, depth - 1)?;
        changed |= new.is_some();
        items.push(new.unwrap_or(item));
    }
    let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
    Ok(changed.then(|| if is_tuple { Value::from(Tuple::from(items)) } else { Value::from(items) }))
}

/// Writes a value as `{{ value }}` does.
fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            out.write_str(&soft_str(value)?).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

fn string(value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String { Ok(value.clone()) } else { Ok(Value::from(soft_str(value)?)) }
}

/// The first character in upper case, the others in lower case.
fn capitalize(value: &Value) -> Result<String, Error> {
    let text = soft_str(value)?;
    let (markers, rest) = text.split_at(text.find(|c| !is_marker(c)).unwrap_or(text.len()));
    let mut chars = rest.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    Ok(format!("{markers}{first}{}", chars.as_str().to_lowercase()))
}

/// `center(value, width=80)`: Python's `str.center`.
fn center(state: &State, value: &Value, width: Option<usize>, args: Kwargs) -> Result<String, Error> {
    let width = width.or(args.get("width")?).unwrap_or(80);
    args.assert_all_used()?;
    let text = soft_str(value)?;
    let fill = width.saturating_sub(text.chars().filter(|c| !is_marker(*c)).count());
    state.consume_fuel((fill / 64) as u64)?;
    let before = fill / 2 + (fill & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(fill - before)))
}

/// `indent(value, width=4, first=false, blank=false)`: indents all lines, or all but the first, by spaces or
/// a given text; empty lines only with `blank`.
fn indent(state: &State, text: &str, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (width, first, blank, named): (Option<Value>, Option<bool>, Option<bool>, Kwargs) = from_args(&args)?;
    let width = width.or(named.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(i64::try_from(width)?.max(0)).unwrap_or(usize::MAX);
            state.consume_fuel((width / 64) as u64)?;
            " ".repeat(width)
        }
    };
    // Jinja2 adds a line end, so that a text with a final line end has an empty last line.
    let text = format!("{text}\n");
    let lines = lines(&text, false);
    state.consume_fuel((lines.len().saturating_mul(indention.len()) / 64) as u64)?;
    let mut out = String::new();
    for (i, line) in lines.into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let is_empty = line.chars().all(is_marker);
        if if i == 0 { first } else { blank || !is_empty } {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Runs of letters, digits and underscores.
fn wordcount(value: &Value) -> Result<usize, Error> {
    let text = without_markers(&soft_str(value)?);
    Ok(text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count())
}

/// `%` of a string, with the value as the string.
fn format_filter(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let text = string(value)?;
    filters::format(state, &text, args)
}

/// HTML's signs as MarkupSafe escapes them.
fn escape(value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let mut out = String::new();
    for c in soft_str(value)?.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Ok(Value::from_safe_string(out))
}

/// `join(value, d='', attribute=none)`
fn join(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "join: none is not iterable"));
    }
    let args = args.into_values();
    let (given, named) = match args.split_last() {
        Some((last, given)) if last.is_kwargs() => (given, Kwargs::try_from(last.clone())?),
        _ => (args.as_slice(), Kwargs::from_iter::<[(&str, Value); 0]>([])),
    };
    let argument = |at: usize, name| match given.get(at) {
        Some(value) => Ok(Some(value.clone())),
        None if named.has(name) => named.get(name).map(Some),
        None => Ok(None),
    };
    let separator = argument(0, "d")?.unwrap_or_else(|| Value::from(""));
    let attribute = argument(1, "attribute")?.filter(|name: &Value| !name.is_none());
    named.assert_all_used()?;
    let separator = soft_str(&separator)?;
    let mut out = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        let item = match &attribute {
            Some(path) => attribute_of(&item, path)?,
            None => item,
        };
        if i > 0 {
            out.push_str(&separator);
        }
        let text = soft_str(&item)?;
        state.consume_fuel(1 + ((separator.len() + text.len()) / 64) as u64)?;
        out.push_str(&text);
    }
    Ok(out)
}

/// An attribute or item of a value, by name, index or dotted path.
fn attribute_of(value: &Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else { return value.get_item(path) };
    path.split('.').try_fold(value.clone(), |value, name| match name.parse::<usize>() {
        Ok(index) => value.get_item(&Value::from(index)),
        Err(_) => value.get_attr(name),
    })
}

/// Replaces `old` by `new`, at most `count` times unless negative. The steps are counted before the string
/// grows.
fn replace(
    state: &State,
    marking: &Marking,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<String, Error> {
    let old = plain(marking, old);
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let matches_max = (text.len() / old.len().max(1) + 1).min(count);
    let growth = matches_max.saturating_mul(new.len().saturating_sub(old.len()));
    state.consume_fuel((growth / 64) as u64)?;
    Ok(Marked::new(text, marking).replace(&old, new, count))
}

/// A text without characters that could be markers, for numbers and words.
fn without_markers(text: &str) -> String {
    text.chars().filter(|c| !is_marker(*c)).collect()
}

/// A text without markers.
pub(super) fn plain<'a>(marking: &Marking, text: &'a str) -> Cow<'a, str> {
    marking.decode(text).map_or(Cow::Borrowed(text), |decoded| Cow::Owned(decoded.plain))
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

/// `int(value, default=0, base=10)`: the default if the value is not a number.
fn int(value: &Value, fallback: Option<Value>, base: Option<u32>, args: Kwargs) -> Result<Value, Error> {
    let fallback = fallback.or(args.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(args.get("base")?).unwrap_or(10);
    args.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(Error::new(ErrorKind::InvalidOperation, "int: the base must be from 2 to 36"));
    }
    let number = match value.as_str() {
        Some(text) => {
            let text = without_markers(text);
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

/// `float(value, default=0.0)`: the default if the value is not a number.
fn to_float(value: &Value, fallback: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    let fallback = fallback.or(args.get("default")?).unwrap_or_else(|| Value::from(0.0));
    args.assert_all_used()?;
    let number = match value.as_str() {
        Some(text) => without_markers(text).trim_matches(is_space).parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or(fallback, |x: f64| Value::from(x)))
}

/// Whether a value has a length and items, as also strings, dicts and undefined values have.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
}

/// Whether a loop can iterate over a value; an undefined value has no items.
fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// Calls a method of Python's `str`, `dict` or `list` on a value.
fn method(
    state: &mut State,
    marking: &Marking,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        // A key in the template is also found by the same text from a user.
        if let ("get", ValueKind::Map, [key, ..]) = (method, value.kind(), args) {
            let found = value.get_item(key)?;
            let new = if found.is_undefined() { unmarked(state, marking, key, 0)? } else { None };
            if let Some(found) =
                new.map(|key| value.get_item(&key)).transpose()?.filter(|v| !v.is_undefined())
            {
                return Ok(found);
            }
        }
        return unknown_method_callback(state, value, method, args);
    };
    let marked = Marked::new(text, marking);
    match string_method(state, marking, &marked, method, args) {
        Err(error) if error.kind() == ErrorKind::UnknownMethod => {}
        result => return result,
    }
    // Methods that only inspect a text work on the text without markers.
    let asks = method.starts_with("is") || matches!(method, "startswith" | "endswith" | "count");
    if !asks {
        return unknown_method_callback(state, value, method, args);
    }
    let without = |value: &Value| match value.as_str() {
        Some(text) => Value::from(plain(marking, text)),
        None => value.clone(),
    };
    let args: Vec<Value> = args.iter().map(without).collect();
    unknown_method_callback(state, &Value::from(marked.plain()), method, &args)
}

/// White space by Python's definition: Unicode white space and four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// Whether `strip` with this argument removes `c`.
fn strips(c: char, chars: Option<&str>) -> bool {
    chars.map_or_else(|| is_space(c), |chars| chars.contains(c))
}

/// String methods that minijinja's own collection lacks or defines with a different notion of white space,
/// and methods that return parts of the text.
fn string_method(
    state: &State,
    marking: &Marking,
    marked: &Marked<'_>,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = marked.plain();
    let part = |part: &str| Value::from(marked.part(part));
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let chars = chars.map(|chars| plain(marking, chars));
            let strips = |c| strips(c, chars.as_deref());
            Ok(part(match method {
                "strip" => text.trim_matches(strips),
                "lstrip" => text.trim_start_matches(strips),
                _ => text.trim_end_matches(strips),
            }))
        }
        "split" | "rsplit" => {
            let (separator, splits_max, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?).map(|separator| plain(marking, separator));
            let splits_max = splits_max.or(named.get("maxsplit")?);
            named.assert_all_used()?;
            let splits_max = splits_max.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            let pieces_max = splits_max.saturating_add(1);
            let mut pieces: Vec<&str> = match (separator.as_deref(), method) {
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
            Ok(pieces.into_iter().map(part).collect())
        }
        "splitlines" => {
            let (keep_ends, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep_ends = keep_ends.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            Ok(lines(text, keep_ends).into_iter().map(part).collect())
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let old = plain(marking, old);
            replace(state, marking, marked.text(), &old, new, count).map(Value::from)
        }
        "isspace" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(is_space)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(part(text.strip_prefix(&*plain(marking, prefix)).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(part(text.strip_suffix(&*plain(marking, suffix)).unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let plain = plain(marking, separator);
            let (found, missing) = match method {
                "partition" => (text.split_once(&*plain), [part(text), "".into(), "".into()]),
                _ => (text.rsplit_once(&*plain), ["".into(), "".into(), part(text)]),
            };
            let parts =
                found.map_or(missing, |(before, after)| [part(before), separator.into(), part(after)]);
            Ok(Value::from(Tuple::from(parts)))
        }
        "find" | "rfind" | "index" => {
            let (what,): (&str,) = from_args(args)?;
            let what = plain(marking, what);
            let at = if method == "rfind" { text.rfind(&*what) } else { text.find(&*what) };
            match at {
                Some(at) => Ok(Value::from(marked.char_index(at))),
                None if method != "index" => Ok(Value::from(-1)),
                None => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
            }
        }
        "casefold" => {
            let () = from_args(args)?;
            Ok(Value::from(marked.text().to_lowercase()))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The words of a text; after `splits_max` words, the rest.
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

/// The words of a text, last first; after `splits_max` words, the text before them.
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

/// The lines of a text, split at all of Python's line boundaries.
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
