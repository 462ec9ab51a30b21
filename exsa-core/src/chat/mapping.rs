//! Mappings of a conversation, with lookups by key with and without markers.

use super::Json;
use super::markers::Marking;
use super::python::plain;
use hashbrown::HashMap;
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectExt};
use std::sync::Arc;

/// A JSON object, as passed to a template.
///
/// Keys keep the markers of user text when a template writes them, but are looked up by their text without
/// markers.
#[derive(Debug)]
pub(super) struct Mapping {
    fields: Vec<(Value, Value)>,
    /// Index of each field by its key without markers.
    index: HashMap<String, usize>,
    marking: Arc<Marking>,
}

/// Converts `value`, whose strings are marked, to a Jinja value.
pub(super) fn to_value(value: Json, marking: &Arc<Marking>) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(value),
        Json::Int(value) => Value::from(value),
        Json::Float(value) => Value::from(value),
        Json::String(text) => Value::from(text),
        Json::Array(items) => items.into_iter().map(|item| to_value(item, marking)).collect(),
        Json::Object(fields) => Value::from_object(Mapping::new(fields, marking)),
    }
}

impl Mapping {
    /// If keys are equal, the last value is used, at the position of the first.
    fn new(fields: Vec<(String, Json)>, marking: &Arc<Marking>) -> Self {
        let mut mapping = Self { fields: Vec::new(), index: HashMap::new(), marking: Arc::clone(marking) };
        for (key, value) in fields {
            let value = to_value(value, marking);
            let next = mapping.fields.len();
            let at = *mapping.index.entry(plain(marking, &key).into_owned()).or_insert(next);
            match mapping.fields.get_mut(at) {
                Some((_, known)) => *known = value,
                None => mapping.fields.push((Value::from(key), value)),
            }
        }
        mapping
    }
}

impl Object for Mapping {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let at = self.index.get(&*plain(&self.marking, key))?;
        self.fields.get(*at).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_rev_key_value_enumerator(|this| {
            Box::new(this.fields.iter().map(|(key, value)| (key.clone(), value.clone())))
        })
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.fields.len())
    }
}
