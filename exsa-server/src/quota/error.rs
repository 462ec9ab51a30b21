//! Refusals and failures of quotas.

use super::amounts::Kind;
use super::ledger::Account as Scope;
use super::limits::Period;
use std::time::Duration;

/// Reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A limit is exhausted.
    #[error(
        "{scope} is limited to {limit} {} per {}: {remaining} remain and the request needs {requested}; try again in {}",
        kind.name(), period.name(), seconds(*wait)
    )]
    Limit {
        /// The limited key or group.
        scope: Scope,
        /// Kind of use.
        kind: Kind,
        /// Period.
        period: Period,
        /// The limit.
        limit: u64,
        /// Amount that remains.
        remaining: u64,
        /// Amount that the request needs.
        requested: u64,
        /// Time until that amount is available.
        wait: Duration,
    },
    /// The request needs more than the limit.
    #[error(
        "the request needs {requested} {}, but {scope} is limited to {limit} per {}: it can never be served",
        kind.name(), period.name()
    )]
    TooLarge {
        /// The limited key or group.
        scope: Scope,
        /// Kind of use.
        kind: Kind,
        /// Period.
        period: Period,
        /// The limit.
        limit: u64,
        /// Amount that the request needs.
        requested: u64,
    },
    /// Too many requests are in progress.
    #[error("{scope} is limited to {limit} requests in progress, and {streams} are")]
    Streams {
        /// The limited key or group.
        scope: Scope,
        /// The limit.
        limit: u64,
        /// Requests in progress.
        streams: u64,
    },
    /// The state cannot be written, so a charge could be lost.
    #[error("the state of the quotas cannot be written: {0}")]
    Store(String),
}

impl Refusal {
    /// Returns the limit's name in settings, or `none`, and the error code.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        let of_limit = |kind: &Kind, period: &Period| match (kind, period) {
            (Kind::Requests, Period::Minute) => "requests_per_minute",
            (Kind::PromptTokens, Period::Minute) => "prompt_tokens_per_minute",
            (Kind::OutputTokens, Period::Minute) => "output_tokens_per_minute",
            (Kind::Requests, Period::Day) => "requests_per_day",
            (Kind::PromptTokens, Period::Day) => "prompt_tokens_per_day",
            (Kind::OutputTokens, Period::Day) => "output_tokens_per_day",
        };
        match self {
            Self::Limit { kind, period, .. } => (of_limit(kind, period), "rate_limit_exceeded"),
            Self::TooLarge { kind, period, .. } => (of_limit(kind, period), "request_exceeds_quota"),
            Self::Streams { .. } => ("streams", "too_many_streams"),
            Self::Store(_) => ("none", "quota_store"),
        }
    }
}

/// A time in seconds, rounded up to milliseconds.
fn seconds(wait: Duration) -> String {
    format!("{}s", wait.as_nanos().div_ceil(1_000_000) as f64 / 1000.0)
}

/// A failure of the quotas as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The configuration is invalid.
    #[error("quota.{0}")]
    Config(String),
    /// The database cannot be read or written.
    #[error("the quotas' table: {0}")]
    Store(#[from] redb::Error),
    /// A record of the database is malformed.
    #[error("the quotas' table, record '{scope}': {source}")]
    Record {
        /// Key of the record.
        scope: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A record of the database has a key of an unknown form.
    #[error("the quotas' table: '{0}' is neither 'key:ID' nor 'group:NAME'")]
    Scope(String),
    /// The saving thread cannot be started.
    #[error("the thread that saves the quotas: {0}")]
    Thread(#[source] std::io::Error),
}
