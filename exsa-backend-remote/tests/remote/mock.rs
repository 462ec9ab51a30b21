//! An HTTP server that answers by a function, over a socket of its own.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The socket's side of an exchange.
pub struct Exchange<'a> {
    pub stream: &'a mut TcpStream,
    /// Events after which the connection breaks.
    pub events_max: usize,
}

impl Exchange<'_> {
    /// Sends a whole response.
    pub fn respond(&mut self, status: u16, form: &str, headers: &str, body: &str) {
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: {form}\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(head.as_bytes());
        self.raw(body.as_bytes());
    }

    pub fn json(&mut self, status: u16, body: &Value) {
        self.respond(status, "application/json", "", &body.to_string());
    }

    /// Begins a stream of events, in chunks.
    pub fn begin_events(&mut self) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        self.raw(head.as_bytes());
    }

    /// Sends a chunk of a stream. `false` once the client has gone.
    pub fn chunk(&mut self, bytes: &[u8]) -> bool {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.raw(&chunk)
    }

    /// Sends an event with JSON.
    pub fn event(&mut self, value: &Value) -> bool {
        if self.events_max == 0 {
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
        self.events_max -= 1;
        self.chunk(format!("data: {value}\n\n").as_bytes())
    }

    pub fn done(&mut self) -> bool {
        self.chunk(b"data: [DONE]\n\n") && self.raw(b"0\r\n\r\n")
    }

    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Waits until the client closes the connection; panics after 20 s.
    pub fn wait_for_close(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("the client did not close: {other:?}"),
        }
    }
}

type Handler = dyn Fn(&Received, &mut Exchange<'_>) + Send + Sync;

/// A server that runs until the process ends.
pub struct Mock {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Mock {
    pub fn start(handler: impl Fn(&Received, &mut Exchange<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (received, connections) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, count) = (received.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, handler) = (log.clone(), handler.clone());
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(stream.unwrap(), &log, &*handler));
            }
        });
        Self { url, received, connections }
    }

    /// The requests so far that generate.
    pub fn received(&self) -> Vec<Received> {
        let all = self.received.lock().unwrap();
        all.iter().filter(|it| it.method == "POST" && it.body != serde_json::json!({})).cloned().collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Received>>, handler: &Handler) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        log.lock().unwrap().push(request.clone());
        handler(&request, &mut Exchange { stream: &mut stream, events_max: usize::MAX });
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some(Received { method, path, headers, body })
}
