//! Ollama's way of loading and unloading, and loads on request.

use crate::gated::{Gated, eventually, registry};
use crate::harness::{get, post, post_json};
use axum::Router;
use axum::http::StatusCode;
use exsa_core::registry::{Registry, RegistryOptions};
use exsa_server::Server;
use exsa_server::models::Models;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn app(options: RegistryOptions) -> (Arc<Registry>, Router) {
    let registry = registry(&Gated::new("Hello."), &["a", "b"], options);
    (registry.clone(), Server::of_models(Models::new(registry)).router())
}

fn generate(prompt: &str, keep_alive: Value) -> Value {
    json!({"model": "a:latest", "prompt": prompt, "stream": false, "keep_alive": keep_alive})
}

#[tokio::test]
async fn a_request_without_prompt_loads_and_unloads() {
    let (registry, app) = app(RegistryOptions::new());
    let tags = get(&app, "/api/tags").await.json();
    assert_eq!(
        (&tags["models"][0]["name"], &tags["models"][1]["name"]),
        (&json!("a:latest"), &json!("b:latest"))
    );
    assert_eq!(get(&app, "/api/ps").await.json()["models"], json!([]));
    let loaded = post_json(&app, "/api/generate", json!({"model": "a"})).await;
    assert_eq!(
        (loaded.status, &loaded.json()["done_reason"]),
        (StatusCode::OK, &json!("load")),
        "{}",
        loaded.text
    );
    assert_eq!(get(&app, "/api/ps").await.json()["models"][0]["expires_at"], "9999-12-31T23:59:59Z");
    let kept = post_json(&app, "/api/generate", generate("a", json!("5m"))).await;
    assert_eq!(kept.json()["response"], "Hello.", "{}", kept.text);
    assert_eq!(registry.status("a").unwrap().keep_alive, Some(Duration::from_secs(300)));
    let expires = get(&app, "/api/ps").await.json()["models"][0]["expires_at"].as_str().unwrap().to_owned();
    let left =
        humantime::parse_rfc3339(&expires).unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!((290..=301).contains(&left.as_secs()), "{left:?}");
    let unloaded = post_json(&app, "/api/chat", json!({"model": "a", "messages": [], "keep_alive": 0})).await;
    assert_eq!((unloaded.status, &unloaded.json()["done_reason"]), (StatusCode::OK, &json!("unload")));
    eventually("it sleeps", async || registry.status("a").unwrap().state.name() == "sleeping").await;
}

#[tokio::test]
async fn keep_alive_of_a_request_begins_with_its_end() {
    let (registry, app) = app(RegistryOptions::new());
    registry.load("a").await.unwrap();
    let answer = post_json(&app, "/api/generate", generate("a", json!(0))).await;
    assert_eq!(answer.json()["response"], "Hello.", "{}", answer.text);
    eventually("it sleeps", async || registry.status("a").unwrap().state.name() == "sleeping").await;
    registry.wake("a").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(registry.status("a").unwrap().state.name(), "ready", "the next instance is kept");
    post_json(&app, "/api/generate", generate("a", json!(-1))).await;
    assert_eq!(registry.status("a").unwrap().keep_alive, None);
    let refused = post_json(&app, "/api/generate", generate("a", json!("soon"))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn files_of_models_are_not_changed() {
    let (_, app) = app(RegistryOptions::new());
    for path in ["push", "create", "copy"] {
        let refused = post(&app, &format!("/api/{path}"), "{}").await;
        assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED, "{path}");
        assert!(refused.json()["error"].as_str().unwrap().contains("is not supported"));
    }
}

#[tokio::test]
async fn a_request_can_load_its_model() {
    let (registry, app) = app(RegistryOptions::new().load_on_request(true));
    let body = json!({"model": "a", "prompt": "a", "max_tokens": 3});
    let refused = post_json(&app, "/v1/completions", body.clone()).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("model_loading"))
    );
    assert!(refused.headers.contains_key("retry-after"));
    registry.load("a").await.unwrap();
    assert_eq!(post_json(&app, "/v1/completions", body).await.status, StatusCode::OK);
}
