//! UNIX sockets with permissions from their creation, removed when dropped.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// A UNIX socket at a path, which is removed when the socket is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to check that the file is still this socket.
    identity: (u64, u64),
}

impl UnixSocket {
    /// Listens at `path` with the permissions `mode`, such as `0o600`. A leftover socket is replaced.
    ///
    /// # Errors
    ///
    /// Another server listens at the path, it is not a socket, or the system refuses.
    pub fn bind(path: impl Into<PathBuf>, mode: u32) -> io::Result<Self> {
        let path = path.into();
        check_free(&path)?;
        // Bound in a private folder and then moved, so that it never has other permissions.
        let folder = private_folder(&path)?;
        let hidden = folder.join("s");
        let bound = bind_hidden(&hidden, mode, &path);
        if bound.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        let _ = fs::remove_dir(&folder);
        let (listener, identity) = bound?;
        Ok(Self { listener, path, identity })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let current = fs::symlink_metadata(&self.path).map(|about| (about.dev(), about.ino()));
        if current.is_ok_and(|current| current == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checks that there is nothing at `path` except a socket without a listener.
fn check_free(path: &Path) -> io::Result<()> {
    let refuse = |problem| Err(io::Error::new(ErrorKind::AddrInUse, format!("{} {problem}", path.display())));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if !about.file_type().is_socket() => refuse("exists and is no socket"),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
            Ok(_) => refuse("is in use by another server"),
        },
    }
}

fn private_folder(path: &Path) -> io::Result<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let mut number = std::process::id();
    loop {
        let folder = parent.join(format!(".x{number:x}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number = number.wrapping_add(1),
            Err(error) => return Err(error),
        }
    }
}

fn bind_hidden(hidden: &Path, mode: u32, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(hidden)?;
    fs::set_permissions(hidden, Permissions::from_mode(mode))?;
    let about = fs::symlink_metadata(hidden)?;
    fs::rename(hidden, path)?;
    Ok((listener, (about.dev(), about.ino())))
}
