//! Limits the nesting depth of values that a template creates.
//!
//! minijinja compares, writes and drops values by recursion. Every assigned value passes a filter in this
//! module (see [`source`](super::source)), so that a loop cannot nest values arbitrarily deep.

use super::mapping::Mapping;
use super::source::{CHECK_ATTRIBUTE, CHECK_VARIABLE};
use minijinja::value::{Kwargs, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Maximum nesting of lists and dicts in a value.
pub(super) const DEPTH_MAX: usize = 100;

/// Maximum nesting of macros and loops, as counted by minijinja; about 30 macros.
const RECURSION_MAX: usize = 200;

/// Removed filters: they nest values, and chat templates do not use them.
const REMOVED: [&str; 6] = ["batch", "chain", "groupby", "pprint", "slice", "zip"];

/// Adds the checks to an environment.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.set_recursion_limit(RECURSION_MAX);
    REMOVED.iter().for_each(|name| environment.remove_filter(name));
    environment
        .add_filter(CHECK_VARIABLE, |state: &State, value: &Value| checked(state, value, Objects::Allowed));
    environment
        .add_filter(CHECK_ATTRIBUTE, |state: &State, value: &Value| checked(state, value, Objects::Refused));
    environment.add_function("namespace", namespace);
}

/// Whether a value may contain objects that are not plain data, such as namespaces, which can change later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objects {
    Allowed,
    Refused,
}

/// A namespace whose attributes are plain data.
fn namespace(state: &State, defaults: Kwargs) -> Result<Value, Error> {
    let mut attributes = Vec::new();
    for name in defaults.args() {
        let value: Value = defaults.get(name)?;
        attributes.push((name.to_owned(), checked(state, &value, Objects::Refused)?));
    }
    let defaults = Value::from(Kwargs::from_iter(attributes));
    minijinja::functions::namespace(Some(ValueOrKwargs::from(defaults)))
}

/// Returns `value` if it is not too deep. Lazy sequences, which would hide their items, become lists.
fn checked(state: &State, value: &Value, objects: Objects) -> Result<Value, Error> {
    Ok(rebuilt(state, value, objects, DEPTH_MAX)?.unwrap_or_else(|| value.clone()))
}

/// The replacement of `value`; `None` if it can be kept.
fn rebuilt(state: &State, value: &Value, objects: Objects, depth: usize) -> Result<Option<Value>, Error> {
    let kind = value.kind();
    if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        let is_object = !matches!(
            kind,
            ValueKind::Undefined
                | ValueKind::None
                | ValueKind::Bool
                | ValueKind::Number
                | ValueKind::String
                | ValueKind::Bytes
        );
        return match objects {
            Objects::Refused if is_object => Err(invalid("a namespace can only hold plain data")),
            _ => Ok(None),
        };
    }
    if depth == 0 {
        return Err(invalid("lists and dicts are nested more than 100 levels deep"));
    }
    let mut items = Vec::new();
    // Namespaces and macros look like any dict; a copy no longer changes and is not a macro. A mapping of the
    // conversation is plain data and is kept, since a copy would lose the keys without markers.
    let is_data = value.downcast_object_ref::<Mapping>().is_some();
    let mut changed =
        kind == ValueKind::Iterable || kind == ValueKind::Map && objects == Objects::Refused && !is_data;
    for key_or_item in value.try_iter()? {
        state.consume_fuel(1)?;
        let item = if kind == ValueKind::Map { value.get_item(&key_or_item)? } else { key_or_item.clone() };
        let new = rebuilt(state, &item, objects, depth - 1)?;
        changed |= new.is_some();
        items.push((key_or_item, new.unwrap_or(item)));
    }
    Ok(changed.then(|| match kind {
        ValueKind::Map => Value::from_pairs(items),
        _ => {
            let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
            let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
            if is_tuple { Value::from(Tuple::from(items)) } else { Value::from(items) }
        }
    }))
}

fn invalid(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
