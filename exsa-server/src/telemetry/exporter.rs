//! OTLP over HTTP: encodes batches and sends them, with retries, from the thread of the batch processor.

use super::counts::{self, Counts};
use super::outage::Outage;
use super::queue::Waiting;
use super::shutdown::Shutdown;
use crate::config::TelemetrySettings;
use axum::http::{HeaderName, HeaderValue, header};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Delay before the first retry, doubled for each further one.
const RETRY: Duration = Duration::from_millis(500);

/// Maximum delay between retries.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Maximum bytes read of a response.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Statuses after which the OTLP specification allows a retry.
const RETRYABLE: [u16; 4] = [429, 502, 503, 504];

/// Sends batches to a collector.
pub(super) struct Exporter {
    agent: Agent,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    resource: ResourceAttributesWithSchema,
    shutdown: Arc<Shutdown>,
    waiting: Arc<Waiting>,
    counts: Counts,
    outage: Mutex<Option<Outage>>,
}

/// A failed attempt.
struct Failure {
    error: String,
    /// Whether a retry may succeed, and the delay that the collector asks for.
    retry: Option<Duration>,
}

impl Exporter {
    /// # Errors
    ///
    /// The setting and the problem.
    pub(super) fn new(
        settings: &TelemetrySettings,
        shutdown: Arc<Shutdown>,
        waiting: Arc<Waiting>,
        counts: Counts,
    ) -> Result<Self, (&'static str, String)> {
        Ok(Self {
            agent: agent(settings)?,
            url: settings.url.clone(),
            headers: settings.headers.clone(),
            timeout: settings.timeout,
            resource: ResourceAttributesWithSchema::default(),
            shutdown,
            waiting,
            counts,
            outage: Mutex::new(None),
        })
    }

    /// Sends a batch, with retries until the timeout. Returns the number of rejected spans and the reason.
    fn send(&self, body: &[u8]) -> Result<(u64, String), String> {
        let end = Instant::now() + self.timeout;
        let mut wait = RETRY;
        loop {
            let end = self.shutdown.deadline().map_or(end, |deadline| deadline.min(end));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{}: the time for exports is over", self.url));
            }
            let Failure { error, retry } = match self.attempt(body, left) {
                Ok(rejected) => return Ok(rejected),
                Err(failure) => failure,
            };
            let pause = retry.map(|asked| asked.max(jittered(wait)));
            match pause.filter(|pause| Instant::now() + *pause < end) {
                Some(pause) if self.shutdown.sleep(pause) => wait = (wait * 2).min(RETRY_MAX),
                _ => return Err(format!("{}: {error}", self.url)),
            }
        }
    }

    fn attempt(&self, body: &[u8], timeout: Duration) -> Result<(u64, String), Failure> {
        let mut request = self.agent.post(&self.url).header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let sent = request.send(body);
        let response =
            sent.map_err(|error| Failure { error: error.to_string(), retry: Some(Duration::ZERO) })?;
        let status = response.status();
        let after =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let answer = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        if !status.is_success() {
            let retry =
                RETRYABLE.contains(&status.as_u16()).then(|| Duration::from_secs(after.unwrap_or_default()));
            // The response body may repeat request headers, which are secret.
            return Err(Failure { error: format!("the collector answered {status}"), retry });
        }
        // Collectors may respond with an empty body or, against the specification, with text.
        let answer = ExportTraceServiceResponse::decode(&*answer.unwrap_or_default()).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        Ok((u64::try_from(partial.rejected_spans).unwrap_or_default(), partial.error_message))
    }

    /// Records the outcome of a batch, and logs outages.
    fn book(&self, spans: u64, sent: Result<(u64, String), String>) -> OTelSdkResult {
        let (mut outage, now) = (self.outage.lock(), Instant::now());
        match sent {
            Ok((0, _)) => {
                self.counts.exported(spans);
                Outage::ended(&mut outage, now);
                Ok(())
            }
            Ok((rejected, reason)) => {
                let rejected = rejected.min(spans);
                self.counts.exported(spans - rejected);
                self.counts.dropped(counts::REJECTED, rejected);
                let error = format!("{}: the collector rejected spans: {reason}", self.url);
                Outage::failed(&mut outage, rejected, &error, now);
                Ok(())
            }
            Err(error) => {
                self.counts.dropped(counts::EXPORT_FAILED, spans);
                Outage::failed(&mut outage, spans, &error, now);
                Err(OTelSdkError::InternalFailure(error))
            }
        }
    }
}

impl SpanExporter for Exporter {
    /// Blocks: the batch processor has its own thread.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let sent = self.send(&body);
        self.waiting.leave(spans);
        self.book(spans as u64, sent)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Exporter").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Varies a delay by up to a quarter, so that servers that lost their collector together do not return
/// together.
fn jittered(time: Duration) -> Duration {
    let random = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    time.mul_f64(0.75 + random / 2.0)
}

fn agent(settings: &TelemetrySettings) -> Result<Agent, (&'static str, String)> {
    let mut agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("exsa-server/", env!("CARGO_PKG_VERSION")));
    if settings.is_loopback {
        agent = agent.proxy(None);
    }
    #[cfg(feature = "tls")]
    if let Some(path) = &settings.ca_file {
        use ureq::tls::{RootCerts, TlsConfig};
        let roots = crate::access::read_roots(path).map_err(|problem| ("ca_file", problem))?;
        agent = agent.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build());
    }
    Ok(agent.build().into())
}
