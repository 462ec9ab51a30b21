//! Keys and values, read by type.

use super::{Array, GgufError, Value};
use std::collections::HashMap;

/// The metadata of a GGUF.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Adds a key; `false`, and no change, if it is there already.
    pub(super) fn insert(&mut self, key: String, value: Value) -> bool {
        let at = self.entries.len();
        if self.by_key.contains_key(&key) {
            return false;
        }
        self.by_key.insert(key.clone(), at);
        self.entries.push((key, value));
        true
    }

    /// The value of `key` as it is.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|at| &self.entries[*at].1)
    }

    /// The value of `key` as a `T`: `None` if the key is missing, an error that names key and types if the
    /// value is no `T`. Integers of any width are taken for any other that holds them.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(GgufError::Type {
                key: key.to_owned(),
                found: match value {
                    Value::Array(_) | Value::Str(_) => value.type_name(),
                    number => format!("{number:?}"),
                },
                expected: T::EXPECTED,
            }),
        }
    }

    /// The same for a key that must be there.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.get(key)?.ok_or_else(|| GgufError::Missing(key.to_owned()))
    }

    /// All keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
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

/// What [`Metadata::get`] can read a value as.
pub trait FromValue<'a>: Sized {
    /// What is expected, for messages.
    const EXPECTED: &'static str;

    /// The value as this type, if it is one.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_integer {
    ($($type:ty => $scalar:literal, $array:literal;)*) => {$(
        impl FromValue<'_> for $type {
            const EXPECTED: &'static str = $scalar;

            fn from_value(value: &Value) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        }

        impl FromValue<'_> for Vec<$type> {
            const EXPECTED: &'static str = $array;

            fn from_value(value: &Value) -> Option<Self> {
                let Value::Array(array) = value else { return None };
                array.integers()?.into_iter().map(|n| n.try_into().ok()).collect()
            }
        }
    )*};
}

from_integer! {
    u32 => "an integer of 32 bits, 0 or more", "an array of integers of 32 bits, 0 or more";
    u64 => "an integer, 0 or more", "an array of integers, 0 or more";
    usize => "an integer, 0 or more", "an array of integers, 0 or more";
    i32 => "an integer of 32 bits", "an array of integers of 32 bits";
    i64 => "an integer", "an array of integers";
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a finite number";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            other => other.integer().map(|n| n as f32),
        }
        .filter(|x| x.is_finite())
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bool(b) = value { Some(*b) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Str(text) = value { Some(text) } else { None }
    }
}

impl FromValue<'_> for String {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &Value) -> Option<Self> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl<'a> FromValue<'a> for &'a [String] {
    const EXPECTED: &'static str = "an array of strings";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::Str(texts)) = value { Some(texts) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [f32] {
    const EXPECTED: &'static str = "an array of f32";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::F32(numbers)) = value { Some(numbers) } else { None }
    }
}

impl FromValue<'_> for Vec<f32> {
    const EXPECTED: &'static str = "an array of f32";

    fn from_value(value: &Value) -> Option<Self> {
        <&[f32]>::from_value(value).map(<[f32]>::to_vec)
    }
}
