//! The configuration: one TOML file, overridden by flags.
//!
//! Adding a section takes four changes: a field of [`Config`], a line in [`Config::validate`], its lines in
//! `example.toml`, and the settings that a reload applies in [`reload`](crate::reload).

mod document;
mod drain;
mod engine;
mod fleet;
mod grpc;
mod http;
mod limits;
mod listen;
mod log;
mod message;
mod problem;
mod prompt_cache;
mod pull;
mod read;
mod source;
mod suggest;
mod telemetry;
mod tls;
pub(crate) mod units;

pub use drain::DrainConfig;
pub use engine::EngineConfig;
#[cfg(feature = "kv-events")]
pub(crate) use fleet::endpoint as kv_endpoint;
pub use fleet::{FleetConfig, KvEventsConfig};
pub use grpc::GrpcConfig;
pub use http::HttpConfig;
pub use limits::LimitsConfig;
pub use listen::ListenConfig;
pub use log::{LogConfig, LogFormat};
pub use problem::{ConfigError, Place, Problem, Problems};
pub use prompt_cache::PromptCacheConfig;
pub use pull::PullConfig;
pub use source::ConfigSource;
#[cfg(feature = "otel")]
pub(crate) use telemetry::Settings as TelemetrySettings;
pub use telemetry::{TelemetryConfig, TelemetryProtocol};
pub use tls::{ClientAuth, TlsConfig};

use crate::access::AccessConfig;
use crate::apis::openai::responses::store::StoredResponses;
use crate::audit::AuditConfig;
use crate::models::ModelsConfig;
use crate::observe::metrics::MetricsConfig;
use crate::options::ServerOptions;
use crate::quota::QuotaConfig;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// A commented file with all settings and their defaults.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Maximum duration, so that adding it to the clock cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// All settings of the server. The default serves the built-in model on 127.0.0.1:8080.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Addresses.
    pub listen: ListenConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// Limits of connections and requests.
    pub limits: LimitsConfig,
    /// Hosts and origins.
    pub http: HttpConfig,
    /// Stored responses.
    pub responses: StoredResponses,
    /// Keys and tokens.
    pub access: AccessConfig,
    /// Quotas.
    pub quota: QuotaConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The model and its engine.
    pub engine: EngineConfig,
    /// The prompt cache on disk.
    pub prompt_cache: PromptCacheConfig,
    /// The models, if there are several.
    pub models: ModelsConfig,
    /// Models that administrators fetch.
    pub pull: PullConfig,
    /// Names and labels of metrics.
    pub metrics: MetricsConfig,
    /// The server as one replica of several.
    pub fleet: FleetConfig,
    /// The gRPC services.
    pub grpc: GrpcConfig,
    /// Export of traces.
    pub telemetry: TelemetryConfig,
    /// The log.
    pub log: LogConfig,
    /// Shutdown of the server.
    pub drain: DrainConfig,
}

impl Config {
    /// Parses a configuration. The values are validated by [`ConfigSource::load`].
    ///
    /// # Errors
    ///
    /// All problems of the text, with their locations.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (_, config, problems) = read::Document::parse(text);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(None, problems)) }
    }

    /// Reports invalid values, section by section.
    pub fn validate(&self, problems: &mut Problems) {
        self.listen.validate(self.authenticates(), problems);
        self.tls.validate(problems);
        self.limits.validate(problems);
        self.http.validate(problems);
        self.access.validate(problems);
        self.quota.validate(problems);
        self.audit.validate(problems);
        self.engine.validate(problems);
        self.prompt_cache.validate(problems);
        self.models.validate(self.engine.speculation, problems);
        self.pull.validate(self.authenticates(), problems);
        self.fleet.validate(problems);
        self.grpc.validate(self.authenticates() || self.listen.insecure_no_auth, problems);
        self.telemetry.validate(problems);
        self.log.validate(problems);
        self.drain.validate(problems);
    }

    /// Returns whether clients are authenticated, so that addresses beyond loopback are safe.
    fn authenticates(&self) -> bool {
        self.access.enabled
    }

    /// The options of the routes.
    pub fn server_options(&self) -> ServerOptions {
        let mut options = ServerOptions::default()
            .body_bytes_max(self.limits.body_bytes_max)
            .body_timeout(self.limits.body_timeout)
            .step_limit(self.limits.step_limit)
            .prompts_max(self.limits.prompts_max)
            .n_max(self.limits.n_max)
            .prompt_tokens_max(self.limits.prompt_tokens_max)
            .schema_bytes_max(self.limits.schema_bytes_max)
            .timings(self.http.timings)
            .reasoning_content(self.http.reasoning_content)
            .slots(self.engine.sequences_max)
            .stored_responses(self.responses.clone())
            .keep_alive(self.http.keep_alive)
            .any_host(self.http.any_host)
            .cors(self.http.cors);
        options.allowed_hosts.clone_from(&self.http.allowed_hosts);
        options.allowed_origins.clone_from(&self.http.allowed_origins);
        options
    }
}

/// Reports a file that cannot be read.
fn check_file(setting: &str, path: &Path, problems: &mut Problems) {
    let readable = File::open(path).and_then(|file| file.metadata());
    match readable {
        Ok(about) if about.is_file() => {}
        Ok(_) => problems.add(setting, format!("{} is not a file", path.display())),
        Err(error) => problems.add(setting, format!("{} cannot be read: {error}", path.display())),
    }
}
