//! Keys and values, read by type.

use super::{FromValue, GgufError, Value};
use std::collections::HashMap;

/// The metadata of a GGUF.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<Entry>,
    by_key: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    value: Value,
    /// Its offset in the file.
    offset: u64,
    /// Offset of the first text of the value that is not UTF-8 in the file; U+FFFD stands there for the wrong
    /// bytes.
    not_utf8: Option<u64>,
}

impl Entry {
    /// The value as a `T`, valid UTF-8 or not.
    fn read<'a, T: FromValue<'a>>(&'a self) -> Result<T, GgufError> {
        T::from_value(&self.value).map_err(|found| GgufError::Type {
            key: self.key.clone(),
            offset: self.offset,
            found,
            expected: T::EXPECTED,
        })
    }
}

impl Metadata {
    /// Adds an entry that begins at `offset`, with the place of a text in it that is not UTF-8; the caller
    /// has seen that the key is new.
    pub(super) fn insert(&mut self, key: String, value: Value, offset: u64, not_utf8: Option<u64>) {
        self.by_key.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key, value, offset, not_utf8 });
    }

    /// Adds an entry whose key is not UTF-8, and so is not found by name.
    pub(super) fn insert_unnamed(&mut self, key: String, value: Value, offset: u64, not_utf8: Option<u64>) {
        self.entries.push(Entry { key, value, offset, not_utf8 });
    }

    /// Sets the value of `key`, in place of the one that is there.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.by_key.get(key).and_then(|at| self.entries.get_mut(*at)) {
            Some(entry) => (entry.value, entry.not_utf8) = (value, None),
            None => self.insert(key.to_owned(), value, 0, None),
        }
    }

    /// Offset of the entry of `key` in the file; 0 if there is none.
    pub(super) fn offset(&self, key: &str) -> u64 {
        self.entry(key).map_or(0, |entry| entry.offset)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.by_key.get(key).map(|at| &self.entries[*at])
    }

    /// The value of `key` as it is.
    pub fn get_value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of `key` as a `T`; `None` if the key is missing. For the conversions, see [`FromValue`].
    ///
    /// # Errors
    ///
    /// [`GgufError::Type`], with the key and the found and expected types, if the value is not a `T`, and
    /// [`GgufError::Text`] if it contains text that is not UTF-8; [`get_lossy`](Self::get_lossy) reads such
    /// text.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let value = entry.read()?;
        match entry.not_utf8 {
            Some(offset) => Err(GgufError::Text { what: format!("the value of '{key}'"), offset }),
            None => Ok(Some(value)),
        }
    }

    /// The text of `key`, with U+FFFD for bytes that are not UTF-8: for informational texts such as names and
    /// descriptions.
    ///
    /// # Errors
    ///
    /// [`GgufError::Type`] if the value is not a text.
    pub fn get_lossy(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.entry(key).map(Entry::read).transpose()
    }

    /// The value of `key` as an integer of any size and sign.
    ///
    /// # Errors
    ///
    /// [`GgufError::Type`] if the value is not an integer.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i128>, GgufError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let integer = entry.value.integer();
        integer.map(Some).ok_or_else(|| self.refuse(key, entry.value.type_name(), "an integer"))
    }

    /// Like [`get`](Self::get), for a required key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`GgufError::Missing`].
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.get(key)?.ok_or_else(|| GgufError::Missing(key.to_owned()))
    }

    /// The error for a value of `key` that its type allows but its meaning does not, such as an array of the
    /// wrong length.
    pub fn refuse(&self, key: &str, found: impl Into<String>, expected: &'static str) -> GgufError {
        GgufError::Type { key: key.to_owned(), offset: self.offset(key), found: found.into(), expected }
    }

    /// All keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Equal if they have the same keys and values in the same order, at whatever offsets.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
