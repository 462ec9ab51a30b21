//! `/v1/stats`: the engines' counters, gauges and histograms as JSON, for the page and for scripts.
//!
//! Counters have the names of `/metrics` without the prefix; times are in seconds. User names are personal
//! data, so they are only included if requested.

use crate::http::error::ApiError;
use crate::models::Models;
use crate::state::AppState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use exsa_core::Priority;
use exsa_core::stats::{EngineStats, Histogram};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Figures over all models.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    uptime_seconds: f64,
    running: usize,
    waiting: usize,
    waiting_by_class: [ClassQueue; Priority::COUNT],
    /// Users with waiting answers; omitted unless requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_by_user: Option<Vec<UserQueue>>,
    kv_tokens: KvTokens,
    totals: Totals,
    latency: Latency,
}

/// Waiting requests of a priority class.
#[derive(Debug, Serialize)]
struct ClassQueue {
    class: &'static str,
    waiting: usize,
}

/// Waiting answers of a user; those of requests without a user have an empty name.
#[derive(Debug, Serialize)]
struct UserQueue {
    user: String,
    waiting: usize,
}

/// Tokens of KV, by state of their blocks.
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
        let by_class = |class: Priority| ClassQueue {
            class: class.name(),
            waiting: scheduler.waiting_by_class[class.index()],
        };
        Self {
            uptime_seconds: uptime.as_secs_f64(),
            running: scheduler.running,
            waiting: scheduler.waiting,
            waiting_by_class: Priority::ALL.map(by_class),
            waiting_by_user: None,
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

/// Parameters of the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Whether queues are also listed by user.
    users: bool,
}

/// The figures as JSON.
pub(crate) async fn stats(
    State(state): State<Arc<AppState>>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Stats>, ApiError> {
    let Query(parameters) = parameters.map_err(|error| {
        ApiError::invalid(format!("{}; allowed is users=true or users=false", error.body_text()))
    })?;
    let mut stats = Stats::new(&state.generator.stats(), state.clock.elapsed());
    if let (true, Some(models)) = (parameters.users, &state.models) {
        stats.waiting_by_user = Some(by_user(models));
    }
    Ok(Json(stats))
}

/// Queues of users over all models.
fn by_user(models: &Models) -> Vec<UserQueue> {
    let mut queues = BTreeMap::<Arc<str>, usize>::new();
    for (user, waiting) in models.registry().waiting_by_user().into_iter().flat_map(|(_, users)| users) {
        *queues.entry(user).or_default() += waiting;
    }
    queues.into_iter().map(|(user, waiting)| UserQueue { user: user.to_string(), waiting }).collect()
}
