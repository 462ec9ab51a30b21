//! Section `[drain]`: shutdown of the server.

use super::{Problems, units};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Times of the shutdown after SIGTERM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DrainConfig {
    /// Time after SIGTERM during which requests are still accepted while `/health/ready` signals the drain to
    /// load balancers; 3 s by default, which suits a probe interval of one second. An interrupt skips it.
    #[serde(with = "units::duration")]
    pub delay: Duration,
    /// Time for running requests to finish; 30 s by default.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { delay: Duration::from_secs(3), timeout: Duration::from_secs(30) }
    }
}

impl DrainConfig {
    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (name, time) in [("delay", self.delay), ("timeout", self.timeout)] {
            if time > super::DURATION_MAX {
                problems.add(format!("drain.{name}"), "allowed is at most \"365days\"");
            }
        }
    }
}
