//! Sockets of several kinds: limits, permissions, leftovers, and the check of `Host`.
#![cfg(unix)]

use crate::served::{Served, app, ask, folder};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::listener::{ConnectionLimits, Listeners, UnixSocket};
use exsa_server::{Live, Server};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_is_removed_at_the_end() {
    let path = folder().join("exsa.sock");
    let socket = UnixSocket::bind(&path, 0o640).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let served = Served::start(Listeners::new().unix(socket), app(), &Live::default());
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(ask(&mut stream, "x", "/").await.ends_with("Unix -"));
    drop(stream);
    assert!(served.stop().await);
    assert!(!path.exists());
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else() {
    let path = folder().join("exsa.sock");
    let first = UnixSocket::bind(&path, 0o600).unwrap();
    let error = UnixSocket::bind(&path, 0o600).unwrap_err().to_string();
    assert!(error.ends_with("is in use by another server"), "{error}");
    drop(first);
    // A server that was killed leaves its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let second = UnixSocket::bind(&path, 0o600).unwrap();
    // Another file took the path over, which is not this server's to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "text").unwrap();
    drop(second);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    let error = UnixSocket::bind(&path, 0o600).unwrap_err().to_string();
    assert!(error.ends_with("exists and is no socket"), "{error}");
}

#[tokio::test]
async fn sockets_share_the_limit_of_connections_and_a_reload_raises_it() {
    let path = folder().join("exsa.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let limits = Live::new(ConnectionLimits::default().connections_max(1));
    let listeners = Listeners::new().tcp(tcp).unix(UnixSocket::bind(&path, 0o600).unwrap());
    let served = Served::start(listeners, app(), &limits);
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut first, "x", "/").await.ends_with("Tcp -"));
    let mut second = UnixStream::connect(&path).await.unwrap();
    let waits = timeout(Duration::from_millis(300), ask(&mut second, "x", "/")).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(second);
    drop(first);
    let mut third = UnixStream::connect(&path).await.unwrap();
    assert!(ask(&mut third, "x", "/").await.ends_with("Unix -"));
    let mut fourth = TcpStream::connect(address).await.unwrap();
    limits.set(ConnectionLimits::default().connections_max(2));
    assert!(ask(&mut fourth, "x", "/").await.ends_with("Tcp -"));
    drop((third, fourth));
    assert!(served.stop().await);
}

#[tokio::test]
async fn the_host_is_checked_on_tcp_alone() {
    let path = folder().join("exsa.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = Listeners::new().tcp(tcp).unix(UnixSocket::bind(&path, 0o600).unwrap());
    let engine = Engine::start(ScriptedModel::echo("x").shared(), EngineOptions::default()).unwrap();
    let served = Served::start(listeners, Server::new(Arc::new(engine)).router(), &Live::default());
    for (host, on_tcp) in [("localhost", "200"), ("rebound.example", "421")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut stream, host, "/health/live").await;
        assert_eq!(answer.split(' ').nth(1), Some(on_tcp), "{answer}");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = ask(&mut stream, host, "/health/live").await;
        assert_eq!(answer.split(' ').nth(1), Some("200"), "{answer}");
    }
    assert!(served.stop().await);
}
