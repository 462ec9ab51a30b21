//! Readiness: loads at start, stalls, sleeping models, drains.

use crate::gated::{Gated, eventually, registry};
use crate::harness::{get, post_json};
use axum::http::StatusCode;
use exsa_core::EngineOptions;
use exsa_core::registry::RegistryOptions;
use exsa_server::models::{Models, ModelsConfig};
use exsa_server::{Server, ServerOptions};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn a_stalled_engine_is_not_ready_until_its_next_step() {
    let backend = Gated::new("the quick brown fox");
    let registry = registry(&backend, &["a"], RegistryOptions::new());
    registry.load("a").await.unwrap();
    let options = ServerOptions::default().step_limit(Duration::from_millis(200));
    let app = Server::of_models(Models::new(registry)).options(options).router();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::OK);
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let sender = app.clone();
    let body = json!({"model": "a", "prompt": "> ", "max_tokens": 9});
    let request = tokio::spawn(async move { post_json(&sender, "/v1/completions", body).await });
    eventually("the stall is seen", async || get(&app, "/health/ready").await.status != StatusCode::OK).await;
    let stalled = get(&app, "/health").await;
    assert_eq!(
        (stalled.status, &stalled.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!(503))
    );
    assert!(stalled.text.contains("no step completed for 0.2 s while work waits: a"), "{}", stalled.text);
    assert_eq!(get(&app, "/health/live").await.status, StatusCode::OK);
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    assert_eq!(request.await.unwrap().status, StatusCode::OK);
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::OK, "an idle engine makes no steps");
}

#[tokio::test]
async fn a_server_is_ready_after_the_loads_at_start_and_their_first_request() {
    let backend = Gated::new("Hello.");
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let models = Models::open(&ModelsConfig::default(), backend.clone(), EngineOptions::default()).unwrap();
    let models = Arc::new(models);
    let app = Server::of_models(models.clone()).router();
    let loading = get(&app, "/health").await;
    assert_eq!(
        (loading.status, &loading.json()["error"]["message"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("Loading model"))
    );
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    tokio::task::spawn_blocking(move || models.wait_for_start()).await.unwrap().unwrap();
    assert_eq!(get(&app, "/health").await.json(), json!({"status": "ok"}));
    let warm = get(&app, "/v1/models/list").await.json();
    assert_eq!(warm["data"][0]["counters"]["loads"], 1);
}

#[tokio::test]
async fn a_model_that_a_request_wakes_is_enough() {
    let registry = registry(&Gated::new("x"), &["a"], RegistryOptions::new());
    let app = Server::of_models(Models::new(registry.clone())).router();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE, "nothing is loaded");
    registry.load("a").await.unwrap();
    registry.sleep("a", None).await.unwrap();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::OK);
    registry.unload("a", None).await.unwrap();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
}
