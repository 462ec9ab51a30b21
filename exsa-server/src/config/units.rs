//! Durations and sizes as text: `"30s"`, `"16 MiB"`.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// Serde helper for durations such as `"1m 30s"`.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
        value.deserialize_any(DurationText)
    }
}

/// Serde helper for optional durations.
pub(crate) mod optional_duration {
    use super::*;
    use serde::Deserialize;

    struct Text(Duration);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
            super::duration::deserialize(value).map(Self)
        }
    }

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, out),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(value)?.map(|Text(duration)| duration))
    }
}

struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a duration in quotes, such as \"30s\", \"5m\" or \"200ms\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Serde helper for sizes as integers or texts such as `"16 MiB"`.
pub(crate) mod size {
    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(bytes: &T, out: S) -> Result<S::Ok, S::Error> {
        bytes.serialize(out)
    }

    pub(crate) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(value: D) -> Result<T, D::Error> {
        let bytes = value.deserialize_any(SizeText)?;
        T::try_from(bytes).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(bytes), &SizeText))
    }
}

struct SizeText;

impl Visitor<'_> for SizeText {
    type Value = u64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of bytes, or a size in quotes such as \"64 KiB\", \"16 MiB\" or \"2 GiB\"")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_size(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Parses a size such as `"16 MiB"` to bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("64KiB", Some(64 << 10)),
            ("16 MiB", Some(16 << 20)),
            ("2 GB", Some(2_000_000_000)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5 MiB", None),
            ("1 mib", None),
            ("99999999999999999999", None),
            ("18446744073709551615 KiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
