//! Locations and paths in a parsed TOML document.

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Returns the location of the value at `path`, such as `models.1.name`; for tables, of the key; for a
/// missing value, of the nearest table around it.
pub(super) fn find(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (mut place, mut value): (_, Option<&Spanned<DeValue<'_>>>) = (None, None);
    for part in path.split('.') {
        let next = match value.map(|value| value.get_ref()) {
            None => table.get_key_value(part),
            Some(DeValue::Table(inner)) => inner.get_key_value(part),
            Some(DeValue::Array(items)) => {
                let Some(item) = part.parse().ok().and_then(|i: usize| items.get(i)) else { break };
                (place, value) = (Some(item.span()), Some(item));
                continue;
            }
            Some(_) => break,
        };
        let Some((key, inner)) = next else { break };
        place = Some(if inner.get_ref().is_table() { key.span() } else { inner.span() });
        value = Some(inner);
    }
    place
}

/// Removes the item that a deserialization error points to, and returns its path. For an item in an array,
/// the whole array is removed.
pub(super) fn remove(table: &mut DeTable<'_>, at: &Range<usize>) -> Option<String> {
    let path = locate_in_table(table, at)?;
    remove_path(table, &path);
    Some(path.join("."))
}

/// Returns the path of the innermost item at a location: of a key, or of a value around it.
fn locate_in_table(table: &DeTable<'_>, at: &Range<usize>) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let inner = locate_in_value(value.get_ref(), at);
        let here = key.span() == *at || contains(&value.span(), at);
        prepend(key.get_ref(), inner.or_else(|| here.then(Vec::new)))
    })
}

fn locate_in_value(value: &DeValue<'_>, at: &Range<usize>) -> Option<Vec<String>> {
    match value {
        DeValue::Table(table) => locate_in_table(table, at),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(i, item)| {
            let inner = locate_in_value(item.get_ref(), at);
            let here = contains(&item.span(), at);
            prepend(&i.to_string(), inner.or_else(|| here.then(Vec::new)))
        }),
        _ => None,
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn prepend(name: &str, path: Option<Vec<String>>) -> Option<Vec<String>> {
    path.map(|mut path| {
        path.insert(0, name.to_owned());
        path
    })
}

fn remove_path(table: &mut DeTable<'_>, path: &[String]) {
    let [name, rest @ ..] = path else { return };
    let removed = table.get_mut(name.as_str()).is_some_and(|value| remove_below(value.get_mut(), rest));
    if !removed {
        table.remove(name.as_str());
    }
}

/// Removes a key below `value`; returns false if there is no key on the path.
fn remove_below(value: &mut DeValue<'_>, path: &[String]) -> bool {
    match (value, path) {
        (DeValue::Table(table), [_, ..]) => {
            remove_path(table, path);
            true
        }
        (DeValue::Array(items), [index, rest @ ..]) => {
            let item = index.parse().ok().and_then(|i: usize| items.get_mut(i));
            item.is_some_and(|item| remove_below(item.get_mut(), rest))
        }
        _ => false,
    }
}
