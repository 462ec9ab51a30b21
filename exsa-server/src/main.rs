//! The binary: loads a model and serves it.

use clap::Parser;
use exsa_backend_candle::CandleBackend;
use exsa_core::Mode;
use exsa_core::backend::InferenceBackend;
use exsa_server::listener::{self, ConnectionLimits};
use exsa_server::models::{ModelDefaults, Models, ModelsConfig};
use exsa_server::{Readiness, Server, ServerOptions};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// Serves a model over HTTP, with an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A GGUF file; the built-in story model without it
    #[arg(long, short, value_name = "FILE", env = "EXSA_MODEL")]
    model: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), env = "EXSA_HOST")]
    host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, short, default_value_t = 8080, env = "EXSA_PORT")]
    port: u16,
    /// Allow an address beyond loopback although the server has no authentication
    #[arg(long)]
    insecure_no_auth: bool,
    /// Host name that requests may be addressed to, beside loopback names; repeatable
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Origin whose pages may send requests, as https://app.example.org; repeatable
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// Threads that compute; as many as there are physical cores without it
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Maximum sequences that are generated at a time
    #[arg(long, default_value_t = 16, value_name = "N")]
    sequences: usize,
    /// What the scheduler optimizes: latency, balanced or throughput
    #[arg(long, default_value = "balanced", value_parser = read_mode)]
    mode: Mode,
    /// Maximum requests that wait for a sequence
    #[arg(long, default_value_t = 1024, value_name = "N")]
    queue: usize,
    /// Maximum bytes of a request's body
    #[arg(long, default_value_t = 16 << 20, value_name = "BYTES")]
    body_max: usize,
    /// Maximum open connections
    #[arg(long, default_value_t = 1024, value_name = "N")]
    connections: usize,
    /// Maximum open connections of one address
    #[arg(long, default_value_t = 512, value_name = "N")]
    connections_per_address: usize,
    /// Seconds after SIGTERM in which requests are still accepted while /health/ready tells load balancers to leave
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    drain_delay: u64,
    /// Seconds that running requests get to end after SIGTERM
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain: u64,
}

fn read_mode(name: &str) -> Result<Mode, String> {
    match name {
        "latency" => Ok(Mode::Latency),
        "balanced" => Ok(Mode::Balanced),
        "throughput" => Ok(Mode::Throughput),
        _ => Err("allowed are latency, balanced and throughput".into()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exsa-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if !args.host.is_loopback() && !args.insecure_no_auth {
        return Err(format!(
            "{} is reachable from other machines and the server has no authentication; bind to 127.0.0.1, or pass \
             --insecure-no-auth if something in front of it authenticates",
            args.host
        )
        .into());
    }
    let models = Arc::new(open_models(args)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(args, models.clone()));
    // Ends what the drain left over.
    models.registry().shut_down(Some(Duration::ZERO));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

fn open_models(args: &Args) -> Result<Models, Box<dyn Error>> {
    let backend: Arc<dyn InferenceBackend> = Arc::new(CandleBackend::new());
    let config = match &args.model {
        Some(path) => ModelsConfig::of_file(path, &*backend)?,
        None => ModelsConfig::default(),
    };
    let defaults = ModelDefaults::default()
        .mode(args.mode)
        .threads(args.threads)
        .sequences(args.sequences)
        .queue(args.queue);
    Ok(Models::open(&config, backend, defaults)?)
}

async fn serve(args: &Args, models: Arc<Models>) -> Result<(), Box<dyn Error>> {
    let mut options = ServerOptions::default().body_bytes_max(args.body_max);
    options.allowed_hosts.clone_from(&args.allowed_host);
    options.allowed_origins.clone_from(&args.allowed_origin);
    let readiness = Readiness::default();
    let app = Server::of_models(models.clone()).options(options).readiness(readiness.clone()).router();
    let address = SocketAddr::new(args.host, args.port);
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    info!("listening on http://{}", listener.local_addr()?);
    // The server is live while it loads models, and ready afterwards.
    let starting = models.clone();
    let started = tokio::task::spawn_blocking(move || starting.wait_for_start());
    let (delay, limit) = (Duration::from_secs(args.drain_delay), Duration::from_secs(args.drain));
    let failed = Arc::new(Mutex::new(None));
    let failure = failed.clone();
    let stop = async move {
        let unusable = async {
            match started.await {
                Ok(Err(error)) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop_signal() => {}
            () = unusable => return,
        }
        readiness.begin_drain();
        tokio::time::sleep(delay).await;
        info!("draining: no new requests; running ones get {} s", limit.as_secs());
        models.registry().begin_shutdown(None);
    };
    let limits = ConnectionLimits::default()
        .connections_max(args.connections)
        .per_address_max(args.connections_per_address);
    if !listener::serve(listener, app, limits, stop, limit).await {
        warn!("the time to drain is over; running requests are cancelled");
    }
    match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Waits for SIGTERM or an interrupt from the terminal.
async fn stop_signal() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(error) => {
                warn!("SIGTERM is not handled: {error}");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
