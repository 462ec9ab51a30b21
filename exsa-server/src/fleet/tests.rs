//! Encoding, numbering, hostile peers, and a registry watched over a socket.

use super::hub::Hub;
use super::{KvEvents, payload, zmtp};
use crate::config::KvEventsConfig;
use exsa_core::backend::ModelSource;
use exsa_core::cache_events::CacheEvent;
use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::{Engine, EngineOptions, Generator, Request};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// Takes the next `n` bytes.
fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    taken
}

/// Takes an integer of `n` bytes.
fn number(bytes: &mut &[u8], n: usize) -> u64 {
    take(bytes, n).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads one value of MessagePack.
fn decode(bytes: &mut &[u8]) -> Value {
    let text = |bytes: &mut &[u8], len: u64| {
        String::from_utf8(take(bytes, usize::try_from(len).unwrap()).to_vec()).unwrap()
    };
    match take(bytes, 1)[0] {
        tag @ 0..0x80 => json!(tag),
        tag @ 0x80..0x90 => {
            let entry = |_| (decode(bytes).as_str().unwrap().to_owned(), decode(bytes));
            (0..tag & 15).map(entry).collect::<serde_json::Map<_, _>>().into()
        }
        tag @ 0x90..0xa0 => (0..tag & 15).map(|_| decode(bytes)).collect::<Vec<_>>().into(),
        tag @ 0xa0..0xc0 => text(bytes, u64::from(tag & 31)).into(),
        0xc0 => Value::Null,
        0xcb => f64::from_bits(number(bytes, 8)).into(),
        tag @ 0xcc..=0xcf => number(bytes, 1 << (tag - 0xcc)).into(),
        tag @ 0xd9..=0xdb => {
            let len = number(bytes, 1 << (tag - 0xd9));
            text(bytes, len).into()
        }
        tag @ (0xdc | 0xdd) => {
            let len = number(bytes, 2 << (tag - 0xdc));
            (0..len).map(|_| decode(bytes)).collect::<Vec<_>>().into()
        }
        tag => panic!("tag {tag:x}"),
    }
}

fn decoded(mut bytes: &[u8]) -> Value {
    let value = decode(&mut bytes);
    assert!(bytes.is_empty(), "{} bytes follow", bytes.len());
    value
}

/// Events of an engine that has answered a prompt of `tokens` tokens.
fn events(tokens: usize, salt: Option<&str>) -> Vec<CacheEvent> {
    let engine = Engine::start(ScriptedModel::echo("abc").shared(), EngineOptions::default()).unwrap();
    let prompt: Vec<_> = (0..tokens as u32).map(|i| i % 200).collect();
    let mut request = Request::tokens(prompt).max_tokens(1);
    request.cache_salt = salt.map(str::to_owned);
    engine.submit(request).unwrap().complete().unwrap();
    let mut events = engine.watch_cache(1 << 20);
    events.wait(LIMIT).unwrap()
}

#[test]
fn events_are_encoded_as_those_of_vllm() {
    let mut told = events(16 * 20 + 3, Some("group 4:team/own"));
    let CacheEvent::Stored(stored) = &told[1] else { panic!("{told:?}") };
    let hashes: Vec<_> = stored.hashes.iter().map(|hash| hash.0).collect();
    assert_eq!(hashes.len(), 20);
    told.push(CacheEvent::Removed(stored.hashes[18..].to_vec()));
    let mut keys = vec![json!(["own"])];
    keys.resize(20, Value::Null);
    let expected = json!([1.5, [
        {"type": "AllBlocksCleared"},
        {
            "type": "BlockStored",
            "block_hashes": hashes,
            "parent_block_hash": null,
            "token_ids": (0..320).map(|i| i % 200).collect::<Vec<_>>(),
            "block_size": 16,
            "lora_id": null,
            "lora_name": null,
            "medium": "GPU",
            "extra_keys": keys,
        },
        {"type": "BlockRemoved", "block_hashes": hashes[18..], "medium": "GPU"},
    ], 0]);
    assert_eq!(decoded(&payload::encode(1.5, &told)), expected);
    let plain = decoded(&payload::encode(0.0, &events(40, None)));
    assert_eq!(plain[1][1].get("extra_keys"), None);
}

#[test]
fn numbers_go_on_and_the_buffer_is_bounded() {
    let hub = Hub::new(3, 1000);
    let topic: Arc<str> = "t".into();
    assert!(hub.repeat(0).is_none());
    let mut queue = hub.subscribe();
    for i in 0..5 {
        hub.publish(&topic, vec![i]);
    }
    let numbers = |from| {
        let mut next = from;
        std::iter::from_fn(|| {
            let step = hub.repeat(next)?;
            next = step.number + 1;
            Some((step.number, step.payload[0]))
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(numbers(0), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(numbers(4), [(4, 4)]);
    assert_eq!(numbers(5), []);
    assert_eq!(numbers(u64::MAX), []);
    assert_eq!(queue.try_recv().unwrap().number, 0);
    hub.publish(&topic, vec![9; 999]);
    assert_eq!(numbers(0), [(4, 4), (5, 9)]);
    // A slow subscriber loses messages, never the connection, and the numbers show it.
    for _ in 0..2000 {
        hub.publish(&topic, vec![0]);
    }
    let got: Vec<_> = std::iter::from_fn(|| queue.try_recv().ok()).map(|step| step.number).collect();
    assert!(got.len() <= 1024 && got[0] == 1, "{} messages", got.len());
    hub.publish(&topic, vec![0]);
    assert_eq!(queue.try_recv().unwrap().number, 2006);
}

fn greeting() -> Vec<u8> {
    let mut greeting = vec![0; 64];
    (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xff, 0x7f, 3, 1);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

fn ready(kind: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x08Identity\0\0\0\0\x0bSocket-Type\0\0\0".to_vec();
    body.push(kind.len() as u8);
    body.extend_from_slice(kind.as_bytes());
    [vec![4, body.len() as u8], body].concat()
}

#[tokio::test]
async fn hostile_peers_are_refused_before_memory_is_taken() {
    let bad = |from: usize, bytes: &[u8]| {
        let mut greeting = greeting();
        greeting[from..from + bytes.len()].copy_from_slice(bytes);
        greeting
    };
    let then = |more: &[u8]| [greeting(), more.to_vec()].concat();
    let cases = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3), "does not speak ZMTP 3"),
        (bad(10, &[2]), "does not speak ZMTP 3"),
        (bad(12, b"CURVE"), "security mechanism"),
        (then(&ready("PUSH")), "does not fit"),
        (then(&ready("")), "does not fit"),
        (then(&[4, 3, 5, b'R', b'E']), "no READY"),
        (then(&[4, 10, 5, b'R', b'E', b'A', b'D', b'Y', 9, b'S', b'o', b'c']), "does not fit"),
        (then(&[0, 0]), "no READY"),
        (then(&[&[6][..], &[0xff; 8]].concat()), "too long"),
        (then(&[&[6][..], &(1_u64 << 45).to_be_bytes()].concat()), "too long"),
        (then(&[&[6][..], &4097_u64.to_be_bytes()].concat()), "too long"),
        (greeting(), "unexpected end of file"),
    ];
    for (sent, expected) in cases {
        let (mut ours, mut theirs) = duplex(1 << 12);
        theirs.write_all(&sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = zmtp::handshake(&mut ours, "PUB", &["SUB", "XSUB"]).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

/// A reader of events, as far as a test needs it.
struct Peer(TcpStream);

impl Peer {
    async fn connect(address: std::net::SocketAddr, kind: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[greeting(), ready(kind)].concat()).await.unwrap();
        let mut theirs = [0; 64];
        stream.read_exact(&mut theirs).await.unwrap();
        assert!(zmtp::read_frame(&mut stream).await.unwrap().is_command);
        Self(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn message(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let flags = self.0.read_u8().await.unwrap();
            let len = match flags & 2 {
                0 => u64::from(self.0.read_u8().await.unwrap()),
                _ => self.0.read_u64().await.unwrap(),
            };
            let mut body = vec![0; usize::try_from(len).unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            frames.push(body);
            if flags & 1 == 0 {
                return frames;
            }
        }
    }
}

async fn registry() -> Arc<Registry> {
    let registry = Arc::new(Registry::new(RegistryOptions::new()).unwrap());
    let backend = Arc::new(ScriptedBackend::new(ScriptedModel::echo("abc")));
    registry.add(ModelConfig::new("story", backend, ModelSource::file("scripted"))).unwrap();
    registry.load("story").await.unwrap();
    registry
}

async fn answer(registry: &Arc<Registry>, prompt: &str) {
    let (registry, request) = (registry.clone(), Request::text(prompt).max_tokens(1));
    let run = move || registry.submit(request).unwrap().complete().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_follows_a_model_until_it_is_unloaded() {
    let registry = registry().await;
    let config = KvEventsConfig::new("tcp://127.0.0.1:0").replay("tcp://127.0.0.1:0");
    let events = KvEvents::open(&config, &registry, "127.0.0.1:80").await.unwrap();
    let mut peer = Peer::connect(events.endpoint(), "SUB").await;
    peer.send(b"\0\x04\x01kv@").await;
    // A heartbeat: time to live, then a context.
    peer.send(b"\x04\x09\x04PING\0\0ab").await;
    answer(&registry, "a prompt whose first two blocks stay").await;
    let (mut stored, mut next, mut pong) = (Vec::new(), 0, false);
    let followed = async {
        while stored.is_empty() || !pong {
            let message = peer.message().await;
            if let [command] = &*message {
                assert_eq!(command, b"\x04PONGab");
                pong = true;
                continue;
            }
            let [topic, number, payload] = &*message else { panic!("{message:?}") };
            assert_eq!(topic, b"kv@127.0.0.1:80@story");
            next = u64::from_be_bytes(number[..].try_into().unwrap()) + 1;
            let list = decoded(payload)[1].as_array().unwrap().clone();
            stored.extend(list.into_iter().filter(|event| event["type"] == "BlockStored"));
        }
    };
    timeout(LIMIT, followed).await.unwrap();
    let expected: Vec<_> = "a prompt whose first two blocks ".bytes().collect();
    assert_eq!(stored[0]["token_ids"], json!(expected));
    let replay = events.replay().unwrap();
    let mut asking = Peer::connect(replay, "DEALER").await;
    asking.send(b"\x01\0\0\x08\0\0\0\0\0\0\0\0").await;
    let mut numbers = Vec::new();
    loop {
        let message = timeout(LIMIT, asking.message()).await.unwrap();
        let [empty, topic, number, payload] = &*message else { panic!("{message:?}") };
        let number = i64::from_be_bytes(number[..].try_into().unwrap());
        assert!(empty.is_empty());
        if number == -1 {
            assert!(topic.is_empty() && payload.is_empty());
            break;
        }
        numbers.push(number as u64);
    }
    assert_eq!(numbers[..next as usize], (0..next).collect::<Vec<_>>());
    asking.send(b"\0\x03abc").await;
    assert_eq!(asking.0.read(&mut [0; 8]).await.unwrap_or(0), 0, "a wrong request ends the connection");
    // The cache of an engine ends with it; so does the last message.
    registry.unload("story", None).await.unwrap();
    let cleared = async {
        loop {
            let message = peer.message().await;
            if message.len() == 3 && decoded(&message[2])[1] == json!([{"type": "AllBlocksCleared"}]) {
                break;
            }
        }
    };
    timeout(LIMIT, cleared).await.unwrap();
    let sources = events.sources().await.0;
    let source = serde_json::to_value(&sources[0]).unwrap();
    assert_eq!(
        (&source["topic"], &source["data_parallel_rank"]),
        (&json!("kv@127.0.0.1:80@story"), &json!(0))
    );
}
