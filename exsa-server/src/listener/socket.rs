//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

#[cfg(unix)]
use super::unix::UnixSocket;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(feature = "tls")]
    Tls(TcpListener, Tls),
    /// HTTP/2 from the first byte on.
    #[cfg(feature = "grpc")]
    Http2(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// A connection before its first byte.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    #[cfg(feature = "tls")]
    Tls(TcpStream, SocketAddr, Tls),
    #[cfg(feature = "grpc")]
    Http2(TcpStream, SocketAddr),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Socket {
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
            #[cfg(feature = "tls")]
            Self::Tls(listener, tls) => listener
                .poll_accept(context)
                .map_ok(|(stream, peer)| Accepted::Tls(stream, peer, tls.clone())),
            #[cfg(feature = "grpc")]
            Self::Http2(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| Accepted::Http2(stream, peer))
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                socket.listener().poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }
}

impl Accepted {
    /// Address of the peer; UNIX sockets have none.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, peer) => Some(*peer),
            #[cfg(feature = "tls")]
            Self::Tls(_, peer, _) => Some(*peer),
            #[cfg(feature = "grpc")]
            Self::Http2(_, peer) => Some(*peer),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}
