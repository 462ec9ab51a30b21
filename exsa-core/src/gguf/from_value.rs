//! Conversion of metadata values to the types of callers.

use super::{Array, Value};

/// Types as which [`Metadata::get`](super::Metadata::get) reads a value.
///
/// An integer, alone or in an array, converts to any type that can represent it, whatever its width in the
/// file. A number converts to a float, rounded if necessary, if the result is finite. A slice borrows an
/// array in the type of the file.
pub trait FromValue<'a>: Sized {
    /// The expected type, for messages.
    const EXPECTED: &'static str;

    /// Converts the value to this type; the error describes the value, for messages.
    fn from_value(value: &'a Value) -> Result<Self, String>;
}

fn array(value: &Value) -> Result<&Array, String> {
    if let Value::Array(array) = value { Ok(array) } else { Err(value.type_name()) }
}

macro_rules! from_integer {
    ($($type:ty => $scalar:literal, $array:literal;)*) => {$(
        impl FromValue<'_> for $type {
            const EXPECTED: &'static str = $scalar;

            fn from_value(value: &Value) -> Result<Self, String> {
                let integer = value.integer().ok_or_else(|| value.type_name())?;
                integer.try_into().map_err(|_| integer.to_string())
            }
        }

        impl FromValue<'_> for Vec<$type> {
            const EXPECTED: &'static str = $array;

            fn from_value(value: &Value) -> Result<Self, String> {
                fn each<T>(elements: &[T]) -> Result<Vec<$type>, String>
                where
                    T: Copy + ToString + TryInto<$type>,
                {
                    let element = |(at, element): (usize, &T)| {
                        let element = *element;
                        element.try_into().map_err(|_| format!("{} at index {at}", element.to_string()))
                    };
                    elements.iter().enumerate().map(element).collect()
                }
                match array(value)? {
                    Array::U8(v) => each(v),
                    Array::I8(v) => each(v),
                    Array::U16(v) => each(v),
                    Array::I16(v) => each(v),
                    Array::U32(v) => each(v),
                    Array::I32(v) => each(v),
                    Array::U64(v) => each(v),
                    Array::I64(v) => each(v),
                    Array::F32(_) | Array::Bool(_) | Array::Str(_) | Array::Array(_) | Array::F64(_) => {
                        Err(value.type_name())
                    }
                }
            }
        }
    )*};
}

from_integer! {
    u32 => "an integer of 32 bits, 0 or more", "an array of integers of 32 bits, 0 or more";
    u64 => "an integer, 0 or more", "an array of integers, 0 or more";
    usize => "an integer, 0 or more", "an array of integers, 0 or more";
    i32 => "an integer of 32 bits", "an array of integers of 32 bits";
    i64 => "an integer of 64 bits", "an array of integers of 64 bits";
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a finite number";

    fn from_value(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::F32(x) => (*x).into(),
            Value::F64(x) => *x,
            other => other.integer().ok_or_else(|| other.type_name())? as f64,
        };
        if number.is_finite() { Ok(number) } else { Err(number.to_string()) }
    }
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a finite number of single precision";

    fn from_value(value: &Value) -> Result<Self, String> {
        let double = f64::from_value(value)?;
        let single = double as f32;
        if single.is_finite() { Ok(single) } else { Err(double.to_string()) }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_value(value: &Value) -> Result<Self, String> {
        if let Value::Bool(b) = value { Ok(*b) } else { Err(value.type_name()) }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &'a Value) -> Result<Self, String> {
        if let Value::Str(text) = value { Ok(text) } else { Err(value.type_name()) }
    }
}

impl FromValue<'_> for String {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &Value) -> Result<Self, String> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

macro_rules! from_array {
    ($($type:ty, $variant:ident, $expected:literal;)*) => {$(
        impl<'a> FromValue<'a> for &'a [$type] {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &'a Value) -> Result<Self, String> {
                if let Value::Array(Array::$variant(v)) = value { Ok(v) } else { Err(value.type_name()) }
            }
        }
    )*};
}

from_array! {
    u8, U8, "an array of u8";
    i8, I8, "an array of i8";
    u16, U16, "an array of u16";
    i16, I16, "an array of i16";
    u32, U32, "an array of u32";
    i32, I32, "an array of i32";
    f32, F32, "an array of f32";
    bool, Bool, "an array of booleans";
    String, Str, "an array of strings";
    Array, Array, "an array of arrays";
    u64, U64, "an array of u64";
    i64, I64, "an array of i64";
    f64, F64, "an array of f64";
}

impl FromValue<'_> for Vec<f32> {
    const EXPECTED: &'static str = "an array of f32";

    fn from_value(value: &Value) -> Result<Self, String> {
        <&[f32]>::from_value(value).map(<[f32]>::to_vec)
    }
}
