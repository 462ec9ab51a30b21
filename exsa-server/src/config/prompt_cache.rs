//! Section `[prompt_cache]`: the prompt cache on disk, which survives restarts.

use super::{Problems, units};
use exsa_cache::{CacheError, CacheKey, CacheNotice, CacheOptions, PromptCache};
use exsa_core::PromptCacheOptions;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// The prompt cache of all models that run in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PromptCacheConfig {
    /// The folder, mode 0700; without it there is no prompt cache. Several servers may share it.
    pub folder: Option<PathBuf>,
    /// Maximum bytes of all entries; 4 GiB by default.
    #[serde(with = "units::size")]
    pub bytes: u64,
    /// Time without use after which an entry is removed; 30 days by default.
    #[serde(with = "units::duration")]
    pub age: Duration,
    /// File with the encryption key of entries: 32 bytes, or 64 hexadecimal digits.
    pub key_file: Option<PathBuf>,
    /// Time without use after which a prefix in memory is written; 20 s by default.
    #[serde(with = "units::duration")]
    pub cold_after: Duration,
}

impl Default for PromptCacheConfig {
    fn default() -> Self {
        Self {
            folder: None,
            bytes: 4 << 30,
            age: Duration::from_secs(30 * 24 * 3600),
            key_file: None,
            cold_after: Duration::from_secs(20),
        }
    }
}

impl PromptCacheConfig {
    /// Opens the folder, if there is one. Notices are logged.
    ///
    /// # Errors
    ///
    /// The folder or the key is unusable.
    pub fn open(&self) -> Result<Option<Arc<PromptCache>>, CacheError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let key = self.key_file.as_deref().map(CacheKey::from_file).transpose()?;
        let options = CacheOptions::new(folder).bytes_max(self.bytes).age_max(self.age).key(key);
        let cache = PromptCache::open(options.on_notice(|notice| match notice {
            CacheNotice::WritingResumed => info!("{notice}"),
            _ => warn!("{notice}"),
        }))?;
        let stats = cache.stats();
        info!(entries = stats.entries, bytes = stats.bytes, "prompt cache opened: {}", folder.display());
        Ok(Some(Arc::new(cache)))
    }

    /// Options with which engines use the cache.
    pub fn options(&self, cache: Arc<PromptCache>) -> PromptCacheOptions {
        PromptCacheOptions::new(cache).cold_after(self.cold_after)
    }

    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Some(path) = &self.key_file {
            super::check_file("prompt_cache.key_file", path, problems);
        }
        if self.bytes == 0 {
            problems.add("prompt_cache.bytes", "0 is not allowed; allowed is 1 or more");
        }
        for (name, time) in [("age", self.age), ("cold_after", self.cold_after)] {
            if time > super::DURATION_MAX {
                problems.add(format!("prompt_cache.{name}"), "allowed is at most \"365days\"");
            }
        }
    }
}
