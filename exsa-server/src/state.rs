//! State shared by all handlers.

use crate::access::Access;
use crate::apis::openai::responses::running::RunningResponses;
use crate::apis::openai::responses::store::ResponseStore;
use crate::audit::AuditLog;
use crate::http::error::ApiError;
use crate::inference::in_flight::InFlight;
use crate::live::Live;
use crate::models::Models;
use crate::observe::health::Watchdog;
use crate::observe::metrics::{Metrics, MetricsConfig};
use crate::options::ServerOptions;
use crate::quota::Quotas;
#[cfg(feature = "otel")]
use crate::telemetry::Telemetry;
use exsa_core::model_info::ModelInfo;
use exsa_core::{Generator, SubmitError};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Readiness switch of the server. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// Announces a drain: `/health/ready` answers 503 from then on.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether a drain was announced.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// State of the handlers.
pub(crate) struct AppState {
    pub(crate) generator: Arc<dyn Generator>,
    pub(crate) options: Live<ServerOptions>,
    pub(crate) readiness: Readiness,
    /// The models, if they can be loaded and unloaded.
    pub(crate) models: Option<Arc<Models>>,
    pub(crate) metrics: Metrics,
    pub(crate) watchdog: Mutex<Watchdog>,
    pub(crate) clock: Instant,
    /// Authentication; without it every caller is anonymous.
    pub(crate) access: Option<Access>,
    pub(crate) quotas: Option<Quotas>,
    pub(crate) audit: Option<AuditLog>,
    /// Export of traces.
    #[cfg(feature = "otel")]
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) in_flight: InFlight,
    pub(crate) responses: Arc<ResponseStore>,
    pub(crate) running_responses: RunningResponses,
    /// Unix time at which the server started, in seconds.
    pub(crate) started: u64,
    ids: AtomicU64,
    keys: RandomState,
}

impl AppState {
    pub(crate) fn new(
        generator: Arc<dyn Generator>,
        options: Live<ServerOptions>,
        readiness: Readiness,
        models: Option<Arc<Models>>,
        metrics: MetricsConfig,
    ) -> Self {
        let metrics = Metrics::new(metrics, generator.clone(), models.clone());
        let responses = Arc::new(ResponseStore::new(options.get().stored_responses.clone()));
        Self {
            generator,
            options,
            readiness,
            models,
            access: None,
            quotas: None,
            audit: None,
            #[cfg(feature = "otel")]
            telemetry: None,
            metrics,
            watchdog: Mutex::default(),
            clock: Instant::now(),
            in_flight: InFlight::default(),
            responses,
            running_responses: RunningResponses::default(),
            started: unix_seconds(),
            ids: AtomicU64::new(0),
            keys: RandomState::new(),
        }
    }

    /// Returns a new id that begins with `prefix`, with 64 random bits.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{:016x}{:08x}", self.keys.hash_one(number), number)
    }

    /// Returns the model named by a request, or the default one.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<ModelInfo>, ApiError> {
        let models = self.generator.models();
        let found = match name {
            None | Some("") => models.first(),
            Some(name) => models.iter().find(|model| model.name == name),
        };
        found.cloned().ok_or_else(|| {
            let available = models.iter().map(|model| model.name.clone()).collect();
            SubmitError::UnknownModel { model: name.unwrap_or_default().to_owned(), available }.into()
        })
    }

    /// Runs `work` on a blocking thread, so that tokenizing a long prompt stalls no other connection.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, SubmitError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.off_thread(|state| Ok(work(state)?)).await
    }

    /// Like [`blocking`](Self::blocking), for work with its own errors.
    pub(crate) async fn off_thread<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let state = self.clone();
        match tokio::task::spawn_blocking(move || work(&state)).await {
            Ok(result) => result,
            Err(error) => Err(ApiError::internal(format!("a worker thread ended: {error}"))),
        }
    }
}

/// Unix time in seconds.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
