//! A peer with given bytes, for fuzzing.

use super::hub::Hub;
use super::{replay, subscriber, zmtp};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads the bytes of a peer as both sockets do: a handshake, then subscriptions or requests. The first byte
/// selects the socket, and whether there is a handshake.
#[doc(hidden)]
pub fn read_peer(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    // The end of the bytes and any protocol violation are errors.
    let _ = runtime.block_on(converse(*choice, &mut Peer { bytes }));
}

async fn converse(choice: u8, peer: &mut Peer<'_>) -> io::Result<()> {
    let is_replay = choice & 1 == 1;
    if choice & 2 == 0 {
        match is_replay {
            true => zmtp::handshake(peer, "ROUTER", replay::PEERS).await?,
            false => zmtp::handshake(peer, "PUB", subscriber::PEERS).await?,
        }
    }
    if !is_replay {
        return subscriber::read_all(peer, &Hub::new(4, 1024)).await;
    }
    loop {
        replay::request(peer).await?;
    }
}

struct Peer<'a> {
    bytes: &'a [u8],
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (read, rest) = self.bytes.split_at(self.bytes.len().min(out.remaining()));
        out.put_slice(read);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A handshake of a socket of type `kind`.
    fn handshake(kind: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend((kind.len() as u32).to_be_bytes());
        ready.extend(kind.bytes());
        bytes.extend([4, ready.len() as u8]);
        bytes.extend(ready);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn hostile_peers_end_their_connection(
            choice in any::<u8>(),
            kind in prop_oneof![Just("SUB"), Just("REQ"), Just("PUB")],
            frames in proptest::collection::vec((0..8_u8, proptest::collection::vec(any::<u8>(), 0..20)), 0..80),
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = vec![choice];
            if choice & 2 == 0 {
                bytes.extend(handshake(kind));
            }
            for (flags, body) in frames {
                bytes.extend([flags, body.len() as u8]);
                bytes.extend(body);
            }
            bytes.extend(rest);
            read_peer(&bytes);
        }
    }
}
