//! Logging, with a level that can be changed.

use crate::config::{Config, LogConfig, LogFormat, Problems};
use crate::reload::{Change, Reload};
use std::error::Error;
use tracing::warn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Handle to change the log level.
#[derive(Clone, Debug)]
pub(super) struct LogLevel(Handle<EnvFilter, Registry>);

/// Starts logging to standard error.
pub(super) fn start(config: &LogConfig) -> Result<LogLevel, Box<dyn Error>> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.level)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        _ => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogLevel(handle))
}

impl Reload for LogLevel {
    fn settings(&self) -> &[&'static str] {
        &["log.level"]
    }

    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change> {
        match EnvFilter::try_new(&config.log.level) {
            Ok(filter) => {
                let handle = self.0.clone();
                Some(Box::new(move || {
                    if let Err(error) = handle.reload(filter) {
                        warn!(%error, "the log's level stays");
                    }
                }))
            }
            Err(error) => {
                problems.add("log.level", error);
                None
            }
        }
    }
}
