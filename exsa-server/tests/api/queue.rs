//! Refusals tell the place in the queue and the time to wait, in the form of each API.

use crate::gated::{Gated, eventually, registry};
use crate::harness::{Reply, get, post_json};
use axum::Router;
use axum::http::{StatusCode, header};
use exsa_core::backend::ModelSource;
use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
use exsa_core::{EngineOptions, Priority};
use exsa_server::Server;
use exsa_server::models::Models;
use exsa_server::quota::{Limits, QuotaConfig, Quotas};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;

/// A loaded model whose passes stand still, with one sequence and places for two that wait.
async fn full(backend: &Arc<Gated>) -> (Router, Vec<JoinHandle<Reply>>) {
    let mut options = EngineOptions::default().queue_max(2);
    options.session.sequences_max = 1;
    let registry = Arc::new(Registry::new(RegistryOptions::new()).unwrap());
    let config = ModelConfig::new("a", backend.clone(), ModelSource::file("scripted"));
    registry.add(config.engine(options)).unwrap();
    let app = Server::of_models(Models::new(registry)).router();
    let loaded = post_json(&app, "/v1/models/load", json!({"model": "a"})).await;
    assert_eq!(loaded.status, StatusCode::OK, "{}", loaded.text);
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let running =
        vec![running(backend, &app).await, waiting(&app, "normal", 1).await, waiting(&app, "batch", 2).await];
    (app, running)
}

/// A request whose pass has begun.
async fn running(backend: &Gated, app: &Router) -> JoinHandle<Reply> {
    let (beside, passes) = (app.clone(), backend.gates.passes.load(Ordering::SeqCst));
    let task = tokio::spawn(async move { post_json(&beside, "/v1/completions", ask("normal")).await });
    eventually("a pass has begun", async || backend.gates.passes.load(Ordering::SeqCst) > passes).await;
    task
}

/// A request that waits, as the `count`th.
async fn waiting(app: &Router, priority: &'static str, count: u64) -> JoinHandle<Reply> {
    let beside = app.clone();
    let task = tokio::spawn(async move { post_json(&beside, "/v1/completions", ask(priority)).await });
    eventually("the request waits", async || {
        let stats = get(app, "/v1/stats?users=true").await.json();
        let users = stats["waiting_by_user"].as_array().unwrap();
        users.iter().filter_map(|user| user["waiting"].as_u64()).sum::<u64>() == count
    })
    .await;
    task
}

fn ask(priority: &str) -> Value {
    json!({"prompt": "a", "max_tokens": 2, "priority": priority})
}

#[tokio::test]
async fn a_full_queue_tells_the_place_and_the_time() {
    let backend = Gated::new("Hello.");
    let (app, running) = full(&backend).await;
    // The waiting request of the class batch comes after further ones of the class normal.
    for (priority, position) in [("normal", 2), ("batch", 3)] {
        let refused = post_json(&app, "/v1/completions", ask(priority)).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["queue_position"]), (&json!("queue_full"), &json!(position)));
        let header: f64 = refused.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        let wait = error["retry_after"].as_f64().unwrap();
        assert!(wait <= header && header < wait + 1.001, "{wait} {header}");
    }
    let messages = json!([{"role": "user", "content": "a"}]);
    let anthropic = json!({"model": "a", "max_tokens": 2, "messages": messages});
    let error = post_json(&app, "/v1/messages", anthropic).await.json()["error"].clone();
    assert_eq!((&error["type"], &error["queue_position"]), (&json!("rate_limit_error"), &json!(2)));
    assert!(error["retry_after"].is_number());
    let body = post_json(&app, "/api/generate", json!({"model": "a", "prompt": "a"})).await.json();
    assert!(body["error"].is_string() && body["retry_after"].is_number());
    assert_eq!(body["queue_position"], 2);
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    for task in running {
        assert_eq!(task.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_quota_tells_the_place_that_the_request_would_have() {
    let backend = Gated::new("Hello.");
    let mut config = QuotaConfig::default();
    config.default = serde_json::from_value::<Limits>(json!({"streams": 2})).unwrap();
    let quotas = Quotas::open(config, None).unwrap();
    let models = Models::new(registry(&backend, &["a"], RegistryOptions::new()));
    let app = Server::of_models(models).quotas(quotas).router();
    post_json(&app, "/v1/models/load", json!({"model": "a"})).await;
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let running = [running(&backend, &app).await, waiting(&app, "normal", 1).await];
    let refused = post_json(&app, "/v1/completions", ask("normal")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
    let error = &refused.json()["error"];
    assert_eq!((&error["code"], &error["retry_after"]), (&json!("too_many_streams"), &json!(1.0)));
    // The statistics are those before the pass that is held up.
    let classes = get(&app, "/v1/stats").await.json()["waiting_by_class"].clone();
    let waiting = classes[Priority::Normal.index()]["waiting"].as_u64().unwrap();
    assert_eq!(error["queue_position"].as_u64().unwrap(), waiting + 1);
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    for task in running {
        assert_eq!(task.await.unwrap().status, StatusCode::OK);
    }
}
