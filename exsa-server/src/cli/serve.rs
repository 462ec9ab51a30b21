//! Runs the server: loads models, listens, and shuts down on SIGTERM.

use super::log;
use crate::access::{Access, AccessConfig};
use crate::audit::{Act, AuditLog, Record};
use crate::config::{Config, ConfigSource};
#[cfg(feature = "kv-events")]
use crate::fleet::KvEvents;
use crate::listener::Listeners;
use crate::models::Models;
use crate::quota::Quotas;
use crate::reload::{self, Reloader};
#[cfg(feature = "otel")]
use crate::telemetry::Telemetry;
use crate::{Live, Readiness, Server};
use axum::Router;
use exsa_backend_candle::CandleBackend;
use exsa_cache::PromptCache;
use exsa_core::backend::InferenceBackend;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{error, info, warn};

/// Maximum time at shutdown to write saved prompts.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Parts of the server that outlive its listeners.
struct Parts {
    models: Arc<Models>,
    prompt_cache: Option<Arc<PromptCache>>,
    access: Option<Access>,
    quotas: Option<Quotas>,
    audit: Option<AuditLog>,
    #[cfg(feature = "otel")]
    telemetry: Option<Telemetry>,
}

/// Serves until the process is signalled to stop.
pub(super) fn serve(source: ConfigSource) -> Result<(), Box<dyn Error>> {
    let config = source.load()?;
    let level = log::start(&config.log)?;
    let audit = AuditLog::open(&config.audit)?;
    let access = config.access.enabled.then(|| open_access(&config.access)).transpose()?;
    let quotas = open_quotas(&config, access.as_ref())?;
    let prompt_cache = config.prompt_cache.open()?;
    let models = Arc::new(open_models(&config, prompt_cache.clone())?);
    #[cfg(feature = "otel")]
    let telemetry = Telemetry::open(&config.telemetry)?;
    #[cfg(not(feature = "otel"))]
    tell_missing_feature();
    let parts = Parts {
        models,
        prompt_cache,
        access,
        quotas,
        audit,
        #[cfg(feature = "otel")]
        telemetry,
    };
    let mut reloader =
        Reloader::new(source, config.clone()).part(level).part(reload::ModelTables(parts.models.clone()));
    reloader =
        reloader.part(reload::Callers { access: parts.access.clone(), started: config.access.clone() });
    if let Some(quotas) = &parts.quotas {
        reloader = reloader.part(reload::Quota(quotas.clone()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(listen(&config, &parts, reloader));
    // Aborts the requests that remain after the drain.
    parts.models.registry().shut_down(Some(Duration::ZERO));
    runtime.shutdown_timeout(Duration::from_secs(1));
    // Prompts that the engines saved at shutdown.
    if parts.prompt_cache.as_ref().is_some_and(|cache| !cache.flush(FLUSH_MAX)) {
        warn!("prompt cache: not everything was written within {} s", FLUSH_MAX.as_secs());
    }
    // Interrupted requests are charged and recorded before the books are closed.
    if let Some(Err(failure)) = parts.quotas.map(|quotas| quotas.close()) {
        error!("{failure}");
    }
    if let Some(audit) = parts.audit {
        audit.close();
    }
    #[cfg(feature = "otel")]
    if let Some(telemetry) = parts.telemetry {
        telemetry.close();
    }
    served
}

/// Warns if the environment names a collector but the build does not include the feature.
#[cfg(not(feature = "otel"))]
fn tell_missing_feature() {
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            warn!("{name} has no effect: this exsa-server was built without OpenTelemetry (--features otel)");
        }
    }
}

/// Opens the models of the tables and of `engine.model`, and begins the loads at start.
fn open_models(config: &Config, cache: Option<Arc<PromptCache>>) -> Result<Models, Box<dyn Error>> {
    let backend: Arc<dyn InferenceBackend> = Arc::new(CandleBackend::new());
    let mut tables = config.models.clone();
    if let Some(path) = &config.engine.model {
        tables = tables.with_file(path, &*backend)?;
    }
    let prompt_cache = cache.map(|cache| config.prompt_cache.options(cache));
    let models = Models::open(&tables, backend, config.engine.options().prompt_cache(prompt_cache))?;
    Ok(models.with_pulls(&config.pull)?)
}

async fn listen(config: &Config, parts: &Parts, reloader: Reloader) -> Result<(), Box<dyn Error>> {
    let (options, limits) = (Live::new(config.server_options()), Live::new(config.limits.connections()));
    let (drain, readiness) = (Live::new(config.drain.clone()), Readiness::default());
    let reloader = reloader
        .part(reload::Routes(options.clone()))
        .part(reload::Limits(limits.clone()))
        .part(reload::Drain(drain.clone()));
    let Bound { listeners, reloader, places, grpc } = bind(config, reloader).await?;
    let reloader = Arc::new(reloader);
    reload_on_hangup(reloader.clone(), parts.audit.clone())?;
    let mut signals = Signals::listen()?;
    places.iter().for_each(|place| info!("listening on {place}"));
    let mut server = Server::of_models(parts.models.clone())
        .options(options)
        .readiness(readiness.clone())
        .metrics(config.metrics.clone())
        .prompt_cache(parts.prompt_cache.clone())
        .reloader(reloader);
    if let Some(access) = &parts.access {
        #[cfg(unix)]
        tokio::spawn(crate::access::ControlSocket::bind(access)?.serve());
        server = server.access(access.clone());
    }
    if let Some(quotas) = &parts.quotas {
        server = server.quotas(quotas.clone());
    }
    if let Some(audit) = &parts.audit {
        server = server.audit(audit.clone());
    }
    #[cfg(feature = "otel")]
    let server = server.telemetry(parts.telemetry.clone());
    #[cfg(feature = "kv-events")]
    let server = match &config.fleet.kv_events {
        Some(events) => {
            let address = config.listen.addresses().first().map(SocketAddr::to_string).unwrap_or_default();
            server.kv_events(KvEvents::open(events, parts.models.registry(), &address).await?)
        }
        None => server,
    };
    let (app, listeners) = grpc.join(server, listeners, config);
    // The server is live while it loads models, and ready afterwards.
    let starting = parts.models.clone();
    let started = tokio::task::spawn_blocking(move || starting.wait_for_start());
    let failed = Arc::new(Mutex::new(None));
    let failure = failed.clone();
    let registry = parts.models.registry().clone();
    let stop = async move {
        let no_model = async {
            match started.await {
                Ok(Err(error)) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                _ => std::future::pending().await,
            }
        };
        let stop = tokio::select! {
            stop = signals.next() => stop,
            () = no_model => return Duration::ZERO,
        };
        readiness.begin_drain();
        let delay = drain.get().delay;
        // An interrupt at a terminal, or a second signal, does not wait for a load balancer.
        if stop == Stop::Terminate && !delay.is_zero() {
            info!("leaving: /health/ready answers 503; requests are accepted for {} s", delay.as_secs_f64());
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = signals.next() => {}
            }
        }
        let limit = drain.get().timeout;
        info!("draining: no new requests; running ones get {} s", limit.as_secs());
        registry.begin_shutdown(None);
        limit
    };
    if !listeners.serve(app, limits, stop).await {
        warn!("the time to drain is over; running requests are cancelled");
    }
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Opens the quotas in the database of the keys. Without keys they start fresh with each process.
fn open_quotas(config: &Config, access: Option<&Access>) -> Result<Option<Quotas>, Box<dyn Error>> {
    let database = access.map(|access| access.store().database().clone());
    if database.is_none() && !config.quota.is_set() {
        return Ok(None);
    }
    if database.is_none() {
        warn!("the quotas are kept in memory alone: there is no data folder without access.enabled");
    }
    Ok(Some(Quotas::open(config.quota.clone(), database)?))
}

/// Opens the keys.
fn open_access(config: &AccessConfig) -> Result<Access, Box<dyn Error>> {
    let access = Access::open(config)?;
    if access.keys().is_empty() && config.jwt.is_none() && config.import.is_none() {
        warn!("there is no key yet; 'exsa-server key new --name NAME --data FOLDER' makes one");
    }
    Ok(access)
}

/// Bound addresses.
struct Bound {
    listeners: Listeners,
    /// The reloader, including the certificates.
    reloader: Reloader,
    /// The addresses as text.
    places: Vec<String>,
    grpc: GrpcSocket,
}

/// Socket of the gRPC services, if enabled.
#[derive(Default)]
struct GrpcSocket {
    #[cfg(feature = "grpc")]
    listener: Option<TcpListener>,
    #[cfg(all(feature = "grpc", feature = "tls"))]
    tls: Option<crate::tls::Tls>,
}

#[cfg(feature = "grpc")]
impl GrpcSocket {
    /// Binds the configured address.
    async fn bind(config: &Config, places: &mut Vec<String>) -> Result<Self, Box<dyn Error>> {
        let Some(address) = config.grpc.listen else { return Ok(Self::default()) };
        let listener = bind_tcp(address).await?;
        places.push(format!("{} for gRPC", listener.local_addr()?));
        Ok(Self { listener: Some(listener), ..Self::default() })
    }

    /// Adds the routes of `server`; those of gRPC are added to `listeners` with their socket.
    fn join(self, server: Server, listeners: Listeners, config: &Config) -> (Router, Listeners) {
        let Some(listener) = self.listener else { return (server.router(), listeners) };
        let (app, grpc) = server.routers(&config.grpc);
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            return (app, listeners.http2_tls(listener, tls, grpc));
        }
        (app, listeners.http2(listener, grpc))
    }
}

#[cfg(not(feature = "grpc"))]
impl GrpcSocket {
    fn join(self, server: Server, listeners: Listeners, _: &Config) -> (Router, Listeners) {
        (server.router(), listeners)
    }
}

/// Binds all addresses.
async fn bind(config: &Config, reloader: Reloader) -> Result<Bound, Box<dyn Error>> {
    let (mut listeners, mut places) = (Listeners::new(), Vec::new());
    #[cfg(feature = "tls")]
    let (tls, reloader) = match config.tls.is_on() {
        true => {
            let tls = crate::tls::Tls::open(&config.tls)?;
            (Some(tls.clone()), reloader.part(reload::Certificates(tls)))
        }
        false => (None, reloader),
    };
    for address in config.listen.addresses() {
        let listener = bind_tcp(address).await?;
        let address = listener.local_addr()?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &tls {
            places.push(format!("https://{address}"));
            listeners = listeners.tls(listener, tls.clone());
            continue;
        }
        places.push(format!("http://{address}"));
        listeners = listeners.tcp(listener);
    }
    #[cfg(unix)]
    if let Some(path) = &config.listen.unix {
        let mode = config.listen.mode().unwrap_or(0o600);
        let socket = crate::listener::UnixSocket::bind(path, mode)
            .map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
        places.push(format!("the UNIX socket {}", path.display()));
        listeners = listeners.unix(socket);
    }
    #[cfg(feature = "grpc")]
    let grpc = GrpcSocket::bind(config, &mut places).await?;
    #[cfg(all(feature = "grpc", feature = "tls"))]
    let grpc = GrpcSocket { tls, ..grpc };
    #[cfg(not(feature = "grpc"))]
    let grpc = GrpcSocket::default();
    Ok(Bound { listeners, reloader, places, grpc })
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Box<dyn Error>> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// Reloads the configuration on every further SIGHUP.
fn reload_on_hangup(reloader: Arc<Reloader>, audit: Option<AuditLog>) -> Result<(), Box<dyn Error>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let (reloader, audit) = (reloader.clone(), audit.clone());
                // The outcome is logged.
                let reload = move || {
                    let outcome =
                        if reloader.reload_logged().is_ok() { "ok" } else { "invalid_configuration" };
                    let record = Record::new(Act::ConfigurationReloaded).detail("SIGHUP").outcome(outcome);
                    drop(audit.map(|log| log.append(record)));
                };
                let _ = tokio::task::spawn_blocking(reload).await;
            }
        });
    }
    #[cfg(not(unix))]
    drop((reloader, audit));
    Ok(())
}

/// A signal that stops the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Terminate,
    Interrupt,
}

/// Waits for SIGTERM and terminal interrupts.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

/// Waits for terminal interrupts.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Stop {
        drop(tokio::signal::ctrl_c().await);
        Stop::Interrupt
    }
}
