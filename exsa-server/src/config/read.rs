//! Reads the configuration from TOML, with all problems and their locations.

use super::problem::{Place, Problem};
use super::{document, message};
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::ops::Range;
use toml::de::DeTable;

/// Maximum problems reported per file.
const PROBLEMS_MAX: usize = 50;

/// A parsed file, in which settings can be located.
pub(super) struct Document<'a> {
    text: &'a str,
    table: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Parses `text` into a document and its value. Invalid values are left out and reported, so that one run
    /// finds all of them.
    pub(super) fn parse<T: DeserializeOwned + Default>(text: &'a str) -> (Self, T, Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let span = table.span();
        let table = table.into_inner();
        let mut problems: Vec<Problem> = errors
            .iter()
            .take(PROBLEMS_MAX)
            .map(|error| problem_at(text, String::new(), message::syntax(error.message()), error.span()))
            .collect();
        let mut value = T::default();
        // After a syntax error the file's values are unknown and not validated.
        if problems.is_empty() {
            (value, problems) = read_values(text, table.clone(), span);
        }
        (Self { text, table }, value, problems)
    }

    /// Returns the location of a setting, or of the nearest table around it.
    pub(super) fn place(&self, setting: &str) -> Place {
        document::find(&self.table, setting).map_or(Place::Unknown, |span| Place::of(self.text, span))
    }
}

fn read_values<T: DeserializeOwned + Default>(
    text: &str,
    mut table: DeTable<'_>,
    span: Range<usize>,
) -> (T, Vec<Problem>) {
    let mut problems = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let spanned = toml::Spanned::new(span.clone(), table.clone());
        let error = match T::deserialize(spanned.into_deserializer()) {
            Ok(value) => return (value, problems),
            Err(error) => error,
        };
        let removed = error.span().and_then(|span| document::remove(&mut table, &span));
        let more = removed.is_some();
        let setting = removed.unwrap_or_default();
        let described = message::value(&setting, error.message());
        problems.push(problem_at(text, setting, described, error.span()));
        if !more {
            break;
        }
    }
    (T::default(), problems)
}

fn problem_at(text: &str, setting: String, message: String, span: Option<Range<usize>>) -> Problem {
    let place = span.map_or(Place::Unknown, |span| Place::of(text, span));
    Problem { setting, message, place }
}
