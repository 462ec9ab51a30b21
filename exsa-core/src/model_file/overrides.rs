//! Metadata that a host sets in place of the file's, as llama.cpp's `--override-kv`.

use crate::error::LoadError;
use crate::gguf::{Metadata, Value};
use std::fmt;
use std::str::FromStr;

/// Bytes of a key and of a text; llama.cpp's limits, without the byte that ends them.
const BYTES_MAX: usize = 127;

/// A metadata value that a host sets. It is written `KEY=TYPE:VALUE`, with the types `int`, `float`, `bool`
/// and `str`.
///
/// ```
/// use exsa_core::model_file::{MetadataOverride, OverrideValue};
///
/// let window: MetadataOverride = "phi3.attention.sliding_window=int:2047".parse()?;
/// assert_eq!(window, MetadataOverride::new("phi3.attention.sliding_window", 2047));
/// assert_eq!(window.value, OverrideValue::Int(2047));
/// # Ok::<(), exsa_core::model_file::OverrideError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetadataOverride {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: OverrideValue,
}

/// Value of a [`MetadataOverride`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OverrideValue {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(String),
}

impl OverrideValue {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Str(_) => "str",
        }
    }
}

impl fmt::Display for OverrideValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "int:{value}"),
            Self::Float(value) => write!(f, "float:{value}"),
            Self::Bool(value) => write!(f, "bool:{value}"),
            Self::Str(value) => write!(f, "str:{value}"),
        }
    }
}

/// Conversions into a value.
macro_rules! from_values {
    ($($from:ty => $variant:ident),+) => {$(
        impl From<$from> for OverrideValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )+};
}

from_values!(i32 => Int, u32 => Int, i64 => Int, f32 => Float, f64 => Float, bool => Bool, &str => Str, String => Str);

impl MetadataOverride {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<OverrideValue>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// The problem of a key or a value that no file could have.
    fn problem(&self) -> Option<String> {
        let bytes = |what: &str, text: &str| {
            let fits = (1..=BYTES_MAX).contains(&text.len()) && !text.contains('\0');
            (!fits).then(|| {
                format!("{what} has {} bytes, but 1 to {BYTES_MAX} without NUL are allowed", text.len())
            })
        };
        match &self.value {
            OverrideValue::Float(value) if !value.is_finite() => Some(format!("{value} is not finite")),
            OverrideValue::Str(text) if !text.is_empty() => bytes("the text", text),
            _ => None,
        }
        .or_else(|| bytes("the key", &self.key))
    }
}

impl fmt::Display for MetadataOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Error of an override that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "metadata override '{text}': {problem}; KEY=TYPE:VALUE is expected, with int, float, bool or str as TYPE"
)]
#[non_exhaustive]
pub struct OverrideError {
    /// The override as it was written.
    pub text: String,
    /// The problem.
    pub problem: String,
}

impl FromStr for MetadataOverride {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        let refuse = |problem: String| OverrideError { text: text.chars().take(200).collect(), problem };
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("it has no '='".to_owned()))?;
        let (kind, value) = value.split_once(':').ok_or_else(|| refuse("it has no ':'".to_owned()))?;
        let no = |what: &str| refuse(format!("'{value}' is no {what}"));
        let value = match kind {
            "int" => OverrideValue::Int(value.parse().map_err(|_| no("whole number of 64 bits"))?),
            "float" => OverrideValue::Float(value.parse().map_err(|_| no("number"))?),
            "bool" => OverrideValue::Bool(value.parse().map_err(|_| no("bool (true, false)"))?),
            "str" => OverrideValue::Str(value.to_owned()),
            other => return Err(refuse(format!("there is no type '{other}'"))),
        };
        let parsed = Self { key: key.to_owned(), value };
        match parsed.problem() {
            Some(problem) => Err(refuse(problem)),
            None => Ok(parsed),
        }
    }
}

/// Sets `overrides` in `metadata`; returns the keys that were not there.
pub(super) fn apply(
    metadata: &mut Metadata,
    overrides: &[MetadataOverride],
) -> Result<Vec<String>, LoadError> {
    let mut unknown = Vec::new();
    for item in overrides {
        let refuse = |problem: String| LoadError::Option {
            option: "metadata_override",
            problem: format!("{item}: {problem}"),
        };
        if let Some(problem) = item.problem() {
            return Err(refuse(problem));
        }
        let value = match metadata.get_value(&item.key) {
            Some(value) => replaced(value, &item.value).map_err(refuse)?,
            None => {
                unknown.push(item.key.clone());
                new_value(&item.value)
            }
        };
        metadata.set(&item.key, value);
    }
    Ok(unknown)
}

/// The value `new` in the type that the file has for its key.
fn replaced(old: &Value, new: &OverrideValue) -> Result<Value, String> {
    macro_rules! integer {
        ($variant:ident, $type:ty, $value:expr) => {
            <$type>::try_from($value).map(Value::$variant).map_err(|_| {
                format!(
                    "the file has {} for it, which holds {} to {}",
                    old.type_name(),
                    <$type>::MIN,
                    <$type>::MAX
                )
            })
        };
    }
    match (old, new) {
        (Value::U8(_), OverrideValue::Int(n)) => integer!(U8, u8, *n),
        (Value::I8(_), OverrideValue::Int(n)) => integer!(I8, i8, *n),
        (Value::U16(_), OverrideValue::Int(n)) => integer!(U16, u16, *n),
        (Value::I16(_), OverrideValue::Int(n)) => integer!(I16, i16, *n),
        (Value::U32(_), OverrideValue::Int(n)) => integer!(U32, u32, *n),
        (Value::I32(_), OverrideValue::Int(n)) => integer!(I32, i32, *n),
        (Value::U64(_), OverrideValue::Int(n)) => integer!(U64, u64, *n),
        (Value::I64(_), OverrideValue::Int(n)) => Ok(Value::I64(*n)),
        (Value::F32(_), OverrideValue::Float(x)) if (*x as f32).is_finite() => Ok(Value::F32(*x as f32)),
        (Value::F64(_), OverrideValue::Float(x)) => Ok(Value::F64(*x)),
        (Value::Bool(_), OverrideValue::Bool(b)) => Ok(Value::Bool(*b)),
        (Value::Str(_), OverrideValue::Str(text)) => Ok(Value::Str(text.clone())),
        (Value::Array(_), _) => {
            Err(format!("the file has {} for it; single values alone can be set", old.type_name()))
        }
        _ => Err(format!("the file has {} for it, not {}", old.type_name(), new.type_name())),
    }
}

/// The value of a key that the file has not.
fn new_value(new: &OverrideValue) -> Value {
    match new {
        OverrideValue::Int(n) => u32::try_from(*n).map_or(Value::I64(*n), Value::U32),
        OverrideValue::Float(x) => Value::F32(*x as f32),
        OverrideValue::Bool(b) => Value::Bool(*b),
        OverrideValue::Str(text) => Value::Str(text.clone()),
    }
}
