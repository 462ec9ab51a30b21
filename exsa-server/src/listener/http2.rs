//! HTTP/2, with the timeouts that HTTP/1 connections have.

use super::limits::ConnectionLimits;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Bytes buffered per stream for a client that does not read.
const SEND_BUFFER: usize = 64 << 10;

/// Time for which an idle connection is kept after a gRPC request, since gRPC clients keep connections open,
/// and fail requests that meet a closing one.
const GRPC_IDLE: Duration = Duration::from_secs(600);

/// Serves the requests of a connection.
pub(super) async fn serve<S, F>(
    stream: S,
    service: F,
    limits: &ConnectionLimits,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    F::Future: Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let tracked = activity.clone();
    let service = service_fn(move |request| {
        let stream = Stream::begin(&tracked, is_grpc(&request));
        let response = service.call(request);
        async move { response.await.map(|response| response.map(|body| Tracked { body, stream })) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max.max(1))
        .max_header_list_size(u32::try_from(limits.header_bytes_max.max(8192)).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(Observed { stream, activity: activity.clone() }), service);
    tokio::select! {
        ended = watcher.watch(connection) => Ok(ended?),
        reason = activity.stalled(limits) => Err(reason.into()),
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let form = request.headers().get(hyper::header::CONTENT_TYPE);
    form.is_some_and(|form| form.as_bytes().starts_with(b"application/grpc"))
}

/// Activity of a connection.
///
/// The write timeout does not detect a stalled stream: the client withholds flow control, so nothing is
/// written. HTTP/2 also has no next request head, whose timeout would end idle connections.
#[derive(Debug, Default)]
struct Activity(Mutex<Streams>);

#[derive(Debug)]
struct Streams {
    next: u64,
    /// Open streams, each with the time since which its last part waits to be written.
    open: HashMap<u64, Option<Instant>>,
    /// Bytes of bodies that were handed over and may not be written yet.
    unwritten: usize,
    /// End of the last stream, or the last write of a body after it, since a complete response may still be
    /// in the buffers. Answers to pings do not count, or a client could keep its connection open with them.
    idle_since: Instant,
    /// Whether there was a gRPC request.
    has_grpc: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self { next: 0, open: HashMap::new(), unwritten: 0, idle_since: Instant::now(), has_grpc: false }
    }
}

impl Activity {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection must be closed, and returns the reason.
    async fn stalled(&self, limits: &ConnectionLimits) -> &'static str {
        let least = limits.header_timeout.min(limits.write_timeout);
        let interval = (least / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            tokio::time::sleep(interval).await;
            let streams = self.lock();
            let idle =
                if streams.has_grpc { limits.header_timeout.max(GRPC_IDLE) } else { limits.header_timeout };
            if streams.open.is_empty() && streams.idle_since.elapsed() > idle {
                return "the connection was idle";
            }
            let mut waits = streams.open.values().flatten();
            if waits.any(|since| since.elapsed() > limits.write_timeout) {
                return "a client did not read";
            }
        }
    }
}

/// One of a connection's streams.
#[derive(Debug)]
struct Stream {
    activity: Arc<Activity>,
    number: u64,
}

impl Stream {
    fn begin(activity: &Arc<Activity>, is_grpc: bool) -> Self {
        let mut streams = activity.lock();
        streams.has_grpc |= is_grpc;
        let number = streams.next;
        streams.next += 1;
        streams.open.insert(number, None);
        drop(streams);
        Self { activity: activity.clone(), number }
    }

    /// Records a part of `bytes` bytes, or that the client has received the last one.
    fn hands_over(&self, bytes: Option<usize>) {
        let mut streams = self.activity.lock();
        streams.unwritten = streams.unwritten.saturating_add(bytes.unwrap_or_default());
        streams.open.insert(self.number, bytes.map(|_| Instant::now()));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams = self.activity.lock();
        streams.open.remove(&self.number);
        streams.idle_since = Instant::now();
    }
}

/// A connection on which body writes count as activity.
struct Observed<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            let mut streams = self.activity.lock();
            if streams.unwritten > 0 {
                streams.unwritten = streams.unwritten.saturating_sub(written);
                streams.idle_since = Instant::now();
            }
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body that reports when the client takes its parts.
struct Tracked {
    body: Body,
    stream: Stream,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // The next part is requested once this one has been taken.
        self.stream.hands_over(match &polled {
            Poll::Ready(Some(Ok(frame))) => Some(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(Some(Err(_))) => Some(0),
            _ => None,
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
