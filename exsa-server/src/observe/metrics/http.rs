//! HTTP requests by route, status and method: counts, durations, bytes, and those in flight.

use super::Metrics;
use crate::state::AppState;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Route of requests that match none.
const NO_ROUTE: &str = "none";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    /// The route's template, so that names in paths do not become labels.
    route: Arc<str>,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

/// Counters of HTTP requests. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct HttpMetrics {
    requests: Family<StatusLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    received: Family<RouteLabels, Counter>,
    sent: Family<RouteLabels, Counter>,
    in_flight: Gauge,
}

impl HttpMetrics {
    pub(super) fn new() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 262 s.
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-3, 4.0, 10))),
            received: Family::default(),
            sent: Family::default(),
            in_flight: Gauge::default(),
        }
    }

    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register("exsa_http_requests", "HTTP requests answered", self.requests.clone());
        metrics.register_with_unit(
            "exsa_http_request_duration",
            "Time from the request headers to the end of the response",
            Unit::Seconds,
            self.durations.clone(),
        );
        metrics.register("exsa_http_received_bytes", "Bytes of requests' bodies", self.received.clone());
        metrics.register("exsa_http_sent_bytes", "Bytes of responses' bodies", self.sent.clone());
        metrics.register("exsa_http_in_flight", "HTTP requests in flight", self.in_flight.clone());
    }
}

/// Returns the name of a method; nonstandard methods do not become labels.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Counts a request and its response.
pub(crate) async fn count(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let http = &state.metrics.http;
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let labels = RouteLabels { route: matched.unwrap_or(NO_ROUTE).into(), method: name_of(request.method()) };
    http.in_flight.inc();
    let mut timed = Timed { http: http.clone(), labels: labels.clone(), begun: Instant::now(), status: 0 };
    let received = http.received.get_or_create(&labels).clone();
    let response =
        next.run(request.map(|body| Body::new(Counted { body, bytes: received, timed: None }))).await;
    timed.status = response.status().as_u16();
    let sent = http.sent.get_or_create(&labels).clone();
    response.map(|body| Body::new(Counted { body, bytes: sent, timed: Some(timed) }))
}

/// Measures a request from its head to the end of its response, or until the client disconnects.
struct Timed {
    http: HttpMetrics,
    labels: RouteLabels,
    begun: Instant,
    /// 0 until the response head is known.
    status: u16,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let RouteLabels { route, method } = self.labels.clone();
        // Proxies log this status for clients that disconnected before a response.
        let status = if self.status == 0 { 499 } else { self.status };
        self.http.requests.get_or_create(&StatusLabels { route, method, status }).inc();
        self.http.durations.get_or_create(&self.labels).observe(self.begun.elapsed().as_secs_f64());
        self.http.in_flight.dec();
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    bytes: Counter,
    timed: Option<Timed>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes.inc_by(data.len() as u64);
                }
            }
            Poll::Ready(_) => drop(self.timed.take()),
            Poll::Pending => {}
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
