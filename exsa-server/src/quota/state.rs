//! State of an account on disk.

use super::amounts::Amounts;
use serde::{Deserialize, Serialize};

/// State of an account on disk. After a crash the amounts in `ahead` count as used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedAccount {
    /// Time, in nanoseconds since 1970.
    pub(super) at: u64,
    /// Day of `used` since 1970, UTC.
    pub(super) day: u64,
    /// Amounts used on that day.
    pub(super) used: Amounts,
    /// Debt of the minute buckets, rounded up.
    pub(super) debt: Amounts,
    /// Amounts reserved, and those that may be used before the next state is saved.
    pub(super) ahead: Amounts,
}
