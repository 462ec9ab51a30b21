//! Section `[pull]`: models that administrators fetch through Ollama's API.

use super::{Problems, units};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Folder and hub of models fetched by `/api/pull`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PullConfig {
    /// The folder, in the layout of Hugging Face's cache; without it nothing is fetched.
    pub folder: Option<PathBuf>,
    /// Address of the hub or of a mirror.
    pub endpoint: String,
    /// File with the hub's access token, readable only by its owner.
    pub token_file: Option<PathBuf>,
    /// Maximum bytes of a file; 64 GiB by default.
    #[serde(with = "units::size")]
    pub file_bytes_max: u64,
    /// Bytes of the disk to keep free; 1 GiB by default.
    #[serde(with = "units::size")]
    pub reserve_bytes: u64,
    /// Whether the endpoint may be a plain `http` address.
    pub allow_http: bool,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            folder: None,
            endpoint: "https://huggingface.co".to_owned(),
            token_file: None,
            file_bytes_max: 64 << 30,
            reserve_bytes: 1 << 30,
            allow_http: false,
        }
    }
}

impl PullConfig {
    /// Creates a configuration with a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// Sets the address of the hub.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into();
        self
    }

    /// Allows a plain `http` address.
    #[must_use]
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// Sets the bytes of the disk to keep free.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Reports invalid values; `authenticates` says whether clients are authenticated.
    pub(super) fn validate(&self, authenticates: bool, problems: &mut Problems) {
        if let Some(path) = &self.token_file {
            super::check_file("pull.token_file", path, problems);
        }
        if self.folder.is_some() && !authenticates {
            let message =
                "only administrators may fetch models, whom the server cannot tell; set access.enabled";
            problems.add("pull.folder", message);
        }
        if self.folder.is_some() && self.endpoint.starts_with("https://") && cfg!(not(feature = "tls")) {
            let message = "https needs a build with --features tls, and a C compiler";
            problems.add("pull.endpoint", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &PullConfig, authenticates: bool) -> Vec<String> {
        let mut problems = Problems::default();
        config.validate(authenticates, &mut problems);
        problems.found.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn only_servers_with_keys_fetch_models() {
        let config = PullConfig::new("models").endpoint("http://127.0.0.1:1");
        assert!(problems(&config, false)[0].contains("access.enabled"));
        assert_eq!(problems(&config, true), Vec::<String>::new());
        assert_eq!(problems(&PullConfig::default(), false), Vec::<String>::new());
    }
}
