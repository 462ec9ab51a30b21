//! An HTTP server whose answers a test decides.

use exsa_hub::{Cancel, Hub, HubError, HubOptions, Pulled, Source};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path with its query.
    pub path: String,
    /// Fields of the header, their names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    pub cut: Option<usize>,
    /// Length that is stated instead of that of the body.
    pub length: Option<usize>,
    /// The body is sent in chunks, without a length.
    pub chunked: bool,
    /// Neither length nor chunks: the connection ends with the body.
    pub unbounded: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

/// A file that is served by ranges.
#[derive(Clone, Debug)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub etag: Option<String>,
    pub ranges: bool,
}

impl Content {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, etag: Some("\"v1\"".into()), ranges: true }
    }

    /// As a correct server answers (RFC 9110, sections 13.1.5 and 14).
    pub fn reply(&self, seen: &Seen) -> Reply {
        let tagged = |reply: Reply| match &self.etag {
            Some(tag) => reply.header("ETag", tag.clone()),
            None => reply,
        };
        let current = seen.header("if-range").is_none_or(|tag| self.etag.as_deref() == Some(tag));
        let range = seen.header("range").filter(|_| self.ranges && current);
        let Some(range) = range else { return tagged(Reply::text(self.bytes.clone())) };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let last = last.parse().unwrap_or(usize::MAX).min(self.bytes.len().saturating_sub(1));
        if first >= self.bytes.len() {
            return Reply::status(416).header("Content-Range", format!("bytes */{}", self.bytes.len()));
        }
        let mut reply = Reply::text(&self.bytes[first..=last]);
        reply.status = 206;
        tagged(reply.header("Content-Range", format!("bytes {first}-{last}/{}", self.bytes.len())))
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// The server. It ends with this value.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Answers requests, which are numbered from 0 in the order of their arrival.
    pub fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stopped) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (all, end, handler) = (seen.clone(), stopped.clone(), Arc::new(handler) as Arc<Handler>);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (all, handler) = (all.clone(), handler.clone());
                // A client that goes away is no failure.
                std::thread::spawn(move || stream.and_then(|stream| answer(stream, &all, &*handler)));
            }
        });
        Self { address, seen, stopped }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same server by another host name.
    pub fn other_url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.address.port())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The listener wakes up for it.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, all: &Mutex<Vec<Seen>>, handler: &Handler) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let seen = Seen { path, headers };
    let number = {
        let mut all = all.lock().unwrap();
        all.push(seen.clone());
        all.len() - 1
    };
    let reply = handler(&seen, number);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if !reply.unbounded {
        head.push_str(&format!("Content-Length: {}\r\n", reply.length.unwrap_or(reply.body.len())));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let body = &reply.body[..reply.cut.unwrap_or(usize::MAX).min(reply.body.len())];
    if reply.chunked {
        for chunk in body.chunks(700) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        if reply.cut.is_none() {
            stream.write_all(b"0\r\n\r\n")?;
        }
    } else {
        stream.write_all(body)?;
    }
    stream.flush()?;
    // Sent bytes arrive before the connection ends.
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}

/// A file that begins as models do.
pub fn model(bytes: usize, seed: u8) -> Vec<u8> {
    let rest = (4..bytes.max(4)).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed);
    b"GGUF".iter().copied().chain(rest).collect()
}

/// Options for tests: no waits, small parts.
pub fn options(folder: &std::path::Path) -> HubOptions {
    HubOptions::new(folder.join("hub"))
        .downloads(folder.join("downloads"))
        .allow_http(true)
        .reserve_bytes(0)
        .segment_bytes(1000)
        .backoff(Duration::from_millis(1))
        .read_timeout(Duration::from_secs(60))
}

pub fn pull(options: HubOptions, source: &str) -> Result<Pulled, HubError> {
    Hub::new(options)?.pull(&source.parse::<Source>()?, &Cancel::new(), &mut |_| {})
}

/// The bytes of a pulled model.
pub fn content(pulled: &Pulled) -> Vec<u8> {
    std::fs::read(&pulled.model).unwrap()
}

/// Names of the files in a folder and below.
pub fn tree(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                names.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names
}
