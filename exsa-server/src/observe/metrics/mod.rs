//! `/metrics`: metrics for Prometheus, in its text format 0.0.4 or as OpenMetrics 1.0, as negotiated with the
//! scraper.
//!
//! Names begin with `exsa_`; times are in seconds, sizes in bytes. Labels are `model` and `class`, and for
//! HTTP requests route, method and status; users become labels only if [`MetricsConfig::users_max`] allows
//! it.

mod engines;
mod http;
mod load_header;
mod operations;
mod page;
mod prompt_cache;
mod registry;
mod vllm;

pub(crate) use http::count;
pub(crate) use load_header::add as add_load_header;
pub(crate) use operations::Refusals;

use crate::audit::AuditLog;
use crate::http::error::ApiError;
use crate::models::Models;
use crate::reload::Reloader;
use crate::state::AppState;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use exsa_cache::PromptCache;
use exsa_core::Generator;
use http::HttpMetrics;
use operations::Operations;
use page::Page;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::{Metric, Registry, Unit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The section `[metrics]` of the configuration file.
///
/// ```
/// use exsa_server::{MetricsConfig, MetricsAlias};
///
/// let config = MetricsConfig::default().alias(MetricsAlias::Vllm).load_header(true);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// Aliases under which metrics are also exported; none by default.
    pub aliases: Vec<MetricsAlias>,
    /// Maximum users that become labels of a metric; the others are summed. 0, the default, exports no
    /// per-user metrics. User names are personal data, and each creates a time series.
    pub users_max: usize,
    /// Whether responses report the server load to clients that request it with
    /// `endpoint-load-metrics-format`; `false` by default.
    pub load_header: bool,
}

/// Aliases from another server's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricsAlias {
    /// `vllm:num_requests_running` and so on, with the labels `model_name` and `engine`.
    Vllm,
}

impl MetricsConfig {
    /// Adds aliases of another server.
    #[must_use]
    pub fn alias(mut self, alias: MetricsAlias) -> Self {
        self.aliases.push(alias);
        self
    }

    /// Sets the maximum users that are labels.
    #[must_use]
    pub fn users_max(mut self, users: usize) -> Self {
        self.users_max = users;
        self
    }

    /// Sets whether responses report the server load.
    #[must_use]
    pub fn load_header(mut self, told: bool) -> Self {
        self.load_header = told;
        self
    }
}

/// The metrics of a server, to which each part adds its own. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    options: Arc<MetricsConfig>,
    http: HttpMetrics,
    refusals: Refusals,
}

impl Metrics {
    pub(crate) fn new(
        options: MetricsConfig,
        generator: Arc<dyn Generator>,
        models: Option<Arc<Models>>,
    ) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            options: Arc::new(options),
            http: HttpMetrics::new(),
            refusals: Refusals::default(),
        };
        metrics.http.register(&metrics);
        metrics.refusals.register(&metrics);
        let snapshot = Snapshot { options: metrics.options.clone(), generator, models };
        metrics.lock().register_collector(Box::new(snapshot));
        metrics
    }

    /// Counters of refused requests.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Adds the counters of the audit log and of reloads.
    pub(crate) fn add_operations(&self, audit: Option<AuditLog>, reloader: Option<Arc<Reloader>>) {
        self.lock().register_collector(Box::new(Operations { audit, reloader }));
    }

    /// Adds the counters of the prompt cache.
    pub(crate) fn add_prompt_cache(&self, cache: Option<Arc<PromptCache>>) {
        if let Some(cache) = cache {
            self.lock().register_collector(Box::new(prompt_cache::Files(cache)));
        }
    }

    /// Adds a metric under a name that begins with `exsa_`. Counters get the suffix `_total`.
    pub(crate) fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.lock().register(name, help, metric);
    }

    /// Adds a metric with a unit, which becomes a suffix of its name.
    pub(crate) fn register_with_unit(&self, name: &str, help: &str, unit: Unit, metric: impl Metric) {
        self.lock().register_with_unit(name, help, unit, metric);
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics as text.
pub(crate) async fn metrics(
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open_metrics = accept.contains("application/openmetrics-text");
    let mut page = String::new();
    let registry = state.metrics.lock();
    let (written, content_type) = match open_metrics {
        true => (text::encode(&mut page, &registry), OPEN_METRICS),
        false => (prometheus_text::encode(&mut page, &registry), PROMETHEUS),
    };
    drop(registry);
    written.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, content_type)], page).into_response())
}

/// Statistics at the time of a scrape.
struct Snapshot {
    options: Arc<MetricsConfig>,
    generator: Arc<dyn Generator>,
    models: Option<Arc<Models>>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let stats = self.generator.stats_by_model();
        engines::write(&stats, &mut page)?;
        if let Some(models) = &self.models {
            registry::write(models, &mut page)?;
            if self.options.users_max > 0 {
                registry::write_users(models, self.options.users_max, &mut page)?;
            }
        }
        if self.options.aliases.contains(&MetricsAlias::Vllm) {
            vllm::write(&stats, &mut page)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("options", &self.options).finish_non_exhaustive()
    }
}
