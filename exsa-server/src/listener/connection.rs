//! Serves one connection: its transport, then its requests.

use super::limits::ConnectionLimits;
use super::socket::Accepted;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// The connection of a request, as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The kind of the connection.
    pub transport: Transport,
    /// Address of the peer; `None` for UNIX sockets.
    pub peer: Option<SocketAddr>,
    /// Subject of the verified client certificate: `CN=alice,O=Example` (RFC 4514).
    pub client_subject: Option<Arc<str>>,
}

/// Kind of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP without encryption.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// A UNIX socket.
    Unix,
}

impl Connection {
    fn new(transport: Transport, peer: Option<SocketAddr>) -> Self {
        Self { transport, peer, client_subject: None }
    }
}

/// Protocol of the requests.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    #[cfg(any(feature = "tls", feature = "grpc"))]
    Http2,
}

/// Serves the requests of one connection.
pub(super) async fn converse(
    accepted: Accepted,
    app: Router,
    limits: &ConnectionLimits,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    match accepted {
        Accepted::Tcp(stream, peer) => {
            let about = Connection::new(Transport::Tcp, Some(peer));
            serve(with_timeout(without_delay(stream), limits), Protocol::Http1, about, app, limits, watcher)
                .await
        }
        #[cfg(feature = "tls")]
        Accepted::Tls(stream, peer, tls) => {
            let stream = with_timeout(without_delay(stream), limits);
            let handshake = tokio::time::timeout(limits.handshake_timeout, tls.accept(stream));
            let secured = handshake.await.map_err(|_| "the TLS handshake took too long")??;
            let mut about = Connection::new(Transport::Tls, Some(peer));
            about.client_subject = secured.client_subject;
            let protocol = if secured.http2 { Protocol::Http2 } else { Protocol::Http1 };
            serve(secured.stream, protocol, about, app, limits, watcher).await
        }
        #[cfg(feature = "grpc")]
        Accepted::Http2(stream, peer) => {
            let about = Connection::new(Transport::Tcp, Some(peer));
            serve(with_timeout(without_delay(stream), limits), Protocol::Http2, about, app, limits, watcher)
                .await
        }
        #[cfg(unix)]
        Accepted::Unix(stream) => {
            let about = Connection::new(Transport::Unix, None);
            serve(with_timeout(stream, limits), Protocol::Http1, about, app, limits, watcher).await
        }
    }
}

/// Disables Nagle's algorithm: tokens are small writes that must not be delayed.
fn without_delay(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

type Timed<S> = std::pin::Pin<Box<TimeoutStream<S>>>;

fn with_timeout<S: AsyncRead + AsyncWrite>(stream: S, limits: &ConnectionLimits) -> Timed<S> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    Box::pin(stream)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    protocol: Protocol,
    about: Connection,
    app: Router,
    limits: &ConnectionLimits,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(peer) = about.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        request.extensions_mut().insert(about.clone());
        app.clone().oneshot(request)
    });
    match protocol {
        Protocol::Http1 => {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_buf_size(limits.header_bytes_max.max(8192))
                .max_headers(limits.headers_max)
                .serve_connection(TokioIo::new(stream), service);
            watcher.watch(connection).await?;
        }
        #[cfg(any(feature = "tls", feature = "grpc"))]
        Protocol::Http2 => super::http2::serve(stream, service, limits, watcher).await?,
    }
    Ok(())
}
