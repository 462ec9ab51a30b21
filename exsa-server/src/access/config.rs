//! The section `[access]` of the configuration.

use super::jwt::JwtConfig;
use super::keys::{KeyFile, check_path};
use crate::config::Problems;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The section `[access]`: API keys and tokens.
///
/// ```
/// use exsa_server::access::AccessConfig;
///
/// let config = AccessConfig::default().enabled(true).data("/var/lib/exsa");
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AccessConfig {
    /// Whether requests need a key or token; false by default.
    pub enabled: bool,
    /// Folder of the keys and the control socket, with mode 0700; required if `enabled` is set.
    pub data: Option<PathBuf>,
    /// File to which the keys are exported for other servers; none by default.
    pub export: Option<PathBuf>,
    /// File from which the keys of another server are imported; none by default.
    pub import: Option<PathBuf>,
    /// Burst of wrong keys and tokens allowed per address; 20 by default.
    pub failures_burst: u32,
    /// Additional wrong keys and tokens allowed per address and minute; 20 by default.
    pub failures_per_minute: u32,
    /// Settings for tokens of an identity provider; none are accepted by default.
    pub jwt: Option<JwtConfig>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            data: None,
            export: None,
            import: None,
            failures_burst: 20,
            failures_per_minute: 20,
            jwt: None,
        }
    }
}

impl AccessConfig {
    /// Reports invalid values.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if self.enabled && self.data.is_none() {
            problems.add("access.data", "a folder is required if access.enabled is true");
        }
        for (name, path) in [("export", &self.export), ("import", &self.import)] {
            if path.is_some() && !self.enabled {
                problems.add(format!("access.{name}"), "allowed only where access.enabled is true");
            }
        }
        if self.export.is_some() && self.import.is_some() {
            let problem =
                "not allowed beside access.export: one server exports its keys, the others import them";
            problems.add("access.import", problem);
        } else if let Some(Err(problem)) = self.export.as_deref().map(check_path) {
            problems.add("access.export", problem);
        }
        if let Some(Err(error)) = self.jwt.as_ref().map(JwtConfig::check) {
            problems.add(format!("access.jwt.{}", error.setting), error.problem());
        }
    }

    /// Reports a key file that cannot be imported now. A server that has imported keys before starts without
    /// it, so this is not an invalid value.
    pub(crate) fn check_import(&self, problems: &mut Problems) {
        if let Some(Err(error)) = self.import.as_deref().map(KeyFile::read) {
            problems.add("access.import", error);
        }
    }

    /// Sets whether requests need a key or token.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the data folder.
    #[must_use]
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// Exports the keys to a file.
    #[must_use]
    pub fn export(mut self, file: impl Into<PathBuf>) -> Self {
        self.export = Some(file.into());
        self
    }

    /// Imports the keys of another server from a file.
    #[must_use]
    pub fn import(mut self, file: impl Into<PathBuf>) -> Self {
        self.import = Some(file.into());
        self
    }

    /// Sets the wrong keys and tokens allowed per address: burst, and per minute.
    #[must_use]
    pub fn failures(mut self, burst: u32, per_minute: u32) -> Self {
        (self.failures_burst, self.failures_per_minute) = (burst, per_minute);
        self
    }

    /// Accepts tokens of an identity provider.
    #[must_use]
    pub fn jwt(mut self, config: JwtConfig) -> Self {
        self.jwt = Some(config);
        self
    }
}
