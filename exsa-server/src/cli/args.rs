//! Command line. Flags and their environment variables override the configuration file.

use crate::access::cli::KeyArgs;
use crate::audit::command::AuditCommand;
use crate::config::{Config, ConfigSource};
use clap::{Parser, Subcommand};
use exsa_core::Mode;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Serve models over HTTP, with the APIs of OpenAI, Anthropic, Ollama and llama-server.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// Configuration file; flags override it
    #[arg(long, short, global = true, value_name = "FILE", env = "EXSA_CONFIG")]
    config: Option<PathBuf>,
    /// Check the configuration, print all problems and exit
    #[arg(long)]
    pub(super) check_config: bool,
    /// Print a commented configuration file with all settings and exit
    #[arg(long)]
    pub(super) print_config: bool,
    /// Folder of the API keys, mode 0700; with it, every request needs a key
    #[arg(long, value_name = "FOLDER", env = "EXSA_DATA", global = true)]
    data: Option<PathBuf>,
    /// Folder of the audit log
    #[arg(long, value_name = "FOLDER", env = "EXSA_AUDIT")]
    audit: Option<PathBuf>,
    /// A GGUF file; by default the built-in story model
    #[arg(long, short, value_name = "FILE", env = "EXSA_MODEL")]
    model: Option<PathBuf>,
    /// IP address to listen on [default: 127.0.0.1]
    #[arg(long, env = "EXSA_HOST")]
    host: Option<IpAddr>,
    /// Port to listen on; 0 selects a free one [default: 8080]
    #[arg(long, short, env = "EXSA_PORT")]
    port: Option<u16>,
    /// UNIX socket to listen on in addition
    #[arg(long, value_name = "PATH", env = "EXSA_UNIX")]
    unix: Option<PathBuf>,
    /// Allow addresses beyond loopback without authentication
    #[arg(long)]
    insecure_no_auth: bool,
    /// Host name accepted in requests, in addition to loopback names; repeatable
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Origin whose pages may send requests, such as `https://app.example.org`; repeatable
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// Compute threads [default: number of physical cores]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Maximum concurrent sequences [default: 16]
    #[arg(long, value_name = "N")]
    sequences: Option<usize>,
    /// Scheduler mode: latency, balanced or throughput [default: balanced]
    #[arg(long, value_parser = read_mode)]
    mode: Option<Mode>,
    /// Maximum waiting requests [default: 1024]
    #[arg(long, value_name = "N")]
    queue: Option<usize>,
    /// Maximum bytes of a request body [default: 16777216]
    #[arg(long, value_name = "BYTES")]
    body_max: Option<usize>,
    /// Maximum open connections [default: 1024]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Maximum open connections per address [default: 512]
    #[arg(long, value_name = "N")]
    connections_per_address: Option<usize>,
    /// Seconds after SIGTERM during which requests are still accepted, while /health/ready signals the drain
    /// to load balancers [default: 3]
    #[arg(long, value_name = "SECONDS")]
    drain_delay: Option<u64>,
    /// Seconds that running requests have to finish after SIGTERM [default: 30]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Log level, or levels by module, such as info,exsa_server=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    log_level: Option<String>,
}

/// Commands other than serving.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Manage API keys, with or without a running server
    Key(KeyArgs),
    /// Verify audit logs, or create keys for them
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Commands about the configuration file.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a commented file with all settings and their defaults
    Example,
}

fn read_mode(name: &str) -> Result<Mode, String> {
    match name {
        "latency" => Ok(Mode::Latency),
        "balanced" => Ok(Mode::Balanced),
        "throughput" => Ok(Mode::Throughput),
        _ => Err("allowed are latency, balanced and throughput".into()),
    }
}

impl Args {
    /// The model file named by a flag or the environment.
    #[must_use]
    pub fn model(&self) -> Option<&Path> {
        self.model.as_deref()
    }

    /// Sets the model file, overriding flag and environment.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<PathBuf>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Returns whether [`run`](super::run) serves, rather than executing a command.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.command.is_none() && !self.check_config && !self.print_config
    }

    /// The configuration file with the flags that override it.
    pub(crate) fn source(&self) -> ConfigSource {
        let args = self.clone();
        ConfigSource::new(self.config.clone()).overrides(move |config| args.apply(config))
    }

    /// Overrides settings; returns each with its flag.
    fn apply(&self, config: &mut Config) -> Vec<(&'static str, &'static str)> {
        let mut set = Vec::new();
        let mut given = |given: bool, setting, flag| {
            if given {
                set.push((setting, flag));
            }
        };
        given(put(&mut config.listen.host, self.host), "listen.host", "--host");
        given(put(&mut config.listen.port, self.port), "listen.port", "--port");
        given(put(&mut config.listen.unix, self.unix.clone().map(Some)), "listen.unix", "--unix");
        config.listen.insecure_no_auth |= self.insecure_no_auth;
        given(put(&mut config.access.data, self.data.clone().map(Some)), "access.data", "--data");
        config.access.enabled |= self.data.is_some();
        given(put(&mut config.audit.folder, self.audit.clone().map(Some)), "audit.folder", "--audit");
        let engine = &mut config.engine;
        given(put(&mut engine.model, self.model.clone().map(Some)), "engine.model", "--model");
        given(put(&mut engine.threads, self.threads.map(Some)), "engine.threads", "--threads");
        given(put(&mut engine.sequences_max, self.sequences), "engine.sequences_max", "--sequences");
        given(put(&mut engine.mode, self.mode), "engine.mode", "--mode");
        given(put(&mut engine.queue_max, self.queue), "engine.queue_max", "--queue");
        let limits = &mut config.limits;
        given(put(&mut limits.body_bytes_max, self.body_max), "limits.body_bytes_max", "--body-max");
        given(put(&mut limits.connections_max, self.connections), "limits.connections_max", "--connections");
        given(
            put(&mut limits.per_address_max, self.connections_per_address),
            "limits.per_address_max",
            "--connections-per-address",
        );
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        given(put(&mut config.drain.delay, seconds(self.drain_delay)), "drain.delay", "--drain-delay");
        given(put(&mut config.drain.timeout, seconds(self.drain)), "drain.timeout", "--drain");
        let level = self.log_level.clone().filter(|level| !level.is_empty());
        given(put(&mut config.log.level, level), "log.level", "--log-level (RUST_LOG)");
        let hosts = (!self.allowed_host.is_empty()).then(|| self.allowed_host.clone());
        given(put(&mut config.http.allowed_hosts, hosts), "http.allowed_hosts", "--allowed-host");
        let origins = (!self.allowed_origin.is_empty()).then(|| self.allowed_origin.clone());
        given(put(&mut config.http.allowed_origins, origins), "http.allowed_origins", "--allowed-origin");
        set
    }
}

/// Sets a setting if a flag has a value; returns whether it has.
fn put<T>(setting: &mut T, value: Option<T>) -> bool {
    let given = value.is_some();
    if let Some(value) = value {
        *setting = value;
    }
    given
}
