//! Connections to the PUB socket.

use super::hub::{Hub, Step};
use super::zmtp::{self, Frame};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Maximum topics of a subscriber.
const TOPICS_MAX: usize = 64;

/// Socket types of subscribing peers.
pub(super) const PEERS: &[&str] = &["SUB", "XSUB"];

/// Timeout of the handshake, and of a message write.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Topics of a subscriber, as prefixes.
type Topics = Arc<Mutex<Vec<Vec<u8>>>>;

/// Serves a subscriber until it disconnects.
///
/// # Errors
///
/// The connection has ended, or the peer violates the protocol.
pub(super) async fn serve(mut stream: TcpStream, hub: Arc<Hub>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    timeout(PATIENCE, zmtp::handshake(&mut stream, "PUB", PEERS)).await??;
    let (mut reader, writer) = stream.into_split();
    let (topics, steps) = (Topics::default(), hub.subscribe());
    let (pong, pongs) = mpsc::channel(4);
    tokio::select! {
        ended = read(&mut reader, &topics, pong, &hub) => ended,
        ended = write(writer, &topics, pongs, steps) => ended,
    }
}

/// Reads and discards everything that a peer sends.
///
/// # Errors
///
/// The connection has ended, or the peer violates the protocol.
pub(super) async fn read_all(stream: &mut (impl AsyncRead + Unpin), hub: &Hub) -> io::Result<()> {
    let (pong, _pongs) = mpsc::channel(4);
    read(stream, &Topics::default(), pong, hub).await
}

/// Reads subscriptions and heartbeats.
async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    topics: &Topics,
    pong: mpsc::Sender<Vec<u8>>,
    hub: &Hub,
) -> io::Result<()> {
    loop {
        let Frame { is_command, body, .. } = zmtp::read_frame(stream).await?;
        if is_command {
            if let Some(context) = zmtp::ping(&body) {
                // A peer that does not read gets no answer.
                let _ = pong.try_send(context.to_vec());
            }
            continue;
        }
        let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
        match body.split_first() {
            Some((1, topic)) if topics.len() < TOPICS_MAX => {
                topics.push(topic.to_vec());
                hub.refresh();
            }
            Some((1, _)) => return Err(zmtp::invalid("too many subscriptions")),
            Some((0, topic)) => {
                if let Some(at) = topics.iter().position(|known| known == topic) {
                    topics.swap_remove(at);
                }
            }
            _ => {}
        }
    }
}

/// Writes the messages of the topics.
async fn write(
    mut stream: OwnedWriteHalf,
    topics: &Topics,
    mut pongs: mpsc::Receiver<Vec<u8>>,
    mut steps: mpsc::Receiver<Step>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            Some(context) = pongs.recv() => {
                timeout(PATIENCE, zmtp::write_pong(&mut stream, &context)).await??;
            }
            Some(step) = steps.recv() => {
                let wanted = {
                    let topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
                    topics.iter().any(|topic| step.topic.as_bytes().starts_with(topic))
                };
                if wanted {
                    let frames = [step.topic.as_bytes(), &step.number.to_be_bytes()[..], &step.payload];
                    timeout(PATIENCE, zmtp::write_message(&mut stream, &frames)).await??;
                }
            }
            else => return Ok(()),
        }
    }
}
