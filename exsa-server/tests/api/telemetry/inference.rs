//! Spans of inference.

use super::collector::Span;
use super::{Collector, Traced, config, open, request};
use crate::gated::{Gated, registry};
use crate::harness::{post_json, send};
use axum::http::StatusCode;
use exsa_core::registry::RegistryOptions;
use exsa_server::Server;
use exsa_server::models::Models;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tower::ServiceExt;

/// The span of the request and its child.
fn pair(spans: &[Span]) -> (&Span, &Span) {
    let [outer, inner] = spans else { panic!("{spans:?}") };
    assert_eq!((&inner.parent, &inner.trace_id), (&outer.span_id, &outer.trace_id));
    assert!(outer.times.0 <= inner.times.0 && inner.times.1 <= outer.times.1, "{spans:?}");
    (outer, inner)
}

#[tokio::test]
async fn a_generation_is_a_child_of_its_request() {
    let traced = Traced::new("the answer");
    let body = json!({
        "model": "scripted", "messages": [{"role": "user", "content": "a private question"}],
        "max_tokens": 3, "temperature": 0.7, "top_p": 0.9, "seed": 7, "stop": ["private stop"],
    });
    let reply = send(&traced.app, request("/v1/chat/completions", &[], &body)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let spans = traced.spans();
    let (_, inner) = pair(&spans);
    assert_eq!((&*inner.name, inner.kind, inner.status), ("chat scripted", 1, 0));
    let mut attributes = inner.attributes.clone();
    assert!(attributes.remove("exsa.queue_time").unwrap().as_f64().unwrap() >= 0.0);
    let expected = json!({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "exsa",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.model": "scripted",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": reply.json()["usage"]["prompt_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 3,
        "exsa.request.priority": "normal",
    });
    let expected: std::collections::BTreeMap<_, _> = serde_json::from_value(expected).unwrap();
    assert_eq!(attributes, expected);
    let [(name, at, first)] = &*inner.events else { panic!("{inner:?}") };
    assert_eq!(name, "exsa.first_token");
    assert!((inner.times.0..=inner.times.1).contains(at), "{inner:?}");
    assert!(first["exsa.time_to_first_token"].as_f64().unwrap() > 0.0);
    for (_, body) in traced.collector.exports() {
        for text in ["private", "answer"] {
            assert!(!body.windows(text.len()).any(|part| part == text.as_bytes()), "{text} is exported");
        }
    }
}

#[tokio::test]
async fn each_answer_has_its_finish_reason() {
    let traced = Traced::new("ab");
    let body = json!({"prompt": "a", "n": 2, "max_tokens": 1, "stream": true});
    let reply = send(&traced.app, request("/v1/completions", &[], &body)).await;
    assert_eq!(reply.status, StatusCode::OK);
    let spans = traced.spans();
    let (_, inner) = pair(&spans);
    assert_eq!(inner.name, "text_completion scripted");
    assert_eq!(inner.attributes["gen_ai.request.choice.count"], 2);
    assert_eq!(inner.attributes["gen_ai.response.finish_reasons"], json!(["length", "length"]));
    assert_eq!(inner.attributes["gen_ai.usage.output_tokens"], 2);
}

#[tokio::test]
async fn several_prompts_are_several_children() {
    let traced = Traced::new("ab");
    let body = json!({"prompt": ["a", "b", "c"], "max_tokens": 1});
    assert_eq!(post_json(&traced.app, "/v1/completions", body).await.status, StatusCode::OK);
    let spans = traced.spans();
    assert_eq!(spans.len(), 4);
    assert!(spans[1..].iter().all(|span| span.parent == spans[0].span_id), "{spans:?}");
}

#[tokio::test]
async fn refused_requests_tell_the_error() {
    let traced = Traced::new("x");
    let reply = post_json(&traced.app, "/v1/embeddings", json!({"input": "text"})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let spans = traced.spans();
    let (outer, inner) = pair(&spans);
    assert_eq!((&*inner.name, inner.status), ("embeddings scripted", 2));
    let code = &reply.json()["error"]["code"];
    assert!(code.is_string());
    assert_eq!(inner.attributes["error.type"], *code);
    assert_eq!(outer.status, 0);
}

#[tokio::test]
async fn a_stream_whose_client_leaves_has_ended_spans() {
    let traced = Traced::new(&"a ".repeat(900));
    let body = json!({"prompt": "a", "max_tokens": 800, "stream": true});
    let response = traced.app.clone().oneshot(request("/v1/completions", &[], &body)).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    let spans = traced.spans();
    let (outer, inner) = pair(&spans);
    for span in [outer, inner] {
        assert_eq!((&span.attributes["error.type"], span.status), (&json!("client_gone"), 0));
    }
    assert_eq!(outer.attributes["http.response.status_code"], 200);
    let output = inner.attributes["gen_ai.usage.output_tokens"].as_u64().unwrap();
    assert!((1..800).contains(&output), "{output}");
    assert_eq!(inner.events.len(), 1, "{inner:?}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_has_spans_without_status() {
    let gated = Gated::new("Hello.");
    let registry = registry(&gated, &["a"], RegistryOptions::new());
    registry.load("a").await.unwrap();
    let collector = Collector::start();
    let telemetry = open(config(&collector.url));
    let app = Server::of_models(Models::new(registry)).telemetry(telemetry.clone()).router();
    gated.gates.hold_passes.store(true, Ordering::SeqCst);
    let sent = request("/v1/completions", &[], &json!({"model": "a", "prompt": "a", "max_tokens": 3}));
    let left = tokio::time::timeout(Duration::from_secs(1), app.clone().oneshot(sent)).await;
    assert!(left.is_err(), "the answer is held up");
    gated.gates.hold_passes.store(false, Ordering::SeqCst);
    telemetry.close();
    let spans = collector.spans();
    let (outer, inner) = pair(&spans);
    assert_eq!(outer.attributes.get("http.response.status_code"), None);
    assert_eq!(outer.attributes["error.type"], "client_gone");
    assert_eq!(inner.attributes["error.type"], "client_gone");
    assert_eq!(inner.attributes["gen_ai.usage.output_tokens"], 0);
    assert!(inner.events.is_empty(), "{inner:?}");
}
