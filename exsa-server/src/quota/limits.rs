//! Limits, and the section `[quota]` of the configuration.

use super::amounts::Kind;
use super::share::Share;
use crate::config::Problems;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Maximum of a limit.
const LIMIT_MAX: u64 = 1_000_000_000_000;

/// A limit: a number, `"unlimited"`, or absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Inherits the default.
    #[default]
    Inherited,
    /// No limit, overriding the default.
    Unlimited,
    /// A maximum.
    At(u64),
}

impl Limit {
    fn or(self, other: Self) -> Self {
        if self == Self::Inherited { other } else { self }
    }

    /// Returns the maximum, if there is one.
    pub(super) fn value(self) -> Option<u64> {
        match self {
            Self::At(limit) => Some(limit),
            Self::Inherited | Self::Unlimited => None,
        }
    }

    /// Returns the part of a limit granted by one of several servers.
    fn shared(self, share: Share) -> Self {
        match self {
            Self::At(limit) => Self::At(share.of(limit)),
            other => other,
        }
    }

    fn is_inherited(&self) -> bool {
        *self == Self::Inherited
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inherited => out.serialize_none(),
            Self::Unlimited => out.serialize_str("unlimited"),
            Self::At(limit) => out.serialize_u64(*limit),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Limit;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a number up to {LIMIT_MAX}, or \"unlimited\"")
            }

            fn visit_u64<E: Error>(self, limit: u64) -> Result<Limit, E> {
                match limit {
                    0..=LIMIT_MAX => Ok(Limit::At(limit)),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(limit), &self)),
                }
            }

            fn visit_i64<E: Error>(self, limit: i64) -> Result<Limit, E> {
                let unsigned = u64::try_from(limit);
                unsigned
                    .map_err(|_| E::invalid_value(Unexpected::Signed(limit), &self))
                    .and_then(|l| self.visit_u64(l))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
                match text {
                    "unlimited" => Ok(Limit::Unlimited),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        value.deserialize_any(Read)
    }
}

/// Limits of a key or a group.
///
/// ```
/// use exsa_server::quota::{Limit, Limits};
///
/// let limits: Limits = serde_json::from_str(r#"{"requests_per_minute": 60, "streams": "unlimited"}"#)?;
/// assert_eq!((limits.requests_per_minute, limits.streams), (Limit::At(60), Limit::Unlimited));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Limits {
    /// Requests per minute.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub requests_per_minute: Limit,
    /// Prompt tokens per minute.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub prompt_tokens_per_minute: Limit,
    /// Generated tokens per minute.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub output_tokens_per_minute: Limit,
    /// Requests per day.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub requests_per_day: Limit,
    /// Prompt tokens per day.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub prompt_tokens_per_day: Limit,
    /// Generated tokens per day.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub output_tokens_per_day: Limit,
    /// Concurrent requests.
    #[serde(skip_serializing_if = "Limit::is_inherited")]
    pub streams: Limit,
}

impl Limits {
    /// Parses the limits in the record of a key.
    ///
    /// # Errors
    ///
    /// The invalid field and the allowed values.
    pub fn from_json(quota: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(quota)
    }

    /// Returns the limits of a key: its own, else those of `default`.
    #[must_use]
    pub fn over(self, default: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(default.requests_per_minute),
            prompt_tokens_per_minute: self.prompt_tokens_per_minute.or(default.prompt_tokens_per_minute),
            output_tokens_per_minute: self.output_tokens_per_minute.or(default.output_tokens_per_minute),
            requests_per_day: self.requests_per_day.or(default.requests_per_day),
            prompt_tokens_per_day: self.prompt_tokens_per_day.or(default.prompt_tokens_per_day),
            output_tokens_per_day: self.output_tokens_per_day.or(default.output_tokens_per_day),
            streams: self.streams.or(default.streams),
        }
    }

    /// Returns the part of all limits granted by one of several servers.
    #[must_use]
    pub(super) fn shared(self, share: Share) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.shared(share),
            prompt_tokens_per_minute: self.prompt_tokens_per_minute.shared(share),
            output_tokens_per_minute: self.output_tokens_per_minute.shared(share),
            requests_per_day: self.requests_per_day.shared(share),
            prompt_tokens_per_day: self.prompt_tokens_per_day.shared(share),
            output_tokens_per_day: self.output_tokens_per_day.shared(share),
            streams: self.streams.shared(share),
        }
    }

    /// The maximum of a kind in a period.
    pub(super) fn of(&self, period: Period, kind: Kind) -> Option<u64> {
        let limit = match (period, kind) {
            (Period::Minute, Kind::Requests) => self.requests_per_minute,
            (Period::Minute, Kind::PromptTokens) => self.prompt_tokens_per_minute,
            (Period::Minute, Kind::OutputTokens) => self.output_tokens_per_minute,
            (Period::Day, Kind::Requests) => self.requests_per_day,
            (Period::Day, Kind::PromptTokens) => self.prompt_tokens_per_day,
            (Period::Day, Kind::OutputTokens) => self.output_tokens_per_day,
        };
        limit.value()
    }

    /// The smallest maximum of a kind over all periods.
    pub(super) fn smallest(&self, kind: Kind) -> Option<u64> {
        [Period::Minute, Period::Day].into_iter().filter_map(|period| self.of(period, kind)).min()
    }

    /// Returns whether nothing is limited.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.value().is_none() && Kind::ALL.into_iter().all(|kind| self.smallest(kind).is_none())
    }
}

/// Period of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Period {
    /// A minute; the allowance is restored continuously.
    Minute,
    /// A UTC day; the allowance is restored at midnight.
    Day,
}

impl Period {
    /// Both periods.
    pub(super) const ALL: [Self; 2] = [Self::Minute, Self::Day];

    /// Name in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
        }
    }
}

/// The section `[quota]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct QuotaConfig {
    /// Default limits of each key.
    pub default: Limits,
    /// Limits of groups, shared by their keys.
    pub groups: BTreeMap<String, Limits>,
    /// Limits of single keys by id; they override those in the key's record.
    pub keys: BTreeMap<String, Limits>,
    /// Part of every limit that this server grants, above 0 and at most 1; 1 by default. Several servers
    /// whose shares sum to 1 together grant at most the limits.
    pub share: Share,
    /// Maximum output tokens that a request reserves when it begins; 4,096 by default. A longer answer is
    /// charged as it grows.
    pub output_reserve_max: u64,
    /// Interval at which the state is written; 10 s by default.
    #[serde(with = "crate::config::units::duration")]
    pub save_interval: Duration,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self {
            default: Limits::default(),
            groups: BTreeMap::new(),
            keys: BTreeMap::new(),
            share: Share::default(),
            output_reserve_max: 4096,
            save_interval: Duration::from_secs(10),
        }
    }
}

impl QuotaConfig {
    /// Finds an invalid value: its setting in the section, and the error with the allowed range.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let (reserve, max) = (self.output_reserve_max, 1 << 24);
        if !(1..=max).contains(&reserve) {
            return Err(("output_reserve_max", format!("{reserve} is not between 1 and {max}")));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.save_interval) {
            return Err(("save_interval", "allowed is \"10ms\" to \"1h\"".into()));
        }
        Ok(())
    }

    /// Reports invalid values.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Err((setting, problem)) = self.check() {
            problems.add(format!("quota.{setting}"), problem);
        }
    }

    /// Returns whether any limit is set; keys may have further ones in their records.
    pub fn is_set(&self) -> bool {
        *self
            != Self {
                share: self.share,
                output_reserve_max: self.output_reserve_max,
                save_interval: self.save_interval,
                ..Self::default()
            }
    }
}
