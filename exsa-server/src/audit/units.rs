//! Serde helpers for durations that can be `never`, and durability policies.

use super::log::Fsync;
use crate::config::units::duration;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// Durations, or `"never"`.
pub(super) mod optional_duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => duration::serialize(duration, out),
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

/// Durability policies: `"every"`, `"never"`, or a duration.
pub(super) mod fsync {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(fsync: &Fsync, out: S) -> Result<S::Ok, S::Error> {
        match fsync {
            Fsync::Every => out.serialize_str("every"),
            Fsync::Never => out.serialize_str("never"),
            Fsync::Interval(interval) => duration::serialize(interval, out),
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
