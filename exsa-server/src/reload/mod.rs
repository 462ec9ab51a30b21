//! Configuration changes while the server runs.
//!
//! A reload reads the file and the flags again. Every part of the server first prepares its new settings;
//! then either all change, or none.

mod difference;
mod handler;
mod parts;

pub(crate) use handler::handle;
#[cfg(feature = "tls")]
pub use parts::Certificates;
pub use parts::{Callers, Drain, Limits, ModelTables, Quota, Routes};

use crate::config::{Config, ConfigError, ConfigSource, Problems};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tracing::{error, info, warn};

/// A prepared change, which cannot fail.
pub type Change = Box<dyn FnOnce() + Send>;

/// A part of the server whose settings can change at run time.
pub trait Reload: Send + Sync {
    /// The settings that are applied: sections such as `limits` or settings such as `log.level`.
    fn settings(&self) -> &[&'static str];

    /// Prepares the settings of `config`. Nothing changes until the returned function is called, which cannot
    /// fail.
    ///
    /// Problems are reported by setting; if any part reports one, no part changes. `None` without a problem
    /// means that these settings need a restart.
    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change>;
}

/// Report of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ReloadReport {
    /// Settings that have changed.
    pub changed: Vec<String>,
    /// Settings that differ in the file and need a restart.
    pub needs_restart: Vec<String>,
}

/// Reloads so far, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadCounts {
    /// Reloads that were applied.
    pub ok: u64,
    /// Reloads that were refused.
    pub refused: u64,
}

/// Reads the configuration again and applies it to the parts of the server.
pub struct Reloader {
    source: ConfigSource,
    /// Serializes reloads; holds the current settings.
    current: Mutex<Config>,
    parts: Vec<Box<dyn Reload>>,
    ok: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloader").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Creates a reloader for a server that was started with `config` from `source`.
    pub fn new(source: ConfigSource, config: Config) -> Self {
        Self {
            source,
            current: Mutex::new(config),
            parts: Vec::new(),
            ok: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Reloads so far.
    pub fn counts(&self) -> ReloadCounts {
        ReloadCounts { ok: self.ok.load(Ordering::Relaxed), refused: self.refused.load(Ordering::Relaxed) }
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, part: impl Reload + 'static) -> Self {
        self.parts.push(Box::new(part));
        self
    }

    /// Reads the configuration again and applies it. Blocks on file access.
    ///
    /// # Errors
    ///
    /// All problems; nothing has changed.
    pub fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let outcome = self.apply();
        let count = if outcome.is_ok() { &self.ok } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn apply(&self) -> Result<ReloadReport, ConfigError> {
        // The lock is held to the end, so that of two reloads the later one wins.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        let next = self.source.load_with(|config, problems| {
            for part in &self.parts {
                changes.extend(part.prepare(config, problems).map(|change| (part.settings(), change)));
            }
        })?;
        let mut live: BTreeSet<&str> = BTreeSet::new();
        for (settings, change) in changes {
            live.extend(settings);
            change();
        }
        let is_live = |setting: &String| live.iter().any(|live| covers(live, setting));
        let differing = difference::between(&current, &next);
        let (changed, needs_restart): (Vec<_>, Vec<_>) = differing.into_iter().partition(is_live);
        difference::keep(&mut current, &next, &needs_restart);
        Ok(ReloadReport { changed, needs_restart })
    }

    /// Like [`reload`](Self::reload), and logs the outcome.
    ///
    /// # Errors
    ///
    /// Those of [`reload`](Self::reload).
    pub fn reload_logged(&self) -> Result<ReloadReport, ConfigError> {
        let outcome = self.reload();
        match &outcome {
            Ok(ReloadReport { changed, needs_restart }) => {
                info!(changed = changed.join(", "), "configuration reloaded");
                if !needs_restart.is_empty() {
                    warn!(settings = needs_restart.join(", "), "these settings need a restart");
                }
            }
            Err(problems) => error!("the configuration is not reloaded, nothing has changed:\n{problems}"),
        }
        outcome
    }
}

/// Returns whether a setting is `name` or in the section `name`.
fn covers(name: &str, setting: &str) -> bool {
    setting.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
