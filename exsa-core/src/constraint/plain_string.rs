//! Strings of a JSON schema as plain text, without quotes and escapes: arguments of tool calls in tags.
//!
//! Each restriction of a schema becomes a regular expression; the string has to match all of them.

use super::error::ConstraintError;
use super::guard::guard;
use super::{lark, schema, source};
use crate::chat::Json;
use llguidance::derivre::RegexBuilder;
use std::cell::Cell;

/// Maximum nesting of references and combined schemas.
const DEPTH_MAX: usize = 32;
/// Maximum schemas read for a string; a schema that is referenced several times is counted each time.
const SCHEMAS_MAX: usize = 2000;

/// The texts that a schema allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainString {
    /// An expression of Lark terminals.
    pub(crate) source: String,
    /// Whether the empty text is among them.
    pub(crate) nullable: bool,
}

impl PlainString {
    /// Any text.
    pub(crate) fn any() -> Self {
        Self { source: "/(?s:.*)/".to_owned(), nullable: true }
    }

    /// The strings allowed by `schema`, a part of the schema `root` at `path`.
    ///
    /// # Errors
    ///
    /// The schema has a keyword that is not supported for plain text, or allows no string.
    pub(crate) fn of(schema: &Json, root: &Json, path: &str) -> Result<Self, ConstraintError> {
        source::checked_json(schema)?;
        let reader = Reader { root, schemas: Cell::new(0) };
        reader.read(schema, path, 0)?.ok_or_else(|| invalid(path, "no string is allowed"))
    }

    fn regex(regex: &str, path: &str) -> Result<Self, ConstraintError> {
        lark::check_depth(regex, "JSON schema")?;
        let nullable = guard(|| {
            let mut builder = RegexBuilder::new();
            builder.mk_regex(regex).map(|regex| builder.is_nullable(regex))
        })?;
        let nullable = nullable.map_err(|error| invalid(path, &format!("the pattern '{regex}': {error}")))?;
        Ok(Self { source: format!("/{}/", llguidance::regex_to_lark(regex, "dw")), nullable })
    }

    /// One of the texts; `None` without any.
    fn choice(texts: &[&str]) -> Option<Self> {
        let source: Vec<String> = texts.iter().map(|text| lark::quoted(text)).collect();
        let nullable = texts.iter().any(|text| text.is_empty());
        (!source.is_empty()).then(|| Self { source: source.join(" | "), nullable })
    }

    /// Texts of all of `parts`.
    fn all(parts: Vec<Self>) -> Self {
        let nullable = parts.iter().all(|part| part.nullable);
        match <[Self; 1]>::try_from(parts) {
            Ok([part]) => part,
            Err(parts) if parts.is_empty() => Self::any(),
            Err(parts) => Self { source: joined(&parts, " & "), nullable },
        }
    }
}

fn joined(parts: &[PlainString], by: &str) -> String {
    parts.iter().map(|part| format!("({})", part.source)).collect::<Vec<_>>().join(by)
}

struct Reader<'a> {
    root: &'a Json,
    /// Schemas read so far.
    schemas: Cell<usize>,
}

impl Reader<'_> {
    /// The strings of a schema; `None` without any.
    fn read(&self, schema: &Json, path: &str, depth: usize) -> Result<Option<PlainString>, ConstraintError> {
        let limit = |limit, max: usize| {
            let max = max as u64;
            Err(ConstraintError::Limit { grammar: "JSON schema", limit, max })
        };
        self.schemas.set(self.schemas.get() + 1);
        if depth > DEPTH_MAX {
            return limit("levels of schemas in a string's schema", DEPTH_MAX);
        }
        if self.schemas.get() > SCHEMAS_MAX {
            return limit("schemas in a string's schema", SCHEMAS_MAX);
        }
        let fields = match schema {
            Json::Bool(allowed) => return Ok(allowed.then(PlainString::any)),
            Json::Object(fields) => fields,
            _ => return Err(invalid(path, "a schema must be an object or a boolean")),
        };
        let mut parts = Vec::new();
        for (keyword, value) in fields {
            let below = || format!("{path}/{keyword}");
            let part = match keyword.as_str() {
                "type" => match has_string(value) {
                    true => continue,
                    false => None,
                },
                "const" => PlainString::choice(&texts(std::slice::from_ref(value))),
                "enum" => PlainString::choice(&texts(value.as_array().unwrap_or_default())),
                "pattern" => Some(self.pattern(value, path)?),
                "format" => Some(format(value, path)?),
                // Both are in one expression.
                "minLength" if schema.get("maxLength").is_some() => continue,
                "minLength" | "maxLength" => Some(length(schema, path)?),
                "$ref" => self.read(self.target(value, path)?, &below(), depth + 1)?,
                "allOf" => {
                    let all = self.each(value, &below(), depth)?;
                    let all: Option<Vec<_>> = all.into_iter().collect();
                    all.map(PlainString::all)
                }
                "anyOf" => self.any_of(value, &below(), depth)?,
                "oneOf" if is_disjoint(value) => self.any_of(value, &below(), depth)?,
                "oneOf" => {
                    return Err(ConstraintError::Keyword { keyword: keyword.clone(), path: path.to_owned() });
                }
                // Annotations, and restrictions of other types.
                _ => continue,
            };
            match part {
                Some(part) => parts.push(part),
                None => return Ok(None),
            }
        }
        Ok(Some(PlainString::all(parts)))
    }

    fn each(
        &self,
        schemas: &Json,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Option<PlainString>>, ConstraintError> {
        let schemas = schemas.as_array().ok_or_else(|| invalid(path, "a list of schemas is required"))?;
        schemas.iter().enumerate().map(|(i, one)| self.read(one, &format!("{path}/{i}"), depth + 1)).collect()
    }

    fn any_of(
        &self,
        schemas: &Json,
        path: &str,
        depth: usize,
    ) -> Result<Option<PlainString>, ConstraintError> {
        let options: Vec<_> = self.each(schemas, path, depth)?.into_iter().flatten().collect();
        let nullable = options.iter().any(|option| option.nullable);
        Ok((!options.is_empty()).then(|| PlainString { source: joined(&options, " | "), nullable }))
    }

    fn target(&self, reference: &Json, path: &str) -> Result<&Json, ConstraintError> {
        let reference = reference.as_str().unwrap_or_default();
        super::reference::target(self.root, reference).ok_or_else(|| {
            invalid(path, &format!("the target of the reference '{reference}' does not exist"))
        })
    }

    fn pattern(&self, pattern: &Json, path: &str) -> Result<PlainString, ConstraintError> {
        let pattern = pattern.as_str().ok_or_else(|| invalid(path, "pattern is not a string"))?;
        PlainString::regex(&whole(pattern), path)
    }
}

fn invalid(path: &str, problem: &str) -> ConstraintError {
    ConstraintError::Invalid { grammar: "JSON schema", problem: format!("{path}: {problem}") }
}

fn has_string(types: &Json) -> bool {
    match types {
        Json::Array(types) => types.iter().any(|one| one.as_str() == Some("string")),
        one => one.as_str() == Some("string"),
    }
}

fn texts(values: &[Json]) -> Vec<&str> {
    values.iter().filter_map(Json::as_str).collect()
}

/// Whether the alternatives are lists of values, without duplicates.
fn is_disjoint(schemas: &Json) -> bool {
    let mut all = Vec::new();
    for schema in schemas.as_array().unwrap_or_default() {
        match (schema.get("const"), schema.get("enum").and_then(Json::as_array)) {
            (Some(value), _) => all.push(value),
            (None, Some(values)) => all.extend(values),
            (None, None) => return false,
        }
    }
    let mut texts: Vec<&str> = all.iter().filter_map(|value| value.as_str()).collect();
    texts.sort_unstable();
    texts.windows(2).all(|pair| pair[0] != pair[1])
}

fn length(schema: &Json, path: &str) -> Result<PlainString, ConstraintError> {
    let bound = |keyword: &str| match schema.get(keyword) {
        None => Ok(None),
        Some(Json::Int(bound)) => u32::try_from(*bound).map(Some).map_err(|_| keyword.to_owned()),
        Some(Json::Float(bound)) if bound.fract() == 0.0 && (0.0..1e9).contains(bound) => {
            Ok(Some(*bound as u32))
        }
        Some(_) => Err(keyword.to_owned()),
    };
    let wrong = |keyword: String| invalid(path, &format!("{keyword} is not a number of characters"));
    let (min, max) = (bound("minLength").map_err(wrong)?, bound("maxLength").map_err(wrong)?);
    let min = min.unwrap_or(0);
    if max.is_some_and(|max| max < min) {
        return Err(invalid(path, "maxLength is below minLength"));
    }
    let max = max.map(|max| max.to_string()).unwrap_or_default();
    PlainString::regex(&format!("(?s:.{{{min},{max}}})"), path)
}

/// Converts a pattern, which may match anywhere in a text, to an expression that matches the whole text.
/// Anchors may be at both ends of each alternative; elsewhere, the compiler refuses them.
fn whole(pattern: &str) -> String {
    let alternatives = alternatives(pattern).into_iter().map(|one| {
        let (before, one) = match one.strip_prefix('^') {
            Some(one) => ("", one),
            None => ("(?s:.*)", one),
        };
        let escapes = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count();
        match one.strip_suffix('$').filter(|one| escapes(one) % 2 == 0) {
            Some(one) => format!("{before}(?:{one})"),
            None => format!("{before}(?:{one})(?s:.*)"),
        }
    });
    alternatives.collect::<Vec<_>>().join("|")
}

/// The parts of a pattern between bars outside of brackets.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    let (mut escaped, mut in_class) = (false, false);
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b']' if in_class => in_class = false,
            _ if in_class => {}
            b'[' => in_class = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => {
                parts.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    parts
}

fn format(name: &Json, path: &str) -> Result<PlainString, ConstraintError> {
    let name = name.as_str().ok_or_else(|| invalid(path, "format is not a string"))?;
    let known = match name {
        "date" | "time" | "date-time" => schema::strict_format(name),
        "duration" => {
            let date = "[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?";
            let time = "T(?:[0-9]+S|[0-9]+M(?:[0-9]+S)?|[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?)";
            Some(format!("P(?:(?:{date})(?:{time})?|{time}|[0-9]+W)"))
        }
        "email" => {
            let word = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";
            Some(format!("{word}(?:\\.{word}){{0,2}}@{}", domain(5)))
        }
        "hostname" => Some(domain(3)),
        "ipv4" => Some(IPV4.to_owned()),
        "ipv6" => Some(ipv6()),
        "uuid" => Some("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}".to_owned()),
        "uri" => {
            let text = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*";
            let query = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*";
            let host = format!("//{}(?::[0-9]{{1,5}})?(?:/{text})?", domain(3));
            let path = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
            Some(format!("[A-Za-z][A-Za-z0-9+.-]*:(?:{host}|{path}{text})(?:\\?{query})?(?:#{query})?"))
        }
        _ => None,
    };
    let known = known.ok_or_else(|| invalid(path, &format!("the format '{name}' is not supported")))?;
    PlainString::regex(known.trim_start_matches('^').trim_end_matches('$'), path)
}

const IPV4: &str =
    "(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// Host names with up to this many labels after the first, each of at most 63 bytes; the last must not be all
/// digits.
fn domain(labels: usize) -> String {
    let label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
    format!("(?:{label}\\.){{0,{labels}}}[A-Za-z](?:[A-Za-z0-9]{{0,30}})")
}

/// Eight groups, or fewer with one gap.
fn ipv6() -> String {
    let group = "[0-9a-fA-F]{1,4}";
    let gaps = (0..=6).map(|before| {
        let head = if before == 0 { String::new() } else { format!("{group}(?::{group}){{{}}}", before - 1) };
        let after = 7 - before;
        format!("{head}::(?:{group}(?::{group}){{0,{}}})?", after - 1)
    });
    let gaps: Vec<String> = gaps.collect();
    format!("(?:{group}:){{7}}{group}|(?:{group}:){{7}}:|{}", gaps.join("|"))
}
