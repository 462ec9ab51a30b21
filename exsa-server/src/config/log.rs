//! Section `[log]`: the server's log.

use super::Problems;
use super::suggest::nearest;
use serde::{Deserialize, Serialize};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The section `[log]`. The log goes to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LogConfig {
    /// Level, or levels by module: `info,exsa_server=debug`; `info` by default.
    pub level: String,
    /// Format of the lines.
    pub format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::default() }
    }
}

impl LogConfig {
    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        for part in self.level.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                continue;
            }
            let meant =
                nearest(level, LEVELS).map_or_else(String::new, |level| format!(" did you mean '{level}'?"));
            let message = format!(
                "'{level}' is no level;{meant} allowed are {}, also by module: \"info,exsa_server=debug\"",
                LEVELS.join(", ")
            );
            problems.add("log.level", message);
        }
    }
}
