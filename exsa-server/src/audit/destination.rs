//! Second places for checkpoints.

use super::folder::private;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A place besides the log to which checkpoints are written.
#[derive(Debug)]
pub(super) enum Destination {
    /// A file, one checkpoint per line.
    File(File),
    /// Standard output, one checkpoint per line.
    Stdout,
    /// A system log socket.
    #[cfg(unix)]
    Syslog { socket: std::os::unix::net::UnixDatagram, path: std::path::PathBuf },
}

impl Destination {
    /// Opens a file for appending.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(private().create(true).append(true).open(path)?))
    }

    /// Opens a system log socket.
    ///
    /// # Errors
    ///
    /// The system has no sockets, or none of that kind.
    pub(super) fn syslog(path: &Path) -> io::Result<Self> {
        #[cfg(unix)]
        {
            let socket = std::os::unix::net::UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Self::Syslog { socket, path: path.to_owned() })
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no UNIX datagram sockets"))
        }
    }

    /// Writes a checkpoint's line, which has no newline.
    ///
    /// # Errors
    ///
    /// The place cannot be written.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::File(file) => {
                file.write_all(format!("{line}\n").as_bytes())?;
                file.sync_data()
            }
            Self::Stdout => {
                let mut out = io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()
            }
            // Facility 13 (log audit), severity 6 (informational).
            #[cfg(unix)]
            Self::Syslog { socket, path } => socket
                .send_to(format!("<110>exsa-server: audit checkpoint {line}").as_bytes(), path)
                .map(drop),
        }
    }
}
