//! [`Server`], which builds the routes from its parts.

use crate::access::{self, Access, Scope};
use crate::apis::{anthropic, llama, ollama, openai, openapi, tokens};
use crate::audit::AuditLog;
#[cfg(feature = "grpc")]
use crate::config::GrpcConfig;
#[cfg(feature = "kv-events")]
use crate::fleet::KvEvents;
#[cfg(feature = "grpc")]
use crate::grpc;
use crate::http::{body, closing, context, cors, error, origin, request_log};
use crate::inference::books;
use crate::live::Live;
use crate::models::Models;
use crate::observe::metrics::MetricsConfig;
use crate::observe::{health, metrics, stats};
use crate::options::ServerOptions;
use crate::quota::{self, Quotas};
use crate::reload::{self, Reloader};
use crate::state::{AppState, Readiness};
#[cfg(feature = "otel")]
use crate::telemetry::Telemetry;
use crate::{models, page};
use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post};
use exsa_cache::PromptCache;
use exsa_core::Generator;
use std::fmt;
use std::sync::Arc;

/// Builds the server's [`Router`] from its parts.
///
/// ```
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::{Engine, EngineOptions};
/// use exsa_server::{Server, ServerOptions};
/// use std::sync::Arc;
///
/// let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
/// let app = Server::new(Arc::new(engine)).options(ServerOptions::default()).router();
/// # let _ = app;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct Server {
    generator: Arc<dyn Generator>,
    options: Live<ServerOptions>,
    readiness: Readiness,
    models: Option<Arc<Models>>,
    metrics: MetricsConfig,
    access: Option<Access>,
    quotas: Option<Quotas>,
    audit: Option<AuditLog>,
    reloader: Option<Arc<Reloader>>,
    prompt_cache: Option<Arc<PromptCache>>,
    #[cfg(feature = "otel")]
    telemetry: Option<Telemetry>,
    #[cfg(feature = "kv-events")]
    kv_events: Option<KvEvents>,
}

impl Server {
    /// Creates a server with the default options.
    pub fn new(generator: Arc<dyn Generator>) -> Self {
        Self {
            generator,
            options: Live::default(),
            readiness: Readiness::default(),
            models: None,
            metrics: MetricsConfig::default(),
            access: None,
            quotas: None,
            audit: None,
            reloader: None,
            prompt_cache: None,
            #[cfg(feature = "otel")]
            telemetry: None,
            #[cfg(feature = "kv-events")]
            kv_events: None,
        }
    }

    /// Sets limits and policies of the routes; with a [`Live`] value, the host can change them later.
    pub fn options(mut self, options: impl Into<Live<ServerOptions>>) -> Self {
        self.options = options.into();
        self
    }

    /// Sets the switch with which the host announces a drain to load balancers.
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Creates a server for the models of a registry, with routes that load, unload and switch them.
    pub fn of_models(models: impl Into<Arc<Models>>) -> Self {
        let models = models.into();
        Self { models: Some(models.clone()), ..Self::new(models.registry().clone()) }
    }

    /// Sets the options of metrics.
    pub fn metrics(mut self, config: MetricsConfig) -> Self {
        self.metrics = config;
        self
    }

    /// Requires a key or token for each request. Without it every caller has all rights.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Sets the quotas of callers.
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Sets the audit log. The host closes it after the last request.
    pub fn audit(mut self, log: AuditLog) -> Self {
        self.audit = Some(log);
        self
    }

    /// Sets the prompt cache of the engines, whose counters are exported as metrics.
    pub fn prompt_cache(mut self, cache: impl Into<Option<Arc<PromptCache>>>) -> Self {
        self.prompt_cache = cache.into();
        self
    }

    /// Sets the reloader of `POST /v1/config/reload`; without it the route does not exist.
    pub fn reloader(mut self, reloader: Arc<Reloader>) -> Self {
        self.reloader = Some(reloader);
        self
    }

    /// Sets the export of traces. The host closes it after the last request.
    #[cfg(feature = "otel")]
    pub fn telemetry(mut self, telemetry: impl Into<Option<Telemetry>>) -> Self {
        self.telemetry = telemetry.into();
        self
    }

    /// Sets the prefix cache events, whose addresses `GET /kv_event_sources` lists.
    #[cfg(feature = "kv-events")]
    pub fn kv_events(mut self, events: impl Into<Option<KvEvents>>) -> Self {
        self.kv_events = events.into();
        self
    }

    /// Returns the routes.
    pub fn router(self) -> Router {
        self.build().1
    }

    /// Returns the routes, and those of the gRPC services for a separate socket
    /// ([`Listeners::http2`](crate::listener::Listeners::http2)).
    #[cfg(feature = "grpc")]
    pub fn routers(self, config: &GrpcConfig) -> (Router, Router) {
        #[cfg(feature = "kv-events")]
        let events = self.kv_events.clone();
        let (state, app) = self.build();
        let host = grpc::ServerHost {
            state,
            #[cfg(feature = "kv-events")]
            events,
        };
        let grpc = grpc::router(host, config);
        (app, grpc)
    }

    /// Returns the state of the handlers, and the routes.
    fn build(self) -> (Arc<AppState>, Router) {
        #[cfg(feature = "otel")]
        let telemetry = self.telemetry;
        let prompt_cache = self.prompt_cache;
        let observed = observation();
        #[cfg(feature = "kv-events")]
        let observed = match self.kv_events {
            Some(events) => observed.route("/kv_event_sources", get(move || events.clone().sources())),
            None => observed,
        };
        let Self { generator, options, readiness, models, metrics, access, quotas, audit, reloader, .. } =
            self;
        if let (Some(access), Some(log)) = (&access, &audit) {
            books::observe(access, log.clone());
        }
        let reload = reloader.clone().map(configuration);
        let keys = access.as_ref().map(|access| access::routes(access.keys().clone()));
        let mut state = AppState::new(generator, options, readiness, models, metrics);
        state.metrics.add_operations(audit.clone(), reloader.clone());
        state.metrics.add_prompt_cache(prompt_cache);
        (state.access, state.quotas, state.audit) = (access, quotas, audit);
        #[cfg(feature = "otel")]
        if let Some(telemetry) = telemetry {
            telemetry.register(&state.metrics);
            state.telemetry = Some(telemetry);
        }
        let state = Arc::new(state);
        let load = middleware::from_fn_with_state(state.clone(), metrics::add_load_header);
        let recorded = |routes: Router<Arc<AppState>>| {
            routes.route_layer(middleware::from_fn_with_state(state.clone(), books::record_act))
        };
        let scoped = |routes: Router<Arc<AppState>>, scope: Scope| match routes.has_routes() {
            true => routes.route_layer(middleware::from_fn_with_state(scope, access::require)),
            false => routes,
        };
        let app = Router::new()
            .merge(scoped(inference().route_layer(load), Scope::Infer))
            .merge(scoped(recorded(lifecycle().merge(fetching())), Scope::Models))
            .merge(scoped(observed, Scope::Metrics))
            .merge(keys.map(|keys| scoped(recorded(keys), Scope::Keys)).unwrap_or_default())
            .merge(reload.map(|reload| scoped(recorded(reload), Scope::Models)).unwrap_or_default())
            .merge(open())
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::method_not_allowed)
            .layer(middleware::from_fn_with_state(state.clone(), quota::add_headers))
            .layer(middleware::from_fn(request_log::name_caller))
            .layer(middleware::from_fn_with_state(state.clone(), access::authenticate))
            .layer(middleware::from_fn_with_state(state.clone(), origin::check))
            .layer(middleware::from_fn_with_state(state.clone(), cors::add))
            .layer(middleware::from_fn_with_state(state.clone(), body::limit))
            .layer(middleware::from_fn_with_state(state.clone(), context::add))
            .layer(middleware::from_fn_with_state(state.clone(), metrics::count))
            .layer(middleware::from_fn_with_state(state.clone(), closing::close))
            .with_state(state.clone());
        (state, app)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Routes that generate, embed or tokenize.
fn inference() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/chat/completions", post(openai::chat::complete))
        .route("/chat/completions", post(openai::chat::complete))
        .route("/v1/chat/completions/input_tokens", post(openai::chat::input_tokens))
        .route("/chat/completions/input_tokens", post(openai::chat::input_tokens))
        .route("/v1/completions", post(openai::completions::complete))
        .route("/v1/responses", post(openai::responses::create))
        .route("/responses", post(openai::responses::create))
        .route("/v1/responses/{id}", get(openai::responses::show).delete(openai::responses::delete))
        .route("/v1/responses/{id}/cancel", post(openai::responses::cancel))
        .route("/v1/responses/{id}/input_items", get(openai::responses::input_items))
        .route("/v1/embeddings", post(openai::embeddings::embed))
        .route("/embeddings", post(openai::embeddings::embed))
        .route("/v1/rerank", post(openai::rerank::rerank))
        .route("/rerank", post(openai::rerank::rerank))
        .route("/v1/models", get(openai::models::list))
        .route("/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::show))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/push", post(ollama::no_files))
        .route("/api/create", post(ollama::no_files))
        .route("/api/copy", post(ollama::no_files))
        .route("/api/blobs/{digest}", post(ollama::no_files).head(ollama::no_files))
        .route("/completion", post(llama::complete))
        .route("/completions", post(llama::complete))
        .route("/infill", post(llama::infill))
        .route("/embedding", post(llama::embed))
        .route("/apply-template", post(llama::apply))
        .route("/props", get(llama::props))
        .route("/lora-adapters", get(models::adapters::llama_list).post(models::adapters::llama_set))
        .route("/v1/tokenize", post(tokens::tokenize))
        .route("/tokenize", post(tokens::tokenize))
        .route("/v1/detokenize", post(tokens::detokenize))
        .route("/detokenize", post(tokens::detokenize))
}

/// Lifecycle routes.
fn lifecycle() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/models/list", get(models::routes::list))
        .route("/v1/models/active", get(models::routes::active).post(models::routes::set_active))
        .route("/v1/models/events", get(models::routes::events))
        .route("/v1/models/load", post(models::routes::load))
        .route("/v1/models/unload", post(models::routes::unload))
        .route("/v1/models/reload", post(models::routes::reload))
        .route("/v1/models/sleep", post(models::routes::sleep))
        .route("/v1/models/wake", post(models::routes::wake))
        .route("/v1/models/cancel", post(models::routes::cancel))
        .route("/v1/models/mode", post(models::routes::set_mode))
        .route("/v1/models/adapters", get(models::adapters::list))
        .route("/v1/load_lora_adapter", post(models::adapters::load))
        .route("/v1/unload_lora_adapter", post(models::adapters::unload))
}

/// Routes that fetch and delete models.
fn fetching() -> Router<Arc<AppState>> {
    Router::new().route("/api/pull", post(ollama::pull)).route("/api/delete", delete(ollama::delete))
}

/// Observability routes.
fn observation() -> Router<Arc<AppState>> {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/v1/stats", get(stats::stats))
        .route("/slots", get(llama::slots))
}

/// Configuration routes.
fn configuration(reloader: Arc<Reloader>) -> Router<Arc<AppState>> {
    Router::new().route("/v1/config/reload", post(move || reload::handle(reloader.clone())))
}

/// Public routes.
fn open() -> Router<Arc<AppState>> {
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset))
        .route("/api/version", get(ollama::version))
        .route("/openapi.json", get(openapi::openapi))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
}
