//! Parts of the server with reloadable settings.

use super::{Change, Reload};
use crate::access::{Access, AccessConfig, AccessError};
use crate::config::{Config, DrainConfig, Problems};
use crate::listener::ConnectionLimits;
use crate::live::Live;
use crate::models::Models;
use crate::options::ServerOptions;
use crate::quota::Quotas;
use std::sync::Arc;
use tracing::warn;

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

/// Connection limits, for new connections.
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

/// Shutdown times.
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

/// Quotas.
#[derive(Clone, Debug)]
pub struct Quota(pub Quotas);

impl Reload for Quota {
    fn settings(&self) -> &[&'static str] {
        &["quota"]
    }

    fn prepare(&self, config: &Config, _: &mut Problems) -> Option<Change> {
        let (quotas, next) = (self.0.clone(), config.quota.clone());
        Some(Box::new(move || {
            // The configuration was already validated as a whole.
            if let Err(error) = quotas.reconfigure(next) {
                warn!(%error, "the quotas stay");
            }
        }))
    }
}

/// Token settings, and limits of wrong keys. Keys themselves change through their routes.
#[derive(Debug)]
pub struct Callers {
    /// Keys and tokens, if requests are authenticated.
    pub access: Option<Access>,
    /// The settings that the server was started with.
    pub started: AccessConfig,
}

impl Reload for Callers {
    fn settings(&self) -> &[&'static str] {
        &["access"]
    }

    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change> {
        let (next, started) = (&config.access, &self.started);
        // A server that continued without them would not be protected as its file says.
        if next.enabled != started.enabled {
            problems
                .add("access.enabled", format!("restart needed: the server runs with {}", started.enabled));
        }
        if next.data != started.data && started.enabled {
            let folder = started.data.as_deref().unwrap_or("".as_ref()).display();
            problems.add("access.data", format!("restart needed: the server runs with \"{folder}\""));
        }
        for (name, next, started) in
            [("export", &next.export, &started.export), ("import", &next.import, &started.import)]
        {
            if next != started && self.started.enabled {
                let with = match started {
                    Some(file) => format!("\"{}\"", file.display()),
                    None => "none".into(),
                };
                problems
                    .add(format!("access.{name}"), format!("restart needed: the server runs with {with}"));
            }
        }
        let Some(access) = &self.access else { return Some(Box::new(|| {})) };
        match access.prepare(next) {
            Ok(change) => Some(Box::new(change)),
            Err(AccessError::Jwt(error)) => {
                problems.add(format!("access.jwt.{}", error.setting), error.problem());
                None
            }
            Err(error) => {
                problems.add("access", error);
                None
            }
        }
    }
}

/// Model tables, and the mode of engines. Folders, memory and loading settings need a restart.
#[derive(Debug)]
pub struct ModelTables(pub Arc<Models>);

impl Reload for ModelTables {
    fn settings(&self) -> &[&'static str] {
        &["models", "engine.mode", "engine.ageing"]
    }

    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change> {
        if !config.models.is_live_change_of(self.0.config()) {
            return None;
        }
        let backend = self.0.backend()?;
        let tables = match &config.engine.model {
            Some(path) => config.models.clone().with_file(path, &*backend),
            None => Ok(config.models.clone()),
        };
        let staged = match tables {
            Ok(tables) => self.0.stage(&tables, config.engine.options()),
            Err(error) => {
                problems.add("engine.model", error.to_string());
                return None;
            }
        };
        match staged {
            Ok(staged) => {
                let models = self.0.clone();
                Some(Box::new(move || models.replace(staged)))
            }
            Err(error) => {
                problems.add(format!("models.{}", error.field()), error.problem());
                None
            }
        }
    }
}

/// TLS certificates. Enabling or disabling TLS needs a restart.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct Certificates(pub crate::tls::Tls);

#[cfg(feature = "tls")]
impl Reload for Certificates {
    fn settings(&self) -> &[&'static str] {
        &["tls"]
    }

    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change> {
        if !config.tls.is_on() {
            return None;
        }
        match self.0.prepare(&config.tls) {
            Ok(change) => Some(Box::new(change)),
            Err(error) => {
                problems.add(format!("tls.{}", error.setting()), error);
                None
            }
        }
    }
}
