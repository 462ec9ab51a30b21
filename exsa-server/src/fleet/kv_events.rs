//! Sockets of the events, and the route that lists their addresses.

use super::hub::Hub;
use super::{replay, subscriber, watch};
use crate::config::{KvEventsConfig, kv_endpoint};
use axum::Json;
use exsa_core::registry::Registry;
use serde::Serialize;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info};

/// Maximum connections per socket.
const CONNECTIONS_MAX: usize = 64;

/// Prefix cache events of a registry's models, while the tokio runtime runs on which they were opened. Clones
/// share the sockets.
#[derive(Clone)]
pub struct KvEvents {
    registry: Weak<Registry>,
    topic: Arc<watch::TopicOf>,
    endpoint: SocketAddr,
    replay: Option<SocketAddr>,
    buffer_steps: usize,
}

/// An event socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("fleet.kv_events.{setting}: cannot listen on {address}: {source}")]
#[non_exhaustive]
pub struct KvEventsError {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub address: String,
    /// The reason.
    pub source: io::Error,
}

impl KvEvents {
    /// Opens the sockets on the current tokio runtime, and watches all models of `registry`. `address`
    /// identifies the server in topics.
    ///
    /// # Errors
    ///
    /// A socket cannot be opened.
    pub async fn open(
        config: &KvEventsConfig,
        registry: &Arc<Registry>,
        address: &str,
    ) -> Result<Self, KvEventsError> {
        let hub = Arc::new(Hub::new(config.buffer_steps, config.buffer_bytes));
        let (listener, endpoint) = bind("bind", &config.bind).await?;
        let repeating = match &config.replay {
            Some(address) => Some(bind("replay", address).await?),
            None => None,
        };
        let replay = repeating.as_ref().map(|(_, address)| *address);
        tokio::spawn(accept(listener, hub.clone(), subscriber::serve));
        if let Some((listener, _)) = repeating {
            tokio::spawn(accept(listener, hub.clone(), replay::serve));
        }
        let template = config.topic.replace("{address}", address);
        let topic: Arc<watch::TopicOf> = Arc::new(move |model: &str| template.replace("{model}", model));
        let followed = (Arc::downgrade(registry), topic.clone());
        let follow = move || watch::follow(&followed.0, &hub, &*followed.1);
        let thread = thread::Builder::new().name("exsa-kv-models".into()).spawn(follow);
        thread.map_err(|source| KvEventsError { setting: "bind", address: config.bind.clone(), source })?;
        info!("events of the prefix cache, with the tokens of prompts, on tcp://{endpoint}");
        let registry = Arc::downgrade(registry);
        Ok(Self { registry, topic, endpoint, replay, buffer_steps: config.buffer_steps })
    }

    /// Address of the PUB socket.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Address of the ROUTER socket.
    pub fn replay(&self) -> Option<SocketAddr> {
        self.replay
    }

    /// `GET /kv_event_sources`: a list in vLLM's form with one entry per model.
    pub(crate) async fn sources(self) -> Json<Vec<Source>> {
        Json(self.list())
    }

    /// Returns the sources, one per model.
    pub(crate) fn list(&self) -> Vec<Source> {
        let models = self.registry.upgrade().map(|registry| registry.list()).unwrap_or_default();
        let source = |model: &exsa_core::registry::ModelStatus| Source {
            model: model.name.clone(),
            data_parallel_rank: 0,
            transport: "zmq",
            endpoint: format!("tcp://{}", self.endpoint),
            replay_endpoint: self.replay.map(|address| format!("tcp://{address}")),
            topic: (self.topic)(&model.name),
            encoding: "msgpack",
            buffer_steps: self.buffer_steps,
        };
        models.iter().map(source).collect()
    }
}

impl fmt::Debug for KvEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvEvents")
            .field("endpoint", &self.endpoint)
            .field("replay", &self.replay)
            .finish_non_exhaustive()
    }
}

/// Addresses of a model's events.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    pub(crate) model: String,
    pub(crate) data_parallel_rank: u32,
    pub(crate) transport: &'static str,
    pub(crate) endpoint: String,
    pub(crate) replay_endpoint: Option<String>,
    pub(crate) topic: String,
    pub(crate) encoding: &'static str,
    pub(crate) buffer_steps: usize,
}

async fn bind(setting: &'static str, text: &str) -> Result<(TcpListener, SocketAddr), KvEventsError> {
    let failed = |source| KvEventsError { setting, address: text.to_owned(), source };
    let address = kv_endpoint(text).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Serves the connections of a socket, at most [`CONNECTIONS_MAX`] concurrently.
async fn accept<F>(listener: TcpListener, hub: Arc<Hub>, serve: impl Fn(TcpStream, Arc<Hub>) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = serve(stream, hub.clone());
                tokio::spawn(async move {
                    if let Err(error) = served.await {
                        debug!(%peer, %error, "a reader of events has left");
                    }
                    drop(place);
                });
            }
            // For example, no file descriptors are left.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
