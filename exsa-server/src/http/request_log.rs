//! Writes one log line per HTTP request, when its response has ended or its client has disconnected.

use crate::access::Caller;
use crate::http::context::RequestContext;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use exsa_core::Usage;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tracing::{debug, info};

/// Information for the log that is collected while a request is processed; never prompts, answers or keys.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogEntry(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    caller: Option<Arc<str>>,
    model: Option<String>,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl LogEntry {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the answering model.
    pub(crate) fn model(&self, name: &str) {
        self.lock().model = Some(name.to_owned());
    }

    /// Adds tokens of a prompt and of its answers.
    pub(crate) fn tokens(&self, usage: &Usage) {
        let mut facts = self.lock();
        facts.prompt_tokens += usage.prompt_tokens;
        facts.completion_tokens += usage.completion_tokens;
    }

    /// Adds the generated tokens of a cancelled request.
    pub(crate) fn generated(&self, tokens: u64) {
        self.lock().completion_tokens += usize::try_from(tokens).unwrap_or(usize::MAX);
    }
}

/// Adds the caller to the log entry.
pub(crate) async fn name_caller(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    if let (Some(context), Some(caller)) = (extensions.get::<RequestContext>(), extensions.get::<Caller>()) {
        context.log.lock().caller = Some(caller.id.clone());
        context.span.caller(&caller.id);
    }
    next.run(request).await
}

/// Returns whether a path is polled regularly by machines.
pub(crate) fn is_probe(path: &str) -> bool {
    path.starts_with("/health") || path == "/metrics"
}

/// The log line of a request. It is written when it is dropped, after the response or when the client
/// disconnects; this also ends the request's span.
pub(crate) struct RequestLine {
    context: RequestContext,
    /// `None` until there is a response.
    status: Option<u16>,
    /// Whether the body was sent completely.
    whole: bool,
}

impl RequestLine {
    pub(crate) fn new(context: RequestContext) -> Self {
        Self { context, status: None, whole: false }
    }

    /// Attaches the line to the response until its body ends or is dropped.
    pub(crate) fn follow(mut self, response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        self.whole = response.body().is_end_stream();
        response.map(|body| Body::new(Logged { body, line: self }))
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        let Self { context, status, whole } = self;
        context.span.end(*status, *whole);
        let (trace_id, span_id) = context.span.ids();
        // Proxies log this status for clients that disconnected before a response.
        let status = status.unwrap_or(499);
        let facts = context.log.lock();
        let (id, method, path) = (&*context.id, context.method.as_str(), &*context.path);
        let caller = facts.caller.as_deref().unwrap_or("-");
        let seconds = (context.begun.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        match &facts.model {
            Some(model) => {
                let (prompt, completion) = (facts.prompt_tokens, facts.completion_tokens);
                let whole = *whole;
                info!(
                    id,
                    trace_id,
                    span_id,
                    method,
                    path,
                    status,
                    caller,
                    model,
                    prompt_tokens = prompt,
                    completion_tokens = completion,
                    whole,
                    seconds,
                    "request"
                );
            }
            None if is_probe(path) => {
                debug!(id, trace_id, span_id, method, path, status, caller, seconds, "request");
            }
            None => info!(id, trace_id, span_id, method, path, status, caller, seconds, "request"),
        }
    }
}

/// A body that writes the line after its last part. The body is dropped first, so that the books it holds are
/// closed before.
struct Logged {
    body: Body,
    line: RequestLine,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.line.whole = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
