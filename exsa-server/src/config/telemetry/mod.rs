//! Section `[telemetry]`: export of traces over OTLP.

#[cfg(feature = "otel")]
mod environment;
#[cfg(feature = "otel")]
mod headers;
#[cfg(feature = "otel")]
mod settings;
#[cfg(all(test, feature = "otel"))]
mod tests;

#[cfg(feature = "otel")]
pub(crate) use settings::Settings;

use super::{Problems, units};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The section `[telemetry]`: export of traces to an OpenTelemetry collector.
///
/// A setting without a value is taken from the standard environment variable, else its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// URL of the collector, to which `/v1/traces` is appended. Traces are off without it
    /// (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`).
    pub endpoint: Option<String>,
    /// Protocol of the export (`OTEL_EXPORTER_OTLP_PROTOCOL`).
    pub protocol: Option<TelemetryProtocol>,
    /// File with export headers, one `name: value` per line.
    pub headers_file: Option<PathBuf>,
    /// Environment variable with export headers, as `name=value,name=value` (`OTEL_EXPORTER_OTLP_HEADERS`).
    pub headers_env: Option<String>,
    /// CA certificates (PEM) for the collector's TLS certificate; the common ones by default
    /// (`OTEL_EXPORTER_OTLP_CERTIFICATE`).
    pub ca_file: Option<PathBuf>,
    /// Attribute `service.name`; `exsa-server` by default (`OTEL_SERVICE_NAME`).
    pub service_name: Option<String>,
    /// Additional resource attributes (`OTEL_RESOURCE_ATTRIBUTES`).
    pub resource: BTreeMap<String, String>,
    /// Share of exported traces, `0..=1`; 1 by default. The decision in an incoming `traceparent` overrides
    /// it (`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`).
    pub sample_ratio: Option<f64>,
    /// Timeout for exporting a batch, retries included; 10 s by default (`OTEL_EXPORTER_OTLP_TIMEOUT`).
    #[serde(with = "units::optional_duration")]
    pub timeout: Option<Duration>,
    /// Maximum queued spans; 2048 by default (`OTEL_BSP_MAX_QUEUE_SIZE`).
    pub queue_max: Option<usize>,
    /// Maximum spans per batch; 512 by default (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub batch_max: Option<usize>,
    /// Interval of exports; 5 s by default (`OTEL_BSP_SCHEDULE_DELAY`).
    #[serde(with = "units::optional_duration")]
    pub interval: Option<Duration>,
    /// Timeout of the last export at shutdown; 5 s by default.
    #[serde(with = "units::duration")]
    pub flush_timeout: Duration,
    /// Whether requests to `/health` and `/metrics` have spans; `false` by default.
    pub probes: bool,
    /// Whether spans name the id of the caller's key; `false` by default.
    pub caller_id: bool,
}

/// Protocol of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TelemetryProtocol {
    /// OTLP over HTTP, as Protocol Buffers.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: None,
            headers_file: None,
            headers_env: None,
            ca_file: None,
            service_name: None,
            resource: BTreeMap::new(),
            sample_ratio: None,
            timeout: None,
            queue_max: None,
            batch_max: None,
            interval: None,
            flush_timeout: Duration::from_secs(5),
            probes: false,
            caller_id: false,
        }
    }
}

impl TelemetryConfig {
    /// Creates a configuration with a collector at `endpoint`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: Some(endpoint.into()), ..Self::default() }
    }

    /// Sets the file with export headers.
    #[must_use]
    pub fn headers_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.headers_file = Some(path.into());
        self
    }

    /// Adds a resource attribute.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.insert(name.into(), value.into());
        self
    }

    /// Sets the share of exported traces.
    #[must_use]
    pub fn sample_ratio(mut self, ratio: f64) -> Self {
        self.sample_ratio = Some(ratio);
        self
    }

    /// Sets the timeout for exporting a batch.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the maximum queued spans, and spans per batch.
    #[must_use]
    pub fn queue(mut self, spans: usize, batch: usize) -> Self {
        (self.queue_max, self.batch_max) = (Some(spans), Some(batch));
        self
    }

    /// Sets the export interval.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Sets the timeout of the last export.
    #[must_use]
    pub fn flush_timeout(mut self, timeout: Duration) -> Self {
        self.flush_timeout = timeout;
        self
    }

    /// Sets whether requests to `/health` and `/metrics` have spans.
    #[must_use]
    pub fn probes(mut self, traced: bool) -> Self {
        self.probes = traced;
        self
    }

    /// Sets whether spans name the id of the caller's key.
    #[must_use]
    pub fn caller_id(mut self, named: bool) -> Self {
        self.caller_id = named;
        self
    }

    /// Reports invalid values.
    #[cfg(feature = "otel")]
    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Err(found) = Settings::resolve(self, &environment::process) {
            found.into_iter().for_each(|(setting, message)| {
                problems.add(format!("telemetry.{setting}"), message);
            });
        }
    }

    /// Reports settings that this build cannot apply.
    #[cfg(not(feature = "otel"))]
    pub(super) fn validate(&self, problems: &mut Problems) {
        let json = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let (set, default) = (json(self), json(&Self::default()));
        let differs = |name: &&String| set.get(name.as_str()) != default.get(name.as_str());
        if let Some(name) = set.as_object().and_then(|settings| settings.keys().find(differs)) {
            let message = "this exsa-server was built without OpenTelemetry; build it with --features otel";
            problems.add(format!("telemetry.{name}"), message);
        }
    }
}
