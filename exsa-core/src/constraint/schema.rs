//! Checks of JSON schemas before they are compiled.
//!
//! llguidance ignores keywords that its draft does not define, and resolves references without regard to
//! nested `$id`s. Schemas that it would silently misinterpret are refused here, as are schemas that would
//! take too much work: its own limits do not count combinations of alternatives.

use super::error::ConstraintError;
use super::grammar::JsonSchema;
use crate::chat::Json;
use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Number, Value};

/// Unsupported keywords that restrict instances.
const UNSUPPORTED: [&str; 20] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    // OpenAPI's.
    "nullable",
    "discriminator",
];

/// Maximum combinations of alternatives, by `allOf` and similar keywords.
const COMBINATIONS_MAX: u64 = 10_000;
/// Maximum pairs of alternatives of `oneOf`, and of patterns of `patternProperties`, that must be disjoint.
const PAIRS_MAX: u64 = 250_000;
const PATTERN_PAIRS_MAX: u64 = 1000;
/// Maximum referenced schemas.
const REFERENCES_MAX: usize = 4000;

/// Drafts by the URI of their meta-schema, and whether `$ref` hides its sibling keywords.
const DRAFTS: [(&str, bool); 5] = [
    ("json-schema.org/draft-04/schema", true),
    ("json-schema.org/draft-06/schema", true),
    ("json-schema.org/draft-07/schema", true),
    ("json-schema.org/draft/2019-09/schema", false),
    ("json-schema.org/draft/2020-12/schema", false),
];

/// The schema as a value, if it is fully supported.
pub(super) fn check(text: &JsonSchema) -> Result<Value, ConstraintError> {
    let json = text.json().map_err(|error| invalid(error.to_string()))?;
    let mut root = value(&json);
    let draft =
        root.get("$schema").map(|draft| (draft.as_str().unwrap_or_default().to_owned(), draft.clone()));
    let hides = match draft {
        None => false,
        Some((address, _)) => {
            let bare = address.trim_end_matches('#');
            let bare = bare.trim_start_matches("https://").trim_start_matches("http://");
            let draft = DRAFTS.iter().find(|(known, _)| *known == bare);
            draft.ok_or_else(|| invalid(format!("#: the meta-schema '{address}' is not supported")))?.1
        }
    };
    if root.get("x-guidance").is_some() {
        return Err(keyword("x-guidance", "#"));
    }
    rewrite(&mut root, hides);
    let mut checker =
        Checker { root: &root, seen: HashSet::new(), widths: HashMap::new(), pairs: 0, pattern_pairs: 0 };
    checker.schema(&root, "#", true)?;
    checker.combinations(&root)?;
    drop(checker);
    Ok(root)
}

fn invalid(problem: String) -> ConstraintError {
    ConstraintError::Invalid { grammar: "JSON schema", problem }
}

fn keyword(keyword: &str, path: &str) -> ConstraintError {
    ConstraintError::Keyword { keyword: keyword.to_owned(), path: path.to_owned() }
}

fn limit(limit: &'static str, max: u64) -> ConstraintError {
    ConstraintError::Limit { grammar: "JSON schema", limit, max }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Int(value) => {
            let int = i64::try_from(*value).map(Number::from);
            let int = int.or_else(|_| u64::try_from(*value).map(Number::from)).ok();
            int.or_else(|| Number::from_f64(*value as f64)).map_or(Value::Null, Value::Number)
        }
        // 1.0 equals the integer 1, and is written as such.
        Json::Float(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => {
            Value::from(*value as i64)
        }
        Json::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), value(field)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

/// Removes keywords without effect: `uniqueItems: false`, and siblings of a `$ref` if it `hides` them. Adds
/// patterns for dates and times.
fn rewrite(schema: &mut Value, hides: bool) {
    let Value::Object(fields) = schema else { return };
    if hides && fields.get("$ref").is_some_and(Value::is_string) {
        fields.retain(|name, _| matches!(name.as_str(), "$ref" | "$defs" | "definitions" | "$schema"));
    }
    for (name, off) in [("uniqueItems", Value::Bool(false)), ("nullable", Value::Bool(false))] {
        if fields.get(name) == Some(&off) {
            fields.shift_remove(name);
        }
    }
    let strict = fields.get("format").and_then(Value::as_str).and_then(strict_format);
    if let Some(pattern) = strict {
        fields.shift_remove("format");
        if fields.contains_key("pattern") {
            let all = fields.entry("allOf").or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(all) = all {
                all.push(serde_json::json!({"pattern": pattern}));
            }
        } else {
            fields.insert("pattern".to_owned(), Value::String(pattern));
        }
    }
    for (name, field) in fields {
        match (children(name), field) {
            (Some(Children::Named), Value::Object(schemas)) => {
                schemas.values_mut().for_each(|schema| rewrite(schema, hides));
            }
            (Some(Children::Plain), Value::Array(schemas)) => {
                schemas.iter_mut().for_each(|schema| rewrite(schema, hides));
            }
            (Some(Children::Plain), schema) => rewrite(schema, hides),
            _ => {}
        }
    }
}

/// The pattern of a format that llguidance checks too loosely: dates must exist, and a leap second must end a
/// day in UTC (RFC 3339).
pub(super) fn strict_format(format: &str) -> Option<String> {
    let date = concat!(
        "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
        "|02-(?:0[1-9]|1[0-9]|2[0-8]))",
        "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
    );
    let time = concat!(
        "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?",
        "(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
        "|23:59:60(?:\\.[0-9]{1,9})?(?:[zZ]|[+-]00:00))"
    );
    match format {
        "date" => Some(format!("^{date}$")),
        "time" => Some(format!("^{time}$")),
        "date-time" => Some(format!("^{date}[tT]{time}$")),
        _ => None,
    }
}

/// The schemas in a keyword's value.
enum Children {
    /// The value is a schema or a list of schemas.
    Plain,
    /// The value is an object of schemas.
    Named,
}

fn children(keyword: &str) -> Option<Children> {
    match keyword {
        "allOf"
        | "anyOf"
        | "oneOf"
        | "items"
        | "prefixItems"
        | "additionalItems"
        | "additionalProperties" => Some(Children::Plain),
        "properties" | "patternProperties" | "$defs" | "definitions" => Some(Children::Named),
        _ => None,
    }
}

struct Checker<'a> {
    root: &'a Value,
    /// References followed so far.
    seen: HashSet<&'a str>,
    /// Number of alternatives by reference; 1 while it is being computed.
    widths: HashMap<&'a str, u64>,
    pairs: u64,
    pattern_pairs: u64,
}

impl<'a> Checker<'a> {
    /// Checks a schema, its subschemas, and the schemas that it references.
    fn schema(&mut self, schema: &'a Value, path: &str, is_root: bool) -> Result<(), ConstraintError> {
        let fields = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(fields) => fields,
            _ => return Err(invalid(format!("{path}: a schema must be an object or a boolean"))),
        };
        for (name, field) in fields {
            if UNSUPPORTED.contains(&name.as_str()) {
                return Err(keyword(name, path));
            }
            if !is_root && matches!(name.as_str(), "$id" | "id" | "$schema") && field.is_string() {
                return Err(keyword(name, path));
            }
            match name.as_str() {
                "$ref" => self.reference(field, path)?,
                // Checked when they are referenced.
                "$defs" | "definitions" => {}
                "oneOf" => self.pairs += field.as_array().map_or(0, |all| pairs(all.len())),
                "patternProperties" => {
                    self.pattern_pairs += field.as_object().map_or(0, |all| pairs(all.len()));
                }
                "minProperties" => check_min_properties(fields, path)?,
                _ => {}
            }
            if self.pairs > PAIRS_MAX {
                return Err(limit("pairs of alternatives in oneOf", PAIRS_MAX));
            }
            if self.pattern_pairs > PATTERN_PAIRS_MAX {
                return Err(limit("pairs of patterns in patternProperties", PATTERN_PAIRS_MAX));
            }
            let below = |key: &str| format!("{path}/{name}/{}", key.replace('~', "~0").replace('/', "~1"));
            match (children(name), field) {
                _ if matches!(name.as_str(), "$defs" | "definitions") => {}
                (Some(Children::Named), Value::Object(schemas)) => {
                    for (key, schema) in schemas {
                        self.schema(schema, &below(key), false)?;
                    }
                }
                (Some(Children::Plain), Value::Array(schemas)) => {
                    for (i, schema) in schemas.iter().enumerate() {
                        self.schema(schema, &below(&i.to_string()), false)?;
                    }
                }
                (Some(Children::Plain), schema) => self.schema(schema, &format!("{path}/{name}"), false)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn reference(&mut self, reference: &'a Value, path: &str) -> Result<(), ConstraintError> {
        let Value::String(reference) = reference else {
            return Err(invalid(format!("{path}: $ref is not a string")));
        };
        if !self.seen.insert(reference) {
            return Ok(());
        }
        if self.seen.len() > REFERENCES_MAX {
            return Err(limit("referenced schemas", REFERENCES_MAX as u64));
        }
        let target = self.target(reference).map_err(|problem| invalid(format!("{path}: {problem}")))?;
        self.schema(target, reference, reference == "#")
    }

    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        if reference == "#" {
            return Ok(self.root);
        }
        let pointer = reference.strip_prefix("#/").filter(|pointer| !pointer.contains(['~', '%']));
        let Some(pointer) = pointer else {
            return Err(format!(
                "the reference '{reference}' is not supported, only '#' and '#/...' without escapes"
            ));
        };
        let target = pointer.split('/').try_fold(self.root, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            value => value.get(key),
        });
        target.ok_or_else(|| format!("the target of the reference '{reference}' does not exist"))
    }

    /// Checks the number of combinations of alternatives in the compiler.
    fn combinations(&mut self, schema: &'a Value) -> Result<u64, ConstraintError> {
        let Value::Object(fields) = schema else { return Ok(1) };
        let (mut own, mut nested) = (1u64, 1u64);
        for (name, field) in fields {
            match (name.as_str(), field) {
                ("$ref", Value::String(reference)) => {
                    own = own.saturating_mul(self.width(reference)?);
                }
                ("anyOf" | "oneOf", Value::Array(options)) => {
                    let mut sum = 0u64;
                    for option in options {
                        sum = sum.saturating_add(self.combinations(option)?);
                    }
                    own = own.saturating_mul(sum.max(1));
                }
                ("allOf", Value::Array(parts)) => {
                    for part in parts {
                        own = own.saturating_mul(self.combinations(part)?);
                    }
                }
                ("$defs" | "definitions", _) => {}
                (name, field) => match (children(name), field) {
                    (Some(Children::Named), Value::Object(schemas)) => {
                        for schema in schemas.values() {
                            nested = nested.max(self.combinations(schema)?);
                        }
                    }
                    (Some(Children::Plain), Value::Array(schemas)) => {
                        for schema in schemas {
                            nested = nested.max(self.combinations(schema)?);
                        }
                    }
                    (Some(Children::Plain), schema) => nested = nested.max(self.combinations(schema)?),
                    _ => {}
                },
            }
        }
        if own > COMBINATIONS_MAX {
            return Err(limit("combinations of alternatives", COMBINATIONS_MAX));
        }
        Ok(own.max(nested))
    }

    fn width(&mut self, reference: &'a str) -> Result<u64, ConstraintError> {
        if let Some(width) = self.widths.get(reference) {
            return Ok(*width);
        }
        self.widths.insert(reference, 1);
        let target = self.target(reference).map_err(invalid)?;
        let width = self.combinations(target)?;
        self.widths.insert(reference, width);
        Ok(width)
    }
}

fn pairs(n: usize) -> u64 {
    let n = n as u64;
    n * n.saturating_sub(1) / 2
}

/// Refuses a minimum that duplicate names could appear to satisfy: additional properties may occur twice in
/// the text, but count only once.
fn check_min_properties(fields: &Map<String, Value>, path: &str) -> Result<(), ConstraintError> {
    let min = fields.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    let required = fields.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let closed = fields.get("additionalProperties") == Some(&Value::Bool(false))
        && !fields.contains_key("patternProperties");
    if min <= 1 || min <= required || closed { Ok(()) } else { Err(keyword("minProperties", path)) }
}
