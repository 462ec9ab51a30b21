//! ZMTP 3.0 with the NULL mechanism (<https://rfc.zeromq.org/spec/23/>), server side.

use std::io::{self, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum bytes of a frame from a peer; subscriptions and numbers are short.
const FRAME_MAX: usize = 4096;

const GREETING: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A frame from a peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) is_command: bool,
    /// Whether further frames of the message follow.
    pub(super) more: bool,
    pub(super) body: Vec<u8>,
}

/// Performs the handshake with a peer, whose socket type must be one of `peers`.
///
/// # Errors
///
/// The peer speaks another protocol or has another socket type.
pub(super) async fn handshake(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    own: &str,
    peers: &[&str],
) -> io::Result<()> {
    let mut greeting = [0; GREETING];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting).await?;
    let mut theirs = [0; GREETING];
    stream.read_exact(&mut theirs).await?;
    if theirs[0] != 0xff || theirs[9] & 1 == 0 || theirs[10] < 3 {
        return Err(invalid("the peer does not speak ZMTP 3"));
    }
    if &theirs[12..32] != b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" {
        return Err(invalid("the peer wants a security mechanism; there is none here"));
    }
    let mut ready = command("READY");
    property("Socket-Type", own, &mut ready);
    stream.write_all(&encode(COMMAND, &ready)).await?;
    let frame = read_frame(stream).await?;
    let properties = frame.body.strip_prefix(b"\x05READY").filter(|_| frame.is_command);
    let properties = properties.ok_or_else(|| invalid("the peer sent no READY"))?;
    match socket_type(properties) {
        Some(kind) if peers.iter().any(|peer| peer.as_bytes() == kind) => Ok(()),
        _ => Err(invalid("the peer's socket is of a type that does not fit")),
    }
}

/// The value of the property `Socket-Type`.
fn socket_type(mut properties: &[u8]) -> Option<&[u8]> {
    loop {
        let (len, rest) = properties.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return Some(value);
        }
        properties = rest;
    }
}

/// Reads a frame.
///
/// # Errors
///
/// The connection has ended, or the frame is too long.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let flags = stream.read_u8().await?;
    let len = match flags & LONG {
        0 => u64::from(stream.read_u8().await?),
        _ => stream.read_u64().await?,
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= FRAME_MAX);
    let mut body = vec![0; len.ok_or_else(|| invalid("a frame is too long"))?];
    stream.read_exact(&mut body).await?;
    Ok(Frame { is_command: flags & COMMAND != 0, more: flags & MORE != 0, body })
}

/// Writes a message.
///
/// # Errors
///
/// The connection has ended.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    frames: &[&[u8]],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 9).sum());
    for (i, frame) in frames.iter().enumerate() {
        let more = if i + 1 < frames.len() { MORE } else { 0 };
        head(more, frame.len(), &mut bytes);
        bytes.extend_from_slice(frame);
    }
    stream.write_all(&bytes).await
}

/// Answers the heartbeat of a peer: PING with a time to live of two bytes and a context.
pub(super) async fn write_pong(stream: &mut (impl AsyncWrite + Unpin), context: &[u8]) -> io::Result<()> {
    let mut pong = command("PONG");
    pong.extend_from_slice(context);
    stream.write_all(&encode(COMMAND, &pong)).await
}

/// The context of a PING; `None` for other commands.
pub(super) fn ping(command: &[u8]) -> Option<&[u8]> {
    command.strip_prefix(b"\x04PING").and_then(|ping| ping.get(2..))
}

fn command(name: &str) -> Vec<u8> {
    let mut body = vec![name.len() as u8];
    body.extend_from_slice(name.as_bytes());
    body
}

fn property(name: &str, value: &str, body: &mut Vec<u8>) {
    body.push(name.len() as u8);
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(value.as_bytes());
}

fn encode(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 9);
    head(flags, body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn head(flags: u8, len: usize, bytes: &mut Vec<u8>) {
    match u8::try_from(len) {
        Ok(len) => bytes.extend_from_slice(&[flags, len]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

pub(super) fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}
