//! Opens and closes the trace export.

use super::counts::Counts;
use super::exporter::Exporter;
use super::queue::{Gate, Waiting};
use super::shutdown::Shutdown;
use crate::config::{TelemetryConfig, TelemetrySettings};
use crate::observe::metrics::Metrics;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Export of traces to a collector. Clones share it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::{Engine, EngineOptions};
/// use exsa_server::Server;
/// use exsa_server::config::TelemetryConfig;
/// use exsa_server::telemetry::Telemetry;
/// use std::sync::Arc;
///
/// let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
/// let telemetry = Telemetry::open(&TelemetryConfig::new("http://127.0.0.1:4318"))?;
/// let app = Server::new(Arc::new(engine)).telemetry(telemetry.clone()).router();
/// // After the last request:
/// if let Some(telemetry) = telemetry {
///     telemetry.close();
/// }
/// # drop(app);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    shutdown: Arc<Shutdown>,
    counts: Counts,
    flush_timeout: Duration,
    probes: bool,
    caller_id: bool,
}

/// Invalid settings of `[telemetry]` or of the environment.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.problems))]
#[non_exhaustive]
pub struct TelemetryError {
    /// Settings, such as `endpoint`, each with its problem.
    pub problems: Vec<(&'static str, String)>,
}

fn list(problems: &[(&'static str, String)]) -> String {
    let lines = problems.iter().map(|(setting, problem)| format!("telemetry.{setting}: {problem}"));
    lines.collect::<Vec<_>>().join("\n")
}

impl Telemetry {
    /// Starts the export; `None` if neither `config` nor the environment names a collector. The collector
    /// need not be reachable.
    ///
    /// # Errors
    ///
    /// A setting or a standard environment variable is invalid, or a file cannot be read.
    pub fn open(config: &TelemetryConfig) -> Result<Option<Self>, TelemetryError> {
        let settings =
            TelemetrySettings::of_process(config).map_err(|problems| TelemetryError { problems })?;
        let Some(settings) = settings else { return Ok(None) };
        let (shutdown, waiting) = (Arc::new(Shutdown::default()), Waiting::new(settings.queue_max));
        let counts = Counts::new();
        let exporter = Exporter::new(&settings, shutdown.clone(), waiting.clone(), counts.clone())
            .map_err(|problem| TelemetryError { problems: vec![problem] })?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_max)
            .with_max_export_batch_size(settings.batch_max)
            .with_scheduled_delay(settings.interval)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Gate { batches, waiting, counts: counts.clone() })
            .with_sampler(sampler(&settings))
            .with_resource(resource(&settings))
            .build();
        let scope =
            InstrumentationScope::builder("exsa-server").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.tracer_with_scope(scope);
        info!("traces are exported to {}", settings.url);
        let TelemetrySettings { flush_timeout, probes, caller_id, .. } = settings;
        let inner = Inner { provider, tracer, shutdown, counts, flush_timeout, probes, caller_id };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Exports the queued spans, for at most `flush_timeout`, and ends the export. Blocks. Further spans are
    /// lost.
    pub fn close(&self) {
        self.inner.close();
    }

    pub(super) fn tracer(&self) -> &SdkTracer {
        &self.inner.tracer
    }

    pub(super) fn traces_probes(&self) -> bool {
        self.inner.probes
    }

    pub(super) fn names_callers(&self) -> bool {
        self.inner.caller_id
    }

    /// Adds the span counters to the metrics.
    pub(crate) fn register(&self, metrics: &Metrics) {
        self.inner.counts.register(metrics);
    }
}

impl Inner {
    fn close(&self) {
        if !self.shutdown.begin(self.flush_timeout) {
            return;
        }
        if let Err(error) = self.provider.shutdown_with_timeout(self.flush_timeout) {
            warn!(%error, "the last traces were not exported");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Telemetry")
            .field("flush_timeout", &self.inner.flush_timeout)
            .finish_non_exhaustive()
    }
}

fn sampler(settings: &TelemetrySettings) -> Sampler {
    let root = Sampler::TraceIdRatioBased(settings.sampling.ratio);
    match settings.sampling.parent_based {
        true => Sampler::ParentBased(Box::new(root)),
        false => root,
    }
}

/// Resource attributes of this server; those of the configuration come last and take precedence.
fn resource(settings: &TelemetrySettings) -> Resource {
    let configured = settings.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(configured)
        .with_service_name(settings.service_name.clone())
        .build()
}
