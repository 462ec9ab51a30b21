//! A collector: receives OTLP over HTTP on a thread of its own.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span as Raw;
use prost::Message;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// A running collector.
pub struct Collector {
    pub url: String,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    /// Answers of the next exports; 200 after the last.
    answers: VecDeque<(StatusCode, i64)>,
    exports: Vec<(HeaderMap, Bytes)>,
    accepted: Vec<Bytes>,
}

/// A span with readable values.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: i32,
    pub trace_id: String,
    pub span_id: String,
    pub parent: String,
    pub trace_state: String,
    pub attributes: BTreeMap<String, Value>,
    pub events: Vec<(String, u64, BTreeMap<String, Value>)>,
    pub times: (u64, u64),
    /// Code of the status: 2 is an error.
    pub status: i32,
}

impl Collector {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Received::default()));
        let store = received.clone();
        let receive = move |headers: HeaderMap, body: Bytes| {
            let answer = store.lock().unwrap().receive(headers, body);
            async move { answer }
        };
        let app = Router::new().route("/v1/traces", post(receive));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
            });
        });
        Self { url, received }
    }

    /// Sets the answers of the next exports: a status, and the number of spans that it rejects.
    pub fn answer(&self, answers: impl IntoIterator<Item = (StatusCode, i64)>) {
        self.received.lock().unwrap().answers.extend(answers);
    }

    /// Headers and bodies of all exports.
    pub fn exports(&self) -> Vec<(HeaderMap, Bytes)> {
        self.received.lock().unwrap().exports.clone()
    }

    /// Attributes of the resource of the first export.
    pub fn resource(&self) -> BTreeMap<String, Value> {
        let request = ExportTraceServiceRequest::decode(self.exports()[0].1.clone()).unwrap();
        readable(&request.resource_spans[0].resource.as_ref().unwrap().attributes)
    }

    /// The spans of accepted exports, by their start.
    pub fn spans(&self) -> Vec<Span> {
        let accepted = self.received.lock().unwrap().accepted.clone();
        let requests = accepted.into_iter().map(|body| ExportTraceServiceRequest::decode(body).unwrap());
        let scopes = requests.flat_map(|request| request.resource_spans).flat_map(|spans| spans.scope_spans);
        let mut spans: Vec<_> = scopes.flat_map(|scope| scope.spans).map(Span::from).collect();
        spans.sort_by_key(|span| span.times.0);
        spans
    }
}

impl Received {
    fn receive(&mut self, headers: HeaderMap, body: Bytes) -> impl IntoResponse + use<> {
        self.exports.push((headers, body.clone()));
        let (status, rejected_spans) = self.answers.pop_front().unwrap_or((StatusCode::OK, 0));
        if status.is_success() {
            self.accepted.push(body);
        }
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too old".into() };
        let partial_success = (rejected_spans > 0).then_some(partial);
        (status, ExportTraceServiceResponse { partial_success }.encode_to_vec())
    }
}

impl From<Raw> for Span {
    fn from(raw: Raw) -> Self {
        let event = |event: opentelemetry_proto::tonic::trace::v1::span::Event| {
            (event.name, event.time_unix_nano, readable(&event.attributes))
        };
        Self {
            name: raw.name,
            kind: raw.kind,
            trace_id: hex(&raw.trace_id),
            span_id: hex(&raw.span_id),
            parent: hex(&raw.parent_span_id),
            trace_state: raw.trace_state,
            attributes: readable(&raw.attributes),
            events: raw.events.into_iter().map(event).collect(),
            times: (raw.start_time_unix_nano, raw.end_time_unix_nano),
            status: raw.status.map_or(0, |status| status.code),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn readable(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    fn value(of: &any_value::Value) -> Value {
        match of {
            any_value::Value::StringValue(text) => json!(text),
            any_value::Value::BoolValue(flag) => json!(flag),
            any_value::Value::IntValue(number) => json!(number),
            any_value::Value::DoubleValue(number) => json!(number),
            any_value::Value::ArrayValue(list) => {
                list.values.iter().map(|item| value(item.value.as_ref().unwrap())).collect()
            }
            other => panic!("{other:?}"),
        }
    }
    let pair =
        |pair: &KeyValue| (pair.key.clone(), value(pair.value.as_ref().unwrap().value.as_ref().unwrap()));
    let read: BTreeMap<_, _> = attributes.iter().map(pair).collect();
    assert_eq!(read.len(), attributes.len(), "an attribute is there twice: {attributes:?}");
    read
}
