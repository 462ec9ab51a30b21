//! Checks of JSON schemas before they are compiled.

use super::error::ConstraintError;
use super::grammar::JsonSchema;
use crate::chat::Json;
use serde_json::{Map, Number, Value};

/// The schema as a value, if all of it is supported.
pub(super) fn check(text: &JsonSchema) -> Result<Value, ConstraintError> {
    let json = text.json().map_err(|error| invalid(error.to_string()))?;
    Ok(value(&json))
}

fn invalid(problem: String) -> ConstraintError {
    ConstraintError::Invalid { grammar: "JSON schema", problem }
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
        Json::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), value(field)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}
