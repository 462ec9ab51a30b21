//! Parts of the server that take new settings while it runs.

use super::{Change, Reload};
use crate::config::{Config, DrainConfig, Problems};
use crate::listener::ConnectionLimits;
use crate::live::Live;
use crate::options::ServerOptions;
use crate::quota::Quotas;
use exsa_core::Engine;
use std::fmt;
use std::sync::Arc;

/// The options of the routes.
#[derive(Clone, Debug)]
pub struct Routes(pub Live<ServerOptions>);

impl Reload for Routes {
    fn settings(&self) -> &[&'static str] {
        &["http", "limits"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (live, next) = (self.0.clone(), config.server_options());
        Some(Box::new(move || live.set(next)))
    }
}

/// The limits of connections, for new ones.
#[derive(Clone, Debug)]
pub struct Limits(pub Live<ConnectionLimits>);

impl Reload for Limits {
    fn settings(&self) -> &[&'static str] {
        &["limits"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (live, next) = (self.0.clone(), config.limits.connections());
        Some(Box::new(move || live.set(next)))
    }
}

/// The times of the server's end.
#[derive(Clone, Debug)]
pub struct Drain(pub Live<DrainConfig>);

impl Reload for Drain {
    fn settings(&self) -> &[&'static str] {
        &["drain"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (live, next) = (self.0.clone(), config.drain.clone());
        Some(Box::new(move || live.set(next)))
    }
}

/// The limits of use.
#[derive(Clone, Debug)]
pub struct QuotaLimits(pub Quotas);

impl Reload for QuotaLimits {
    fn settings(&self) -> &[&'static str] {
        &["quota"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (quotas, next) = (self.0.clone(), config.quota.clone());
        Some(Box::new(move || {
            // The validation has refused what the quotas would.
            if let Err(error) = quotas.reconfigure(next) {
                tracing::error!("quotas are not changed: {error}");
            }
        }))
    }
}

/// The scheduling mode of an engine.
pub struct EngineMode(pub Arc<Engine>);

impl fmt::Debug for EngineMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("EngineMode").finish_non_exhaustive()
    }
}

impl Reload for EngineMode {
    fn settings(&self) -> &[&'static str] {
        &["engine.mode"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (engine, mode) = (self.0.clone(), config.engine.mode);
        Some(Box::new(move || engine.set_mode(mode)))
    }
}

/// The certificates of TLS. Whether there is TLS needs a restart.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct Certificates(pub crate::tls::Tls);

#[cfg(feature = "tls")]
impl Reload for Certificates {
    fn settings(&self) -> &[&'static str] {
        &["tls"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        // Unusable files were reported by the validation; without files, a restart ends TLS.
        let change = self.0.prepare(&config.tls).ok()?;
        Some(Box::new(change))
    }
}
