//! A server on sockets of its own, and a client that speaks HTTP by hand.

use axum::routing::get;
use axum::{Extension, Router};
use exsa_server::Live;
use exsa_server::listener::{Connection, ConnectionLimits, Listeners};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running accept loop.
pub struct Served {
    stop: oneshot::Sender<()>,
    task: JoinHandle<bool>,
}

impl Served {
    pub fn start(listeners: Listeners, app: Router, limits: &Live<ConnectionLimits>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
            Duration::from_secs(5)
        };
        let task = tokio::spawn(listeners.serve(app, limits.clone(), stopped));
        Self { stop, task }
    }

    /// Stops; returns whether all connections have ended in time.
    pub async fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

/// Routes that describe the connection.
pub fn app() -> Router {
    let describe = |Extension(connection): Extension<Connection>| async move {
        format!("{:?} {}", connection.transport, connection.client_subject.as_deref().unwrap_or("-"))
    };
    Router::new().route("/", get(describe))
}

/// Sends a request on an open connection and returns head and body of the answer.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return text.into_owned();
            }
        }
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "the connection ended after {text:?}");
        received.extend(&part[..read]);
    }
}

/// A folder of the test's own.
pub fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("exsa-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
