//! The server: loads a model, listens, and ends on SIGTERM.

use super::log;
use exsa_backend_candle::CandleBackend;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, ThreadOptions};
use exsa_core::{Engine, Shutdown};
use exsa_server::config::{Config, ConfigSource, EngineConfig};
use exsa_server::listener::Listeners;
use exsa_server::reload::{self, Reloader};
use exsa_server::{Live, Readiness, Server};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// Serves until the process is told to end.
pub(super) fn serve(source: ConfigSource) -> Result<(), Box<dyn Error>> {
    let config = source.load()?;
    let level = log::start(&config.log)?;
    let engine = Arc::new(start_engine(&config.engine)?);
    let reloader = Reloader::new(source, config.clone()).part(level).part(reload::EngineMode(engine.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(listen(&config, engine.clone(), reloader));
    // Ends what the drain left over.
    engine.shut_down(Shutdown::Abort);
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

fn start_engine(config: &EngineConfig) -> Result<Engine, Box<dyn Error>> {
    let source = config.model.as_ref().map_or(ModelSource::Embedded(exsa_tiny::GGUF), ModelSource::file);
    let load = LoadOptions::new().threads(ThreadOptions::new(config.threads));
    let model = CandleBackend::new().load(&source, &load, &mut LoadProgress::none())?;
    info!(model = model.info().summary(), "model loaded");
    Ok(Engine::start(model, config.options())?)
}

async fn listen(config: &Config, engine: Arc<Engine>, reloader: Reloader) -> Result<(), Box<dyn Error>> {
    let (options, limits) = (Live::new(config.server_options()), Live::new(config.limits.connections()));
    let (drain, readiness) = (Live::new(config.drain.clone()), Readiness::default());
    let reloader = reloader
        .part(reload::Routes(options.clone()))
        .part(reload::Limits(limits.clone()))
        .part(reload::Drain(drain.clone()));
    let (listeners, reloader, places) = bind(config, reloader).await?;
    let reloader = Arc::new(reloader);
    reload_on_hangup(reloader.clone())?;
    let stopped = stop_signal()?;
    places.iter().for_each(|place| info!("listening on {place}"));
    let app =
        Server::new(engine.clone()).options(options).readiness(readiness.clone()).reloader(reloader).router();
    let stop = async move {
        stopped.await;
        readiness.begin_drain();
        tokio::time::sleep(drain.get().delay).await;
        let limit = drain.get().timeout;
        info!("draining: no new requests; running ones get {} s", limit.as_secs());
        engine.begin_shutdown(Shutdown::Drain);
        limit
    };
    if !listeners.serve(app, limits, stop).await {
        warn!("the time to drain is over; running requests are cancelled");
    }
    Ok(())
}

/// Binds all addresses; certificates become a part of the reload. Returns the addresses in words too.
async fn bind(
    config: &Config,
    reloader: Reloader,
) -> Result<(Listeners, Reloader, Vec<String>), Box<dyn Error>> {
    let (mut listeners, mut places) = (Listeners::new(), Vec::new());
    #[cfg(feature = "tls")]
    let (tls, reloader) = match config.tls.is_on() {
        true => {
            let tls = exsa_server::tls::Tls::open(&config.tls)?;
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
        let socket = exsa_server::listener::UnixSocket::bind(path, mode)
            .map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
        places.push(format!("the UNIX socket {}", path.display()));
        listeners = listeners.unix(socket);
    }
    Ok((listeners, reloader, places))
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Box<dyn Error>> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// Reloads the configuration on every SIGHUP from now on.
fn reload_on_hangup(reloader: Arc<Reloader>) -> Result<(), Box<dyn Error>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let reloader = reloader.clone();
                // The outcome is in the log.
                let _ = tokio::task::spawn_blocking(move || reloader.reload_logged()).await;
            }
        });
    }
    #[cfg(not(unix))]
    drop(reloader);
    Ok(())
}

/// Listens to SIGTERM and interrupts of the terminal from now on; the future is ready when one has come.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let stopped = {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    };
    #[cfg(not(unix))]
    let stopped = async { drop(tokio::signal::ctrl_c().await) };
    Ok(stopped)
}
