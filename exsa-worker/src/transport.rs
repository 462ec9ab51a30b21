//! The connection between host and worker.
//!
//! On UNIX, one end of an anonymous socket pair is the worker's standard input: no other process can connect,
//! no file is left behind, and each side immediately sees when the other has exited. Elsewhere it is a pair
//! of anonymous pipes, standard input and output, for the same reasons: a named pipe could be opened by
//! others.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

/// The receiving half of a connection.
pub(crate) type Receiver = Box<dyn Read + Send>;
/// The sending half.
pub(crate) type Sender = Box<dyn Write + Send>;

/// Closes a connection from the host's side, so that its receiver sees the end.
#[derive(Debug)]
pub(crate) struct Closer {
    #[cfg(unix)]
    socket: std::os::unix::net::UnixStream,
}

impl Closer {
    pub(crate) fn close(&self) {
        // It fails only if the connection has already ended.
        #[cfg(unix)]
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Starts a worker.
#[cfg(unix)]
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Receiver, Sender, Closer)> {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let (host, worker) = UnixStream::pair()?;
    // The worker's standard output is for people; it goes to the host's standard error.
    let command = command.stdin(Stdio::from(OwnedFd::from(worker))).stdout(io::stderr());
    let child = command.spawn()?;
    let (receiver, sender) = (host.try_clone()?, host.try_clone()?);
    Ok((child, Box::new(receiver), Box::new(sender), Closer { socket: host }))
}

/// Returns the worker's ends.
#[cfg(unix)]
pub(crate) fn connect() -> io::Result<(Receiver, Sender)> {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails if it is not a socket.
    socket.peer_addr()?;
    // A library that reads standard input finds it empty, and cannot take the host's messages.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok((Box::new(socket.try_clone()?), Box::new(socket)))
}

/// Starts a worker.
#[cfg(not(unix))]
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Receiver, Sender, Closer)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(receiver), Some(sender)) => Ok((child, Box::new(receiver), Box::new(sender), Closer {})),
        _ => Err(io::Error::other("the worker has no pipes")),
    }
}

/// Returns the worker's ends.
#[cfg(not(unix))]
pub(crate) fn connect() -> io::Result<(Receiver, Sender)> {
    Ok((Box::new(io::stdin()), Box::new(io::stdout())))
}
