//! Control socket: the key routes for users with access to the data folder.
//!
//! redb locks its file to one process, so the commands `exsa-server key` reach a running server through
//! `control.sock` in the data folder. File permissions replace authentication: the folder has mode 0700, the
//! socket 0600, and the peer must be the owner of the socket or root.

use super::routes::routes;
use super::{Access, Caller};
use axum::{Extension, Router};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Name of the socket in the data folder.
const NAME: &str = "control.sock";

/// Maximum open connections.
const CONNECTIONS_MAX: usize = 16;

/// Timeout for reading a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum duration of a connection.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Path of the socket of a data folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// A bound control socket. Dropping it removes the socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
    app: Router,
}

impl ControlSocket {
    /// Binds the socket in the data folder of `access`, within a tokio runtime. The process that has the
    /// database open owns the socket, so an existing one is left from a dead server and is replaced.
    ///
    /// # Errors
    ///
    /// The socket cannot be created, or `access` has no data folder.
    pub fn bind(access: &Access) -> io::Result<Self> {
        let folder = access.folder();
        let folder =
            folder.ok_or_else(|| io::Error::other("keys without a data folder have no control socket"))?;
        let path = path(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        let app = routes(access.keys().clone()).layer(Extension(Caller::operator()));
        Ok(Self { listener, path, owner, app })
    }

    /// Serves requests until the future is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let connection = match self.listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    warn!(%error, "a connection to the control socket could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.admits(&connection) {
                warn!(
                    "a connection to the control socket was refused: its user is neither the owner nor root"
                );
                continue;
            }
            let app = self.app.clone();
            tokio::spawn(async move {
                if !matches!(tokio::time::timeout(TIMEOUT, converse(connection, app)).await, Ok(Ok(()))) {
                    debug!("a connection to the control socket was cut");
                }
                drop(place);
            });
        }
    }

    fn admits(&self, connection: &UnixStream) -> bool {
        connection.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse(connection: UnixStream, app: Router) -> hyper::Result<()> {
    let service = service_fn(move |request| app.clone().oneshot(request));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(connection), service)
        .await
}
