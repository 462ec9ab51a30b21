//! The accept loop: connections with limits, and a graceful end.

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Pause after a connection could not be accepted because the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Maximum open connections; further clients wait in the system's queue. 1,024 by default.
    pub connections_max: usize,
    /// Maximum open connections of one IP address; further connections are closed. 512 by default.
    pub per_address_max: usize,
    /// Maximum time in which the head of a request must be read; 10 s by default. It also bounds the time that an idle
    /// connection is kept.
    pub header_timeout: Duration,
    /// Maximum bytes of a request's head, at least 8,192; 64 KiB by default.
    pub header_bytes_max: usize,
    /// Maximum fields in a request's head; 100 by default.
    pub headers_max: usize,
    /// Maximum time without progress of a write to a client that does not read; 60 s by default.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            per_address_max: 512,
            header_timeout: Duration::from_secs(10),
            header_bytes_max: 64 << 10,
            headers_max: 100,
            write_timeout: Duration::from_secs(60),
        }
    }
}

impl ConnectionLimits {
    /// Sets the maximum open connections.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Sets the maximum open connections of one address.
    #[must_use]
    pub fn per_address_max(mut self, connections: usize) -> Self {
        self.per_address_max = connections;
        self
    }

    /// Sets the maximum time in which the head of a request must be read.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets the maximum bytes of a request's head.
    #[must_use]
    pub fn header_bytes_max(mut self, bytes: usize) -> Self {
        self.header_bytes_max = bytes;
        self
    }

    /// Sets the maximum fields in a request's head.
    #[must_use]
    pub fn headers_max(mut self, fields: usize) -> Self {
        self.headers_max = fields;
        self
    }

    /// Sets the maximum time without progress of a write.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One of an address's open connections.
struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection, unless the address has `max` already.
    fn enter(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Counted> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= max.max(1) {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Serves `app` until `stop` is ready, then lets running requests end for at most `drain`. Returns whether all have.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> bool {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let addresses = Arc::new(Addresses::default());
    let mut stop = std::pin::pin!(stop);
    loop {
        let (connection, peer, place) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let Some(counted) = addresses.enter(peer.ip(), limits.per_address_max) else {
            debug!(%peer, "connection closed: too many of this address");
            continue;
        };
        let (app, watcher) = (app.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = converse(connection, peer, app, limits, watcher).await {
                debug!(%peer, %error, "connection ended");
            }
            drop((place, counted));
        });
    }
    drop(listener);
    tokio::time::timeout(drain, graceful.shutdown()).await.is_ok()
}

/// Waits for a place, then for a connection.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((connection, peer)) => Some((connection, peer, place)),
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves the requests of one connection.
async fn converse(
    connection: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: ConnectionLimits,
    watcher: Watcher,
) -> hyper::Result<()> {
    // Tokens are small writes, which must not wait for each other.
    let _ = connection.set_nodelay(true);
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(limits.write_timeout));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(limits.headers_max)
        .serve_connection(TokioIo::new(Box::pin(connection)), service);
    watcher.watch(connection).await
}
