//! Durations and sizes in the configuration, for `#[serde(with)]`.

use super::log::Fsync;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// Durations such as `"1m 30s"`.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
        read(&String::deserialize(value)?, "a duration such as \"30s\"")
    }
}

/// Durations, or `"never"`.
pub(super) mod optional_duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, out),
            None => out.serialize_str("never"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
        match String::deserialize(value)?.as_str() {
            "never" => Ok(None),
            text => read(text, "a duration such as \"24h\", or \"never\"").map(Some),
        }
    }
}

/// Policies of durability: `"every"`, `"never"`, or a duration.
pub(super) mod fsync {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(fsync: &Fsync, out: S) -> Result<S::Ok, S::Error> {
        match fsync {
            Fsync::Every => out.serialize_str("every"),
            Fsync::Never => out.serialize_str("never"),
            Fsync::Interval(interval) => super::duration::serialize(interval, out),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Fsync, D::Error> {
        match String::deserialize(value)?.as_str() {
            "every" => Ok(Fsync::Every),
            "never" => Ok(Fsync::Never),
            text => read(text, "\"every\", \"never\" or a duration such as \"100ms\"").map(Fsync::Interval),
        }
    }
}

fn read<E: Error>(text: &str, expected: &str) -> Result<Duration, E> {
    humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &expected))
}

/// Sizes: integers, or texts such as `"16 MiB"`.
pub(crate) mod size {
    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(bytes: &T, out: S) -> Result<S::Ok, S::Error> {
        bytes.serialize(out)
    }

    pub(crate) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(value: D) -> Result<T, D::Error> {
        let bytes = value.deserialize_any(Size)?;
        T::try_from(bytes).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(bytes), &Size))
    }

    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a number of bytes, or a size such as \"64 KiB\", \"16 MiB\" or \"2 GiB\"")
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    fn parse(text: &str) -> Option<u64> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }
}
