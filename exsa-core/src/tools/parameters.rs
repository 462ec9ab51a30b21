//! Parameters of tools, for formats that write each parameter separately.

use crate::chat::Json;
use crate::constraint::{ConstraintError, reference};

/// A parameter of a tool.
#[derive(Clone, Debug)]
pub(super) struct Parameter<'a> {
    pub(super) name: &'a str,
    /// Its schema, with the definitions of the tool's schema.
    pub(super) schema: Json,
    pub(super) required: bool,
}

/// Keywords that restrict parameters jointly. Other keywords are annotations, or refused in any case.
const UNSUPPORTED: [&str; 7] =
    ["allOf", "anyOf", "oneOf", "enum", "const", "patternProperties", "unevaluatedProperties"];

/// The parameters of a tool's schema.
///
/// # Errors
///
/// The schema restricts parameters jointly.
pub(super) fn of(schema: &Json) -> Result<Vec<Parameter<'_>>, ConstraintError> {
    let root = schema;
    let mut schema = schema;
    let mut path = "#";
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let target = reference::target(root, reference).filter(|target| target.get("$ref").is_none());
        schema =
            target.ok_or_else(|| invalid(path, &format!("the reference '{reference}' is not supported")))?;
        path = reference;
    }
    let Json::Object(fields) = schema else { return Ok(Vec::new()) };
    let properties = match schema.get("properties") {
        Some(Json::Object(properties)) => properties.as_slice(),
        _ => &[],
    };
    let required = schema.get("required").and_then(Json::as_array).unwrap_or_default();
    let count = |keyword: &str| match schema.get(keyword) {
        Some(Json::Int(count)) => Some(*count),
        _ => None,
    };
    for (keyword, value) in fields {
        let holds = match keyword.as_str() {
            "minProperties" => count(keyword).is_some_and(|min| min <= required.len() as i128),
            "maxProperties" => count(keyword).is_some_and(|max| max >= properties.len() as i128),
            "type" => value.as_str() == Some("object"),
            keyword => !UNSUPPORTED.contains(&keyword),
        };
        if !holds {
            return Err(ConstraintError::Keyword { keyword: keyword.clone(), path: path.to_owned() });
        }
    }
    let mut names = required.iter().filter_map(Json::as_str);
    if let Some(name) = names.find(|name| properties.iter().all(|(known, _)| known != name)) {
        return Err(invalid(path, &format!("the required property '{name}' has no schema in 'properties'")));
    }
    let parameter = |(name, property): &'_ (String, Json)| -> Result<(Json, bool), ConstraintError> {
        check_references(property, &format!("{path}/properties/{name}"))?;
        Ok((with_definitions(property, root), required.iter().any(|one| one.as_str() == Some(name))))
    };
    let parameters = properties.iter().map(|property| {
        let (schema, required) = parameter(property)?;
        Ok(Parameter { name: &property.0, schema, required })
    });
    parameters.collect()
}

fn invalid(path: &str, problem: &str) -> ConstraintError {
    ConstraintError::Invalid { grammar: "JSON schema", problem: format!("{path}: {problem}") }
}

/// Refuses references that would resolve differently in a part of the schema.
fn check_references(schema: &Json, path: &str) -> Result<(), ConstraintError> {
    match schema {
        Json::Array(items) => items.iter().try_for_each(|item| check_references(item, path)),
        Json::Object(fields) => fields.iter().try_for_each(|(name, field)| match (name.as_str(), field) {
            ("$ref", Json::String(reference))
                if !reference.starts_with("#/$defs/") && !reference.starts_with("#/definitions/") =>
            {
                let why =
                    "with this tool call format, parameters can only refer to '$defs' and 'definitions'";
                Err(invalid(path, &format!("the reference '{reference}': {why}")))
            }
            ("const" | "enum" | "default" | "examples", _) => Ok(()),
            (_, field) => check_references(field, path),
        }),
        _ => Ok(()),
    }
}

fn with_definitions(property: &Json, root: &Json) -> Json {
    let mut property = property.clone();
    if let Json::Object(fields) = &mut property {
        for definitions in ["$defs", "definitions"] {
            if let Some(value) = root.get(definitions) {
                fields.push((definitions.to_owned(), value.clone()));
            }
        }
    }
    property
}
