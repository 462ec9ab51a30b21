//! Accept loop for several kinds of sockets, with connection limits and graceful shutdown.

mod connection;
#[cfg(any(feature = "tls", feature = "grpc"))]
mod http2;
mod limits;
mod places;
mod socket;
#[cfg(unix)]
mod unix;

pub use connection::{Connection, Transport};
pub use limits::ConnectionLimits;
#[cfg(unix)]
pub use unix::UnixSocket;

use crate::live::Live;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use places::{Place, Places};
use socket::{Accepted, Socket};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{debug, warn};

/// Pause after an accept failed because the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` on one TCP socket until `stop` is ready, then lets running requests finish for at most
/// `drain`. Returns whether all have.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> bool {
    let stop = async {
        stop.await;
        drain
    };
    Listeners::new().tcp(listener).serve(app, limits.into(), stop).await
}

/// Sockets that share limits and shutdown.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Sockets, some with their own routes.
    sockets: Vec<(Socket, Option<Router>)>,
    /// The socket that is polled first, in rotation, so that a busy one does not starve the others.
    first: usize,
}

impl Listeners {
    /// Creates an empty set of sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TCP socket.
    #[must_use]
    pub fn tcp(mut self, listener: TcpListener) -> Self {
        self.sockets.push((Socket::Tcp(listener), None));
        self
    }

    /// Adds a TCP socket with TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, listener: TcpListener, tls: Tls) -> Self {
        self.sockets.push((Socket::Tls(listener, tls), None));
        self
    }

    /// Adds a TCP socket with its own routes, whose connections speak HTTP/2 from the first byte, as for
    /// gRPC.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn http2(mut self, listener: TcpListener, app: Router) -> Self {
        self.sockets.push((Socket::Http2(listener), Some(app)));
        self
    }

    /// Adds a TCP socket with TLS and its own routes.
    #[cfg(all(feature = "grpc", feature = "tls"))]
    #[must_use]
    pub fn http2_tls(mut self, listener: TcpListener, tls: Tls, app: Router) -> Self {
        self.sockets.push((Socket::Tls(listener, tls), Some(app)));
        self
    }

    /// Adds a UNIX socket.
    #[cfg(unix)]
    #[must_use]
    pub fn unix(mut self, socket: UnixSocket) -> Self {
        self.sockets.push((Socket::Unix(socket), None));
        self
    }

    /// Serves `app` until `stop` is ready; running requests then have the returned time to finish. Returns
    /// whether all have.
    pub async fn serve(
        mut self,
        app: Router,
        limits: Live<ConnectionLimits>,
        stop: impl Future<Output = Duration>,
    ) -> bool {
        let graceful = GracefulShutdown::new();
        let places = Places::new(limits.clone());
        let mut stop = std::pin::pin!(stop);
        let drain = loop {
            let (accepted, own, place) = tokio::select! {
                drain = &mut stop => break drain,
                accepted = self.accept(&places) => match accepted {
                    Some(accepted) => accepted,
                    None => continue,
                },
            };
            let app = own.unwrap_or_else(|| app.clone());
            let (limits, watcher) = (limits.get(), graceful.watcher());
            tokio::spawn(async move {
                let peer = accepted.peer();
                if let Err(error) = connection::converse(accepted, app, &limits, watcher).await {
                    debug!(?peer, %error, "connection ended");
                }
                drop(place);
            });
        };
        drop(self);
        tokio::time::timeout(drain, graceful.shutdown()).await.is_ok()
    }

    /// Waits for a free slot, then for a connection.
    async fn accept(&mut self, places: &std::sync::Arc<Places>) -> Option<(Accepted, Option<Router>, Place)> {
        places.room().await;
        match self.next().await {
            Ok((accepted, own)) => {
                let peer = accepted.peer();
                let place = places.enter(peer.map(|peer| peer.ip()));
                if place.is_none() {
                    debug!(?peer, "connection closed: too many of this address");
                }
                Some((accepted, own, place?))
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// Returns the next connection of any socket, with the socket's own routes.
    async fn next(&mut self) -> io::Result<(Accepted, Option<Router>)> {
        poll_fn(|context| {
            for i in 0..self.sockets.len() {
                let at = (self.first + i) % self.sockets.len();
                let Some((socket, own)) = self.sockets.get(at) else { continue };
                if let Poll::Ready(accepted) = socket.poll_accept(context) {
                    self.first = at + 1;
                    return Poll::Ready(accepted.map(|accepted| (accepted, own.clone())));
                }
            }
            Poll::Pending
        })
        .await
    }
}
