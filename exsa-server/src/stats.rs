//! `/v1/stats`: the engine's counters, gauges and histograms as JSON, for the page and for scripts.
//!
//! Counters have the names of `/metrics` without their prefix; times are in seconds.

use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use exsa_core::Priority;
use exsa_core::stats::{EngineStats, Histogram};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Figures of all models together.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    uptime_seconds: f64,
    running: usize,
    waiting: usize,
    waiting_by_class: BTreeMap<&'static str, usize>,
    kv_tokens: KvTokens,
    totals: Totals,
    latency: Latency,
}

/// Tokens of KV, by use of their blocks.
#[derive(Debug, Serialize)]
struct KvTokens {
    used: usize,
    cached: usize,
    shared: usize,
    max: usize,
}

/// Counters since the start.
#[derive(Debug, Serialize)]
struct Totals {
    requests: u64,
    requests_finished: u64,
    requests_failed: u64,
    steps: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    tokens_computed: u64,
    tokens_generated: u64,
    preemptions: u64,
    drafted_tokens: u64,
    accepted_drafts: u64,
    texts_embedded: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    queue_time: Times,
    time_to_first_token: Times,
    inter_token: Times,
}

/// A histogram. Quantiles are upper bounds of buckets.
#[derive(Debug, Serialize)]
struct Times {
    count: u64,
    sum: f64,
    mean: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    /// Upper bound and count of each bucket, not cumulative; the bound of the last is null.
    buckets: Vec<(Option<f64>, u64)>,
}

impl From<&Histogram> for Times {
    fn from(times: &Histogram) -> Self {
        let quantile = |q| times.quantile(q).and_then(finite);
        Self {
            count: times.count(),
            sum: times.sum().as_secs_f64(),
            mean: times.mean().and_then(finite),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            buckets: times.buckets().map(|(bound, count)| (finite(bound), count)).collect(),
        }
    }
}

/// Seconds; `None` for the bound of a bucket without one.
fn finite(time: Duration) -> Option<f64> {
    (time != Duration::MAX).then_some(time.as_secs_f64())
}

impl Stats {
    fn new(stats: &EngineStats, uptime: Duration) -> Self {
        let scheduler = &stats.scheduler;
        let by_class = |class: Priority| (class.name(), scheduler.waiting_by_class[class.index()]);
        Self {
            uptime_seconds: uptime.as_secs_f64(),
            running: scheduler.running,
            waiting: scheduler.waiting,
            waiting_by_class: Priority::ALL.into_iter().map(by_class).collect(),
            kv_tokens: KvTokens {
                used: scheduler.kv_tokens_used,
                cached: scheduler.kv_tokens_cached,
                shared: scheduler.kv_tokens_shared,
                max: scheduler.kv_tokens_max,
            },
            totals: Totals {
                requests: stats.submitted,
                requests_finished: stats.finished,
                requests_failed: stats.failed,
                steps: stats.steps,
                prompt_tokens: scheduler.prompt_tokens,
                cached_tokens: scheduler.cached_tokens,
                tokens_computed: stats.tokens_computed,
                tokens_generated: stats.tokens_generated,
                preemptions: scheduler.preemptions,
                drafted_tokens: scheduler.drafted_tokens,
                accepted_drafts: scheduler.accepted_drafts,
                texts_embedded: stats.texts_embedded,
            },
            latency: Latency {
                queue_time: (&stats.queue_time).into(),
                time_to_first_token: (&stats.time_to_first_token).into(),
                inter_token: (&stats.inter_token).into(),
            },
        }
    }
}

/// The figures as JSON.
pub(crate) async fn stats(State(state): State<Arc<AppState>>) -> Json<Stats> {
    Json(Stats::new(&state.generator.stats(), state.clock.elapsed()))
}
