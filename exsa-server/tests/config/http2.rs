//! HTTP/2 connections that are idle, or flood the server with frames. Frames are those of RFC 9113.

use crate::served::Served;
use crate::tls::Site;
use exsa_server::config::ClientAuth;
use exsa_server::listener::ConnectionLimits;
use exsa_server::tls::Tls;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::TLS13;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of `GET https://localhost/`: three fields of the static table, and a literal without indexing.
fn head(stream: u32) -> Vec<u8> {
    let mut fields = vec![0x82, 0x87, 0x84, 0x01, 9];
    fields.extend(b"localhost");
    frame(HEADERS, WHOLE, stream, &fields)
}

struct Client(TlsStream<TcpStream>);

impl Client {
    /// A connection after its settings, and its server.
    async fn start(limits: ConnectionLimits) -> (Self, Served) {
        let site = Site::new(ClientAuth::None);
        let (served, address) = site.serve(&Tls::open(&site.config).unwrap(), limits).await;
        let stream = site.connect_as(address, None, &TLS13, &[b"h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Self(stream);
        let mut opening = PREFACE.to_vec();
        opening.extend(frame(SETTINGS, 0, 0, &[]));
        client.0.write_all(&opening).await.unwrap();
        let (kind, ..) = client.read().await.unwrap();
        assert_eq!(kind, SETTINGS);
        client.0.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        (client, served)
    }

    /// Kind, stream and payload of the next frame; `None` at the end of the connection.
    async fn read(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], stream, payload))
    }

    /// The body of the answer to a request.
    async fn ask(&mut self, stream: u32) -> String {
        self.0.write_all(&head(stream)).await.unwrap();
        loop {
            let (kind, of, payload) = self.read().await.unwrap();
            if kind == DATA && of == stream && !payload.is_empty() {
                return String::from_utf8(payload).unwrap();
            }
        }
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default().header_timeout(Duration::from_millis(400))
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_a_used_one_is_not() {
    let (mut client, served) = Client::start(limits()).await;
    for request in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(client.ask(2 * request + 1).await, "Tls -");
    }
    let begun = Instant::now();
    timeout(Duration::from_secs(5), async { while client.read().await.is_some() {} }).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(served.stop().await);
}

#[tokio::test]
async fn pings_are_answered_but_keep_no_connection() {
    let (mut client, served) = Client::start(limits()).await;
    assert_eq!(client.ask(1).await, "Tls -");
    let (mut answers, begun) = (0, Instant::now());
    // Each ping waits for its answer, so that the flood is as fast as the server.
    while begun.elapsed() < Duration::from_secs(5) {
        if client.0.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_err() {
            break;
        }
        match client.read().await {
            Some((PING, _, payload)) => {
                assert_eq!(payload, [7; 8]);
                answers += 1;
            }
            Some(_) => {}
            None => break,
        }
    }
    assert!(answers > 0, "a ping is answered");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the connection was closed after {:?}",
        begun.elapsed()
    );
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_flood_of_pings_whose_answers_are_not_read_starves_no_other() {
    let (mut flood, served) = Client::start(limits().write_timeout(Duration::from_millis(500))).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let begun = Instant::now();
    // The server stops reading while its answers are not taken: it keeps none of them in memory.
    let flooded = timeout(Duration::from_secs(10), async {
        for _ in 0..10_000 {
            flood.0.write_all(&pings).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    assert!(flooded.await.unwrap().is_err(), "the connection was closed");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(served.stop().await);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (mut client, served) = Client::start(ConnectionLimits::default()).await;
    let mut burst = Vec::new();
    for request in 0..2000 {
        burst.extend(head(2 * request + 1));
        burst.extend(frame(RST_STREAM, 0, 2 * request + 1, &8u32.to_be_bytes()));
    }
    // An error is the end of the connection in the middle of it.
    let _ = client.0.write_all(&burst).await;
    let end = timeout(Duration::from_secs(5), async {
        loop {
            match client.read().await {
                Some((GOAWAY, _, payload)) => break u32::from_be_bytes(payload[4..8].try_into().unwrap()),
                Some(_) => {}
                None => panic!("the connection ended without a reason"),
            }
        }
    });
    assert_eq!(end.await.unwrap(), ENHANCE_YOUR_CALM);
    assert!(served.stop().await);
}
