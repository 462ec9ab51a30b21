//! Lark source: literals, and checks before it is passed to llguidance's recursive parser.

use super::error::ConstraintError;
use super::limits;

/// A text as a Lark literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A regular expression for use between slashes. Anchors around the whole expression are removed, since the
/// whole text must match anyway.
pub(super) fn regex(regex: &str) -> Result<String, ConstraintError> {
    let grammar = "regex";
    if regex.len() > limits::GRAMMAR_BYTES_MAX {
        let max = limits::GRAMMAR_BYTES_MAX as u64;
        return Err(ConstraintError::Limit { grammar, limit: "bytes", max });
    }
    check_depth(regex, grammar)?;
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let inner = match inner.strip_suffix('$') {
        Some(body) if body.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0 => body,
        _ => inner,
    };
    // If only some alternatives have an anchor, it must not be removed.
    let inner = if inner.len() < regex.len() && inner.contains('|') { regex } else { inner };
    if inner.is_empty() {
        let problem = "it only matches the empty text".to_owned();
        return Err(ConstraintError::Invalid { grammar, problem });
    }
    Ok(llguidance::regex_to_lark(inner, ""))
}

/// Checks a grammar before it is parsed.
pub(super) fn check(source: &str, grammar: &'static str) -> Result<(), ConstraintError> {
    let limit = |limit, max: usize| ConstraintError::Limit { grammar, limit, max: max as u64 };
    if source.len() > limits::GRAMMAR_BYTES_MAX {
        return Err(limit("bytes", limits::GRAMMAR_BYTES_MAX));
    }
    check_depth(source, grammar)?;
    if source.lines().filter(|line| line.contains(':')).count() > limits::RULES_MAX {
        return Err(limit("rules", limits::RULES_MAX));
    }
    // Its options could disable parts of a schema.
    if source.contains("x-guidance") || unescaped(source).contains("x-guidance") {
        let problem = "x-guidance is not supported".to_owned();
        return Err(ConstraintError::Invalid { grammar, problem });
    }
    Ok(())
}

/// Checks the nesting of brackets.
pub(super) fn check_depth(source: &str, grammar: &'static str) -> Result<(), ConstraintError> {
    let max = limits::REGEX_DEPTH_MAX;
    match depth(source) > max {
        true => Err(ConstraintError::Limit { grammar, limit: "levels of nesting", max: max as u64 }),
        false => Ok(()),
    }
}

/// The text with JSON's `\u` escapes decoded; keys of a schema inside a grammar may have them.
fn unescaped(source: &str) -> String {
    let mut parts = source.split("\\u");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32) {
            Some(character) => {
                text.push(character);
                text.push_str(&part[4..]);
            }
            None => text.push_str(part),
        }
    }
    text
}

/// Upper bound on the nesting of brackets: quotes are ignored, so the result may be too large.
fn depth(source: &str) -> usize {
    let (mut depth, mut max) = (0usize, 0);
    let mut escaped = false;
    for byte in source.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' | b'[' | b'{' => {
                depth += 1;
                max = max.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    max
}
