//! Second places of checkpoints.

use super::folder::private;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A place beside the log that checkpoints are written to.
#[derive(Debug)]
pub(super) enum Destination {
    /// A file, one checkpoint a line.
    File(File),
    /// Standard output, one checkpoint a line.
    Stdout,
    /// A socket of a system log.
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

    /// Opens the socket of a system log.
    ///
    /// # Errors
    ///
    /// The system gives no socket, or has none of that kind.
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

    /// Writes a checkpoint's line, without a newline in it.
    ///
    /// # Errors
    ///
    /// The place does not take it.
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
