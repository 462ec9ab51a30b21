//! Spans of HTTP requests.

use super::{Traced, request};
use crate::harness::{get, post_json, send};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_request_continues_the_trace_of_its_sender() {
    let traced = Traced::new("x");
    let headers = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1"), ("x-request-id", "abc")];
    let reply = send(&traced.app, request("/v1/tokenize", &headers, &json!({"content": "héy"}))).await;
    assert_eq!(reply.status, StatusCode::OK);
    let spans = traced.spans();
    let [span] = &*spans else { panic!("{spans:?}") };
    assert_eq!((&*span.name, span.kind, span.status), ("POST /v1/tokenize", 2, 0));
    assert_eq!(span.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&*span.parent, &*span.trace_state), ("00f067aa0ba902b7", "vendor=1"));
    let expected = json!({
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/tokenize",
        "url.path": "/v1/tokenize",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "exsa.request.id": "abc",
    });
    assert_eq!(json!(span.attributes), expected);
}

#[tokio::test]
async fn invalid_parents_begin_new_traces() {
    let traced = Traced::new("x");
    let long = format!("{}{TRACEPARENT}", "0".repeat(600));
    let parents = ["", "00", "ff-x", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &long];
    for parent in parents {
        let sent = request("/v1/tokenize", &[("traceparent", parent)], &json!({"content": "a"}));
        assert_eq!(send(&traced.app, sent).await.status, StatusCode::OK);
    }
    let spans = traced.spans();
    assert_eq!(spans.len(), parents.len());
    assert!(spans.iter().all(|span| span.parent.is_empty() && span.trace_id.len() == 32), "{spans:?}");
}

#[tokio::test]
async fn the_decision_of_the_sender_goes_before_the_ratio() {
    for (ratio, flags, exported) in
        [(0.0, None, 0), (0.0, Some("01"), 2), (1.0, Some("00"), 0), (1.0, None, 2)]
    {
        let traced = Traced::with("one two", |config| config.sample_ratio(ratio));
        let parent =
            flags.map(|flags| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"));
        let headers: Vec<_> = parent.iter().map(|parent| ("traceparent", &**parent)).collect();
        let sent = request("/v1/completions", &headers, &json!({"prompt": "a", "max_tokens": 1}));
        assert_eq!(send(&traced.app, sent).await.status, StatusCode::OK);
        assert_eq!(traced.spans().len(), exported, "{ratio} {flags:?}");
    }
}

#[tokio::test]
async fn names_have_few_values() {
    let traced = Traced::new("x");
    get(&traced.app, "/v1/models/some/model").await;
    get(&traced.app, "/nowhere/secret").await;
    let odd = Request::builder().method("BREW").uri("/v1/models").header(header::HOST, "localhost");
    send(&traced.app, odd.body(Body::empty()).unwrap()).await;
    let spans = traced.spans();
    let named: Vec<_> = spans.iter().map(|span| (&*span.name, &span.attributes)).collect();
    let status = |i: usize| &named[i].1["http.response.status_code"];
    assert_eq!((named[0].0, status(0)), ("GET /v1/models/{*id}", &json!(404)));
    assert_eq!((named[1].0, status(1)), ("GET", &json!(404)));
    assert_eq!((named[2].0, status(2)), ("HTTP /v1/models", &json!(405)));
    assert_eq!(named[2].1["http.request.method"], "_OTHER");
    assert_eq!(named[2].1["http.request.method_original"], "BREW");
    assert!(spans.iter().all(|span| span.status == 0), "errors of clients are none of the server");
}

#[tokio::test]
async fn probes_and_callers_are_told_by_option() {
    for option in [false, true] {
        let traced = Traced::with("x", |config| config.probes(option).caller_id(option));
        for path in ["/health/live", "/metrics", "/v1/models"] {
            assert_eq!(get(&traced.app, path).await.status, StatusCode::OK);
        }
        let spans = traced.spans();
        assert_eq!(spans.len(), if option { 3 } else { 1 });
        let caller = spans.last().unwrap().attributes.get("exsa.caller.id");
        assert_eq!(caller, option.then_some(&json!("anonymous")));
    }
}

#[tokio::test]
async fn the_server_describes_itself() {
    let traced = Traced::with("x", |config| config.resource("deployment.environment.name", "test"));
    post_json(&traced.app, "/v1/tokenize", json!({"content": "a"})).await;
    traced.spans();
    let resource = traced.collector.resource();
    for (name, value) in [
        ("service.name", "exsa-server"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "test"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(resource[name], value, "{name}");
    }
}
