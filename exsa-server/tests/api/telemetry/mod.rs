//! Traces, as a collector receives them.

mod collector;
mod failures;
mod inference;
mod requests;

use crate::harness::engine;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use collector::Collector;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::Server;
use exsa_server::config::TelemetryConfig;
use exsa_server::telemetry::Telemetry;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A traced server and its collector.
struct Traced {
    app: Router,
    telemetry: Telemetry,
    collector: Collector,
}

impl Traced {
    /// A server whose model says `text`.
    fn new(text: &str) -> Self {
        Self::with(text, |config| config)
    }

    fn with(text: &str, change: impl FnOnce(TelemetryConfig) -> TelemetryConfig) -> Self {
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        let model = ScriptedModel::echo(text).chat_template(template);
        let engine = Engine::start(model.shared(), EngineOptions::default()).unwrap();
        let collector = Collector::start();
        let telemetry = open(change(config(&collector.url)));
        let app = Server::new(Arc::new(engine)).telemetry(telemetry.clone()).router();
        Self { app, telemetry, collector }
    }

    /// Ends the export and returns all spans.
    fn spans(&self) -> Vec<collector::Span> {
        self.telemetry.close();
        self.collector.spans()
    }
}

/// Exports often, so that tests need not wait.
fn config(url: &str) -> TelemetryConfig {
    TelemetryConfig::new(url).interval(Duration::from_millis(20))
}

fn open(config: TelemetryConfig) -> Telemetry {
    Telemetry::open(&config).unwrap().unwrap()
}

/// A server whose collector is the test's own matter.
fn exporting(config: TelemetryConfig) -> (Router, Telemetry) {
    let telemetry = open(config);
    let app = Server::new(Arc::new(engine("one two three"))).telemetry(telemetry.clone()).router();
    (app, telemetry)
}

/// A request with further headers.
fn request(path: &str, headers: &[(&'static str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::post(path).header(header::HOST, "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}
