//! Models, tokens, health, metrics.

use crate::harness::{app, engine, get, post_json};
use axum::http::{StatusCode, header};
use exsa_server::{Readiness, ServerOptions, router_with};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn models_are_listed_and_shown() {
    let app = app("x");
    let list = get(&app, "/v1/models").await.json();
    let id = list["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((list["object"].as_str(), list["data"][0]["object"].as_str()), (Some("list"), Some("model")));
    assert_eq!(get(&app, &format!("/v1/models/{id}")).await.json()["id"], id.as_str());
    let missing = get(&app, "/v1/models/some/model").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("model_not_found"))
    );
    assert!(missing.text.contains("'some/model'"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_json() {
    let app = app("x");
    let reply = get(&app, "/v1/nothing").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_url"))
    );
    let reply = get(&app, "/v1/completions").await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(reply.json()["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn text_to_tokens_and_back() {
    let app = app("x");
    let reply =
        post_json(&app, "/v1/tokenize", json!({"content": "héy", "return_token_strs": true})).await.json();
    assert_eq!(reply["count"], 4);
    let back = post_json(&app, "/detokenize", json!({"tokens": reply["tokens"]})).await.json();
    assert_eq!(back["content"], "héy");
    let bad = post_json(&app, "/v1/detokenize", json!({"tokens": [4_000_000]})).await;
    assert_eq!(
        (bad.status, &bad.json()["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_token"))
    );
}

#[tokio::test]
async fn a_drain_shows_before_the_server_stops() {
    let readiness = Readiness::default();
    let app = router_with(Arc::new(engine("x")), ServerOptions::default(), readiness.clone());
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(get(&app, path).await.status, StatusCode::OK, "{path}");
    }
    assert!(!get(&app, "/health").await.headers.contains_key(header::CONNECTION));
    readiness.begin_drain();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&app, "/health/live").await.status, StatusCode::OK);
    // Requests are still served, by connections that end.
    let answer = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 1})).await;
    assert_eq!(
        (answer.status, &answer.headers[header::CONNECTION]),
        (StatusCode::OK, &"close".parse().unwrap())
    );
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let app = app("hello");
    post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 3})).await;
    let page = get(&app, "/metrics").await;
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "exsa_requests_finished_total{model=\"scripted\"} 1",
        "exsa_tokens_generated_total{model=\"scripted\"} 3",
        "exsa_waiting{model=\"scripted\",class=\"normal\"} 0.0",
    ] {
        assert!(page.text.lines().any(|l| l == line), "{line} is not in\n{}", page.text);
    }
}
