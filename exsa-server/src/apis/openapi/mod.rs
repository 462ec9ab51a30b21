//! `/openapi.json`: the routes as an OpenAPI 3.1 document.
//!
//! `routes.json` has one entry per route, in a short form that is expanded here; `schemas.json` has the
//! schemas of bodies. Schemas name the most common fields; all other fields of the engine's requests are
//! accepted too.

use crate::http::error::ApiError;
use axum::Json;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

const ROUTES: &str = include_str!("routes.json");
const SCHEMAS: &str = include_str!("schemas.json");

/// Returns the document, which is built once.
pub(crate) async fn openapi() -> Result<Json<&'static Value>, ApiError> {
    static DOCUMENT: OnceLock<Result<Value, String>> = OnceLock::new();
    match DOCUMENT.get_or_init(|| document().map_err(|error| error.to_string())) {
        Ok(document) => Ok(Json(document)),
        Err(error) => Err(ApiError::internal(format!("the document cannot be made: {error}"))),
    }
}

fn document() -> Result<Value, serde_json::Error> {
    let routes: Map<String, Value> = serde_json::from_str(ROUTES)?;
    let schemas: Value = serde_json::from_str(SCHEMAS)?;
    let mut paths = Map::new();
    for (route, facts) in &routes {
        let (method, path) = route.split_once(' ').unwrap_or(("GET", route));
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[method.to_ascii_lowercase()] = operation(path, facts);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {"title": "Exsa", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        // Servers without authentication need no key.
        "security": [{}, {"key": []}],
    }))
}

/// Expands an operation from its short form: `summary`; `body`, `answer`, `error` and `query` with the names
/// of schemas; `stream` and `type` with the media types of streams and of answers that are not JSON; `status`
/// if it is not 200, and `also` for a second one.
fn operation(path: &str, facts: &Value) -> Value {
    let reference = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    let text = |name: &str| facts[name].as_str();
    let mut answers = Map::new();
    match text("answer") {
        Some(schema) => drop(answers.insert("application/json".into(), reference(schema))),
        None => {
            for kind in facts["type"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                answers.insert(kind.into(), json!({"schema": {"type": "string"}}));
            }
        }
    }
    // OpenAPI 3.1 cannot describe the events of a stream.
    if let Some(kind) = text("stream") {
        answers.insert(kind.into(), json!({}));
    }
    let error = text("error").unwrap_or("Error");
    let mut operation = json!({
        "summary": facts["summary"],
        "responses": {
            text("status").unwrap_or("200"): {"description": "The answer", "content": answers},
            "default": {
                "description": "The request was refused or failed",
                "content": {"application/json": reference(error)},
            },
        },
    });
    if let Some(status) = text("also") {
        operation["responses"][status] = operation["responses"]["200"].clone();
    }
    if let Some(schema) = text("body") {
        let content = json!({"application/json": reference(schema)});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    let in_path = path.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let in_path = in_path.map(|(name, _)| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})
    });
    let query = facts["query"].as_object().into_iter().flatten();
    let query = query.map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema}));
    let parameters: Vec<Value> = in_path.chain(query).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_schemas_that_are_named_exist_and_are_used() {
        let document = document().unwrap();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in schemas.keys() {
            assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "{name} is not used");
        }
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name} does not exist");
        }
    }
}
