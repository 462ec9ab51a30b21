//! `/v1/models/...`: loads, unloads and switches of models, and requests meanwhile.

use crate::gated::{Gated, eventually, registry};
use crate::harness::{Reply, get, post_json};
use axum::Router;
use axum::http::StatusCode;
use exsa_core::registry::RegistryOptions;
use exsa_server::Server;
use exsa_server::models::Models;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const COMPLETIONS: &str = "/v1/completions";

fn app(backend: &Arc<Gated>, names: &[&str]) -> Router {
    app_with(backend, names, RegistryOptions::new())
}

fn app_with(backend: &Arc<Gated>, names: &[&str], options: RegistryOptions) -> Router {
    Server::of_models(Models::new(registry(backend, names, options))).router()
}

async fn order(app: &Router, path: &str, model: &str) -> Reply {
    post_json(app, &format!("/v1/models/{path}"), json!({"model": model})).await
}

async fn state(app: &Router, model: &str) -> String {
    entry(app, model).await["state"].as_str().unwrap().to_owned()
}

async fn entry(app: &Router, model: &str) -> Value {
    let list = get(app, "/v1/models/list").await.json();
    let models = list["data"].as_array().unwrap();
    models.iter().find(|entry| entry["id"] == model).unwrap().clone()
}

async fn complete(app: &Router, model: &str) -> Reply {
    post_json(app, COMPLETIONS, json!({"model": model, "prompt": "a", "max_tokens": 3})).await
}

/// Runs a request beside the test.
fn beside(app: &Router, path: &'static str, body: Value) -> tokio::task::JoinHandle<Reply> {
    let app = app.clone();
    tokio::spawn(async move { post_json(&app, path, body).await })
}

#[tokio::test]
async fn a_model_from_its_load_to_its_unload() {
    let backend = Gated::new("Hello.");
    let app = app(&backend, &["org/a", "b"]);
    assert_eq!(state(&app, "org/a").await, "unloaded");
    let refused = complete(&app, "org/a").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("model_unloaded"))
    );
    let loaded = order(&app, "load", "org/a-alias").await;
    assert_eq!(loaded.status, StatusCode::OK, "{}", loaded.text);
    let model = loaded.json();
    assert_eq!(
        (&model["id"], &model["state"], &model["active"]),
        (&json!("org/a"), &json!("ready"), &json!(true))
    );
    assert_eq!(model["memory"]["total_bytes"], 100);
    assert_eq!(model["info"]["architecture"], "scripted");
    for name in ["org/a", "org/a-alias"] {
        let answer = complete(&app, name).await;
        assert_eq!(
            (answer.status, answer.json()["choices"][0]["text"].as_str()),
            (StatusCode::OK, Some("Hel"))
        );
    }
    assert_eq!(get(&app, "/v1/models/active").await.json()["model"], "org/a");
    order(&app, "load", "b").await;
    assert_eq!(order(&app, "active", "b").await.json()["model"], "b");
    let unnamed = post_json(&app, COMPLETIONS, json!({"prompt": "a", "max_tokens": 3})).await.json();
    assert_eq!(unnamed["model"], "b");
    let ids = get(&app, "/v1/models").await.json();
    let ids: Vec<_> = ids["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["b", "org/a"], "the active model first");
    assert_eq!(order(&app, "unload", "org/a").await.json()["state"], "unloaded");
    assert_eq!(complete(&app, "org/a").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(complete(&app, "b").await.status, StatusCode::OK);
}

#[tokio::test]
async fn concurrent_loads_of_a_model_join() {
    let backend = Gated::new("x");
    let app = app(&backend, &["a"]);
    backend.gates.hold_loads.store(true, Ordering::SeqCst);
    let loads: Vec<_> = (0..8).map(|_| beside(&app, "/v1/models/load", json!({"model": "a"}))).collect();
    eventually("the load has progress", async || entry(&app, "a").await["progress"]["done_bytes"] == 50)
        .await;
    let loading = entry(&app, "a").await;
    assert_eq!((&loading["state"], &loading["progress"]["fraction"]), (&json!("loading"), &json!(0.5)));
    let refused = complete(&app, "a").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("model_loading"))
    );
    assert!(refused.headers.contains_key("retry-after"));
    backend.gates.hold_loads.store(false, Ordering::SeqCst);
    for load in loads {
        assert_eq!(load.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(backend.gates.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_load_can_be_cancelled_or_left_alone() {
    let backend = Gated::new("x");
    let app = app(&backend, &["a"]);
    backend.gates.hold_loads.store(true, Ordering::SeqCst);
    for path in ["cancel", "unload"] {
        let load = beside(&app, "/v1/models/load", json!({"model": "a"}));
        eventually("the load runs", async || state(&app, "a").await == "loading").await;
        let ended = order(&app, path, "a").await;
        assert_eq!(ended.status, StatusCode::OK, "{}", ended.text);
        let load = load.await.unwrap();
        assert_eq!(
            (load.status, &load.json()["error"]["code"]),
            (StatusCode::CONFLICT, &json!("load_cancelled"))
        );
        eventually("the load has ended", async || state(&app, "a").await == "unloaded").await;
    }
    assert_eq!(order(&app, "cancel", "a").await.json()["cancelled"], false);
    let begun = post_json(&app, "/v1/models/load", json!({"model": "a", "wait": false})).await;
    assert_eq!((begun.status, &begun.json()["state"]), (StatusCode::ACCEPTED, &json!("loading")));
    backend.gates.hold_loads.store(false, Ordering::SeqCst);
    eventually("the load goes on", async || state(&app, "a").await == "ready").await;
}

#[tokio::test]
async fn requests_in_flight_keep_their_model() {
    let backend = Gated::new("the quick brown fox");
    let app = app(&backend, &["a"]);
    order(&app, "load", "a").await;
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let body = json!({"model": "a", "prompt": "> ", "max_tokens": 9});
    let running: Vec<_> = (0..4).map(|_| beside(&app, COMPLETIONS, body.clone())).collect();
    eventually("all run", async || entry(&app, "a").await["requests"]["in_flight"] == 4).await;
    let unload = beside(&app, "/v1/models/unload", json!({"model": "a"}));
    eventually("it drains", async || state(&app, "a").await == "draining").await;
    let late = complete(&app, "a").await;
    assert_eq!(
        (late.status, &late.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("model_unloaded"))
    );
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    for request in running {
        let answer = request.await.unwrap();
        assert_eq!(
            (answer.status, answer.json()["choices"][0]["text"].as_str()),
            (StatusCode::OK, Some("the quick"))
        );
    }
    assert_eq!(unload.await.unwrap().json()["state"], "unloaded");
}

#[tokio::test]
async fn an_unload_without_grace_ends_requests() {
    let backend = Gated::new("the quick brown fox");
    let app = app(&backend, &["a"]);
    order(&app, "load", "a").await;
    // Slow enough that the answer is not complete when the unload ends it.
    backend.gates.slow_passes.store(true, Ordering::SeqCst);
    let long = json!({"model": "a", "prompt": "> ", "max_tokens": 1000, "ignore_eos": true});
    let running = beside(&app, COMPLETIONS, long);
    eventually("it runs", async || entry(&app, "a").await["requests"]["in_flight"] == 1).await;
    let unload = beside(&app, "/v1/models/unload", json!({"model": "a", "grace": 0}));
    let ended = running.await.unwrap();
    assert_eq!(
        (ended.status, &ended.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("cancelled"))
    );
    assert_eq!(unload.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_failed_reload_leaves_the_old_model_serving() {
    let backend = Gated::new("Hello.");
    let app = app(&backend, &["a"]);
    order(&app, "load", "a").await;
    backend.gates.fail_loads.store(true, Ordering::SeqCst);
    let failed = order(&app, "reload", "a").await;
    assert_eq!(
        (failed.status, &failed.json()["error"]["code"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("load_failed"))
    );
    assert!(failed.text.contains("the file is damaged"));
    assert_eq!(complete(&app, "a").await.status, StatusCode::OK);
    backend.gates.fail_loads.store(false, Ordering::SeqCst);
    let reloaded = order(&app, "reload", "a").await.json();
    assert_eq!(
        (&reloaded["reload_order"], &reloaded["counters"]["loads"]),
        (&json!("load_first"), &json!(2))
    );
    assert_eq!(reloaded["counters"]["loads_failed"], 1);
}

#[tokio::test]
async fn a_reload_within_a_tight_budget_tells_its_order() {
    let backend = Gated::new("Hello.");
    let app = app_with(&backend, &["a", "b"], RegistryOptions::new().memory_bytes(150));
    order(&app, "load", "a").await;
    assert_eq!(order(&app, "reload", "a").await.json()["reload_order"], "unload_first");
    let second = order(&app, "load", "b").await;
    assert_eq!(second.status, StatusCode::OK, "the idle model is evicted: {}", second.text);
    let list = get(&app, "/v1/models/list").await.json();
    assert_eq!(list["memory"], json!({"used_bytes": 100, "adapter_bytes": 0, "budget_bytes": 150}));
    assert_eq!(entry(&app, "a").await["counters"]["evictions"], 1);
    let pinned =
        post_json(&app, "/v1/models/reload", json!({"model": "b", "options": {"pinned": true}})).await;
    assert_eq!((pinned.status, &pinned.json()["pinned"]), (StatusCode::OK, &json!(true)));
    let refused = order(&app, "load", "a").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::INSUFFICIENT_STORAGE, &json!("insufficient_memory"))
    );
}

#[tokio::test]
async fn sleep_and_wake() {
    let backend = Gated::new("Hello.");
    let app = app(&backend, &["a"]);
    let unloaded = order(&app, "wake", "a").await;
    assert_eq!(
        (unloaded.status, &unloaded.json()["error"]["code"]),
        (StatusCode::CONFLICT, &json!("model_state"))
    );
    order(&app, "load", "a").await;
    assert_eq!(order(&app, "sleep", "a").await.json()["state"], "sleeping");
    assert_eq!(order(&app, "wake", "a").await.json()["state"], "ready");
}

#[tokio::test]
async fn mode_and_fairness_change_while_it_runs() {
    let backend = Gated::new("Hello.");
    let app = app(&backend, &["a"]);
    order(&app, "load", "a").await;
    let body = json!({"model": "a", "mode": "latency", "ageing": "2s"});
    let changed = post_json(&app, "/v1/models/mode", body).await.json();
    assert_eq!(
        (&changed["settings"]["mode"], &changed["settings"]["ageing_seconds"]),
        (&json!("latency"), &json!(2.0))
    );
    assert_eq!(complete(&app, "a").await.status, StatusCode::OK);
    for (body, words) in [
        (json!({"model": "a"}), "needed"),
        (json!({"model": "a", "mode": "fast"}), "mode"),
        (json!({"model": "a", "ageing": -1}), "ageing"),
        (json!({"model": "a", "mode": "latency", "sequences": 4}), "no such field"),
    ] {
        let refused = post_json(&app, "/v1/models/mode", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
}

#[tokio::test]
async fn bad_orders_are_refused_and_change_nothing() {
    let app = app(&Gated::new("x"), &["a"]);
    for (path, body, status, code) in [
        ("load", json!({}), 400, Value::Null),
        ("load", json!({"model": 5}), 400, Value::Null),
        ("load", json!({"model": "b"}), 404, json!("model_not_found")),
        ("load", json!({"model": "../a"}), 404, json!("model_not_found")),
        ("load", json!({"model": "a\u{0}"}), 404, json!("model_not_found")),
        ("load", json!({"model": "a", "path": "/etc/passwd"}), 400, Value::Null),
        ("load", json!({"model": "a", "options": {"path": "/etc/passwd"}}), 400, Value::Null),
        ("load", json!({"model": "a", "options": {"sequences": 0}}), 400, Value::Null),
        ("load", json!({"model": "a", "options": []}), 400, Value::Null),
        ("load", json!({"model": "a", "wait": "no"}), 400, Value::Null),
        ("unload", json!({"model": "a", "grace": -1}), 400, Value::Null),
        ("unload", json!({"model": "a", "grace": 1e300}), 400, Value::Null),
        ("reload", json!({"model": "a"}), 409, json!("model_state")),
        ("active", json!({"model": "a"}), 409, json!("model_state")),
        ("sleep", json!({"model": "a"}), 409, json!("model_state")),
        ("cancel", json!({"model": "b"}), 404, json!("model_not_found")),
    ] {
        let refused = post_json(&app, &format!("/v1/models/{path}"), body.clone()).await;
        assert_eq!(refused.status.as_u16(), status, "{path} {body}: {}", refused.text);
        assert_eq!(refused.json()["error"]["code"], code, "{path} {body}");
    }
    assert_eq!(state(&app, "a").await, "unloaded");
}

#[tokio::test]
async fn progress_is_streamed() {
    let backend = Gated::new("x");
    let app = app(&backend, &["a", "b"]);
    let streamed = post_json(&app, "/v1/models/load", json!({"model": "a", "stream": true})).await;
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    let events: Vec<Value> = streamed
        .text
        .split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(
        events.iter().any(|event| event["type"] == "progress" && event["progress"]["total_bytes"] == 100)
    );
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["state"]), (&json!("done"), &json!("ready")));
    backend.gates.fail_loads.store(true, Ordering::SeqCst);
    let failed = post_json(&app, "/v1/models/load", json!({"model": "b", "stream": true})).await;
    assert!(failed.text.contains("event: error") && failed.text.contains("load_failed"), "{}", failed.text);
}

#[tokio::test]
async fn a_server_without_registry_has_a_fixed_model() {
    let app = crate::harness::app("x");
    let list = get(&app, "/v1/models/list").await.json();
    assert_eq!((&list["active"], &list["data"][0]["state"]), (&json!("scripted"), &json!("ready")));
    assert_eq!(get(&app, "/v1/models/active").await.json()["model"], "scripted");
    assert_eq!(order(&app, "load", "scripted").await.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(get(&app, "/v1/models/events").await.status, StatusCode::NOT_IMPLEMENTED);
}
