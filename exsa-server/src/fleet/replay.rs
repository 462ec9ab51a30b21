//! Connections to the ROUTER socket, which replays past messages.

use super::hub::Hub;
use super::subscriber::PATIENCE;
use super::zmtp;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Number of the message after the last.
const END: [u8; 8] = (-1_i64).to_be_bytes();

/// Socket types of requesting peers.
pub(super) const PEERS: &[&str] = &["REQ", "DEALER", "ROUTER"];

/// Maximum frames of a request.
const FRAMES_MAX: usize = 4;

/// Answers replay requests: an empty frame and the first number to replay, as 8 bytes. Each response message
/// has an empty frame, topic, number and payload; the last has the number -1.
///
/// # Errors
///
/// The connection has ended, or the peer violates the protocol.
pub(super) async fn serve(mut stream: TcpStream, hub: Arc<Hub>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    timeout(PATIENCE, zmtp::handshake(&mut stream, "ROUTER", PEERS)).await??;
    loop {
        let Some(mut next) = request(&mut stream).await? else { continue };
        while let Some(step) = hub.repeat(next) {
            next = step.number + 1;
            let frames = [&[], step.topic.as_bytes(), &step.number.to_be_bytes()[..], &step.payload];
            timeout(PATIENCE, zmtp::write_message(&mut stream, &frames)).await??;
        }
        timeout(PATIENCE, zmtp::write_message(&mut stream, &[&[], &[], &END, &[]])).await??;
    }
}

/// Returns the requested number; `None` after a heartbeat, which was answered.
///
/// # Errors
///
/// The connection has ended, or the peer violates the protocol.
pub(super) async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Option<u64>> {
    let mut frames = Vec::new();
    loop {
        let frame = zmtp::read_frame(stream).await?;
        if frame.is_command {
            if let Some(context) = zmtp::ping(&frame.body) {
                timeout(PATIENCE, zmtp::write_pong(stream, context)).await??;
            }
            return Ok(None);
        }
        frames.push(frame.body);
        if !frame.more {
            break;
        }
        if frames.len() == FRAMES_MAX {
            return Err(zmtp::invalid("a request has too many frames"));
        }
    }
    match &*frames {
        [empty, number] if empty.is_empty() => match <[u8; 8]>::try_from(&**number) {
            Ok(number) => Ok(Some(u64::from_be_bytes(number))),
            Err(_) => Err(zmtp::invalid("a request has no number of 8 bytes")),
        },
        _ => Err(zmtp::invalid("a request is not an empty frame and a number")),
    }
}
