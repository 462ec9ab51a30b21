//! Span of an HTTP request, following OpenTelemetry's semantic conventions for HTTP servers.

use super::{InferenceSpan, Telemetry};
use crate::http::request_log;
use crate::listener::{Connection, Transport};
use crate::state::AppState;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderMap, Method, Version};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Span;
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Maximum bytes of an incoming `traceparent` or `tracestate`, since every span of the trace repeats them.
const HEADER_BYTES_MAX: usize = 512;

/// The span of a request; empty if the request is not traced. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct RequestSpan(Option<Arc<Traced>>);

struct Traced {
    span: Mutex<Span>,
    /// Parent context for child spans.
    context: Context,
    telemetry: Telemetry,
    trace_id: String,
    span_id: String,
}

impl RequestSpan {
    /// Begins the span of a request.
    pub(crate) fn begin(state: &AppState, request: &Request, id: &str) -> Self {
        let path = request.uri().path();
        let Some(telemetry) = &state.telemetry else { return Self::default() };
        if request_log::is_probe(path) && !telemetry.traces_probes() {
            return Self::default();
        }
        let (method, other) = method(request.method());
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        // Span names need low cardinality: the route's template is used, never the path.
        let verb = if other.is_some() { "HTTP" } else { method };
        let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.path", path.to_owned()),
            KeyValue::new("url.scheme", scheme(request)),
            KeyValue::new("exsa.request.id", id.to_owned()),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        attributes.extend(other.map(|method| KeyValue::new("http.request.method_original", method)));
        attributes.extend(version(request.version()).map(|v| KeyValue::new("network.protocol.version", v)));
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        attributes.extend(peer.map(|peer| KeyValue::new("client.address", peer.0.ip().to_string())));
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(request.headers()));
        let builder = telemetry.tracer().span_builder(name).with_kind(SpanKind::Server);
        let span = telemetry.tracer().build_with_context(builder.with_attributes(attributes), &parent);
        let own = span.span_context().clone();
        Self(Some(Arc::new(Traced {
            span: Mutex::new(span),
            trace_id: own.trace_id().to_string(),
            span_id: own.span_id().to_string(),
            context: Context::new().with_remote_span_context(own),
            telemetry: telemetry.clone(),
        })))
    }

    /// Ids of the trace and of the span, for logs.
    pub(crate) fn ids(&self) -> (Option<&str>, Option<&str>) {
        self.0.as_ref().map(|traced| (&*traced.trace_id, &*traced.span_id)).unzip()
    }

    /// Sets the caller, if the configuration enables it.
    pub(crate) fn caller(&self, id: &str) {
        if let Some(traced) = self.0.as_ref().filter(|traced| traced.telemetry.names_callers()) {
            traced.span.lock().set_attribute(KeyValue::new("exsa.caller.id", id.to_owned()));
        }
    }

    /// Ends the span with the status of the response, if any, and whether it was sent completely.
    pub(crate) fn end(&self, status: Option<u16>, whole: bool) {
        let Some(traced) = &self.0 else { return };
        let mut span = traced.span.lock();
        if let Some(status) = status {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        match status {
            Some(status) if status >= 500 => {
                span.set_attribute(KeyValue::new("error.type", status.to_string()));
                span.set_status(Status::error(""));
            }
            _ if !whole => span.set_attribute(KeyValue::new("error.type", "client_gone")),
            _ => {}
        }
        span.end();
    }

    /// Begins a child span for a generation.
    pub(crate) fn generation(&self, model: Option<&str>, request: &exsa_core::Request) -> InferenceSpan {
        self.0.as_ref().map_or_else(InferenceSpan::default, |traced| {
            InferenceSpan::generation(traced.telemetry.tracer(), &traced.context, model, request)
        })
    }

    /// Begins a child span for an `operation` without generated tokens.
    pub(crate) fn computation(&self, operation: &'static str, model: Option<&str>) -> InferenceSpan {
        self.0.as_ref().map_or_else(InferenceSpan::default, |traced| {
            InferenceSpan::computation(traced.telemetry.tracer(), &traced.context, operation, model)
        })
    }
}

impl fmt::Debug for RequestSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("RequestSpan").field(&self.ids()).finish()
    }
}

/// Returns the method, or `_OTHER` and the original method if it is not a standard one.
fn method(method: &Method) -> (&'static str, Option<String>) {
    let known = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => return ("_OTHER", Some(method.as_str().to_owned())),
    };
    (known, None)
}

/// Returns the scheme of the connection; a TLS-terminating proxy is not visible.
fn scheme(request: &Request) -> &'static str {
    let connection = request.extensions().get::<Connection>();
    if connection.is_some_and(|connection| connection.transport == Transport::Tls) { "https" } else { "http" }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Request headers, from which a propagator reads the trace.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).filter(|value| value.len() <= HEADER_BYTES_MAX);
        value.and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
