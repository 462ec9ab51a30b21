//! `/metrics`: an engine's counters for Prometheus, in its text format 0.0.4 or as OpenMetrics 1.0, as the scraper
//! accepts.
//!
//! Names are those of [`EngineStats`] with the prefix `exsa_`; times are in seconds.

use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use exsa_core::Priority;
use exsa_core::stats::{EngineStats, Histogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters as text.
pub(crate) async fn metrics(
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open_metrics = accept.contains("application/openmetrics-text");
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(state.generator.stats())));
    let mut page = String::new();
    let (written, content_type) = match open_metrics {
        true => (text::encode(&mut page, &registry), OPEN_METRICS),
        false => (prometheus_text::encode(&mut page, &registry), PROMETHEUS),
    };
    written.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, content_type)], page).into_response())
}

/// Statistics to encode.
#[derive(Debug)]
struct Snapshot(EngineStats);

type Labels = [(&'static str, &'static str); 1];

/// The encoder of one scrape.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        encoder.encode_counter(&value, None::<&Exemplar<Labels, f64>>)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn waiting(&mut self, by_class: &[usize; Priority::COUNT]) -> fmt::Result {
        let help = "Requests that wait for a sequence, by class";
        let mut encoder = self.0.encode_descriptor("exsa_waiting", help, None, MetricType::Gauge)?;
        for class in Priority::ALL {
            let labels = [("class", class.name())];
            encoder.encode_family(&labels)?.encode_gauge(&(by_class[class.index()] as f64))?;
        }
        Ok(())
    }

    fn step_times(&mut self, parts: &[(&'static str, Duration)]) -> fmt::Result {
        let (help, unit) = ("Time of all steps, by part", Some(&Unit::Seconds));
        let mut encoder = self.0.encode_descriptor("exsa_step", help, unit, MetricType::Counter)?;
        for (part, time) in parts {
            let labels = [("part", *part)];
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_counter(&time.as_secs_f64(), None::<&Exemplar<Labels, f64>>)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Histogram) -> fmt::Result {
        let bound =
            |bound: Duration| if bound == Duration::MAX { f64::INFINITY } else { bound.as_secs_f64() };
        let buckets: Vec<_> = times.buckets().map(|(upper, count)| (bound(upper), count)).collect();
        let unit = Some(&Unit::Seconds);
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        encoder.encode_histogram::<Labels>(times.sum().as_secs_f64(), times.count(), &buckets, None)
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (stats, mut page) = (&self.0, Page(encoder));
        let scheduler = &stats.scheduler;
        page.gauge("exsa_running", "Requests that hold a sequence", scheduler.running as f64)?;
        page.waiting(&scheduler.waiting_by_class)?;
        for (name, help, tokens) in [
            ("used", "Tokens of KV in blocks held by requests", scheduler.kv_tokens_used),
            ("cached", "Tokens of KV in blocks held only by the prefix cache", scheduler.kv_tokens_cached),
            ("shared", "Tokens of KV in blocks of several sequences", scheduler.kv_tokens_shared),
            ("max", "Tokens of KV in all blocks", scheduler.kv_tokens_max),
        ] {
            page.gauge(&format!("exsa_kv_tokens_{name}"), help, tokens as f64)?;
        }
        for (name, help, count) in [
            ("requests", "Requests accepted", stats.submitted),
            ("requests_finished", "Requests ended, failed ones included", stats.finished),
            ("requests_failed", "Requests that failed", stats.failed),
            ("steps", "Forward passes", stats.steps),
            ("prompt_tokens", "Prompt tokens of admitted requests", scheduler.prompt_tokens),
            ("cached_tokens", "Prompt tokens whose KV was cached", scheduler.cached_tokens),
            ("tokens_computed", "Tokens computed, recomputed ones included", stats.tokens_computed),
            ("tokens_generated", "Tokens generated", stats.tokens_generated),
            ("preemptions", "Preemptions", scheduler.preemptions),
            ("preemptions_saved", "Preemptions whose KV was saved", scheduler.preemptions_saved),
            ("drafted_tokens", "Drafts verified", scheduler.drafted_tokens),
            ("accepted_drafts", "Drafts that became part of an answer", scheduler.accepted_drafts),
            ("embed_passes", "Passes over texts to embed or score", stats.embed_passes),
            ("texts_embedded", "Texts embedded or scored", stats.texts_embedded),
            ("tokens_embedded", "Tokens of texts embedded or scored", stats.tokens_embedded),
        ] {
            page.counter(&format!("exsa_{name}"), help, count)?;
        }
        let times = &stats.step_times;
        page.step_times(&[
            ("plan", times.plan),
            ("forward", times.forward),
            ("sample", times.sample),
            ("emit", times.emit),
            ("embed", times.embed),
        ])?;
        let queue_time = "Time from submission to first admission";
        page.histogram("exsa_queue_time", queue_time, &stats.queue_time)?;
        let first_token = "Time from submission to the first token";
        page.histogram("exsa_time_to_first_token", first_token, &stats.time_to_first_token)?;
        page.histogram("exsa_inter_token", "Time between tokens of a stream", &stats.inter_token)
    }
}
