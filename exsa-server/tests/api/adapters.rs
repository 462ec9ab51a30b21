//! Adapters: loaded from folders and tables, named as models, listed, unloaded.

use crate::harness::{Reply, get, post_json};
use axum::Router;
use axum::http::StatusCode;
use exsa_core::EngineOptions;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_server::Server;
use exsa_server::models::{Models, ModelsConfig};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// A folder with files of adapters, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exsa-server-adapters-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("in/sub")).unwrap();
        for file in ["in/chat.gguf", "in/alice.gguf", "in/sub/bob.gguf", "secret.gguf"] {
            fs::write(path.join(file), file).unwrap();
        }
        fs::write(path.join("in/empty.gguf"), "").unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(value: Value) -> Result<Arc<Models>, String> {
    let config: ModelsConfig = serde_json::from_value(value).unwrap();
    let backend = ScriptedBackend::new(ScriptedModel::ngram(3).adapters(2, 16));
    let models = Models::open(&config, Arc::new(backend), EngineOptions::default());
    models.map(Arc::new).map_err(|error| error.to_string())
}

/// A server of the model `chat`, with one adapter in its table.
fn server(folder: &Folder) -> Router {
    let models = open(json!({
        "folders": [folder.0.join("in")],
        "chat": {"load": true, "adapters": {"carol": "alice.gguf"}},
    }));
    let models = models.unwrap();
    models.wait_for_start().unwrap();
    Server::of_models(models).router()
}

async fn text(app: &Router, body: Value) -> Reply {
    let mut request = json!({"prompt": "Hello", "max_tokens": 12, "temperature": 0, "ignore_eos": true});
    request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    post_json(app, "/v1/completions", request).await
}

async fn answer(app: &Router, body: Value) -> String {
    let reply = text(app, body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    reply.json()["choices"][0]["text"].as_str().unwrap().to_owned()
}

async fn load(app: &Router, name: &str, path: &str) -> Reply {
    post_json(app, "/v1/load_lora_adapter", json!({"lora_name": name, "lora_path": path})).await
}

#[tokio::test]
async fn loaded_used_and_unloaded() {
    let folder = Folder::new("use");
    let app = server(&folder);
    let plain = answer(&app, json!({})).await;
    let carol = answer(&app, json!({"model": "carol"})).await;
    assert_ne!(plain, carol);
    assert_eq!(
        load(&app, "alice", "alice.gguf").await.text,
        "Success: LoRA adapter 'alice' added successfully."
    );
    assert_eq!(load(&app, "bob", "sub/bob.gguf").await.status, StatusCode::OK);
    // The same file, by the name of a model, by the field of a request, and by llama-server's number.
    assert_eq!(answer(&app, json!({"model": "alice"})).await, carol);
    assert_eq!(answer(&app, json!({"lora": [{"name": "alice"}]})).await, carol);
    let bob = answer(&app, json!({"model": "bob"})).await;
    assert!(bob != plain && bob != carol);
    let both = answer(&app, json!({"model": "bob", "lora": [{"name": "alice", "scale": 0.5}]})).await;
    assert!(both != bob && both != carol);
    let list = get(&app, "/lora-adapters").await.json();
    let id =
        list.as_array().unwrap().iter().find(|adapter| adapter["path"] == "alice").unwrap()["id"].clone();
    let body = json!({"prompt": "Hello", "n_predict": 12, "temperature": 0, "ignore_eos": true, "lora": [{"id": id, "scale": 1.0}]});
    assert_eq!(post_json(&app, "/completion", body).await.json()["content"], carol);
    let body = json!({"prompt": "Hello", "lora": [{"id": 77}]});
    let reply = post_json(&app, "/completion", body).await;
    assert_eq!(
        (reply.status, reply.json()["error"]["param"].clone()),
        (StatusCode::BAD_REQUEST, json!("lora"))
    );

    let models = get(&app, "/v1/models").await.json();
    let listed: Vec<(&str, Option<&str>)> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].as_str().unwrap(), model["parent"].as_str()))
        .collect();
    let expected = [("chat", None), ("alice", Some("chat")), ("bob", Some("chat")), ("carol", Some("chat"))];
    assert_eq!(listed, expected);
    let adapters = get(&app, "/v1/models/adapters").await.json();
    let alice = &adapters["data"][0];
    assert_eq!(
        (alice["id"].as_str(), alice["parent"].as_str(), alice["requests"].as_u64()),
        (Some("alice"), Some("chat"), Some(0))
    );

    let list = get(&app, "/v1/models/list").await.json();
    let bytes = 2 * "in/alice.gguf".len() + "in/sub/bob.gguf".len();
    assert_eq!(list["data"][0]["adapters"], json!({"loaded": ["alice", "bob", "carol"], "bytes": bytes}));
    assert_eq!(list["memory"]["adapter_bytes"], json!(bytes));
    let metrics = get(&app, "/metrics").await.text;
    let line = format!("exsa_model_adapter_bytes{{model=\"chat\"}} {bytes}.0");
    assert!(
        metrics.contains(&line) && metrics.contains("exsa_model_adapters{model=\"chat\"} 3.0"),
        "{metrics}"
    );

    let unload = |name: &str| post_json(&app, "/v1/unload_lora_adapter", json!({"lora_name": name}));
    assert_eq!(unload("alice").await.text, "Success: LoRA adapter 'alice' removed successfully.");
    assert_eq!(unload("alice").await.status, StatusCode::NOT_FOUND);
    assert_eq!(text(&app, json!({"model": "alice"})).await.status, StatusCode::NOT_FOUND);
    let reply = text(&app, json!({"lora": [{"name": "alice"}]})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "there is no adapter 'alice'; loaded: bob, carol");
    let reply = post_json(&app, "/lora-adapters", json!({})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn refusals() {
    let folder = Folder::new("refusals");
    let app = server(&folder);
    let outside = folder.0.join("secret.gguf").display().to_string();
    for (name, path, status, words) in [
        ("chat", "alice.gguf", StatusCode::CONFLICT, "'chat' is the name of a model"),
        ("carol", "alice.gguf", StatusCode::CONFLICT, "'carol' is already loaded"),
        ("a@b", "alice.gguf", StatusCode::BAD_REQUEST, "is not a valid adapter name"),
        ("x", "missing.gguf", StatusCode::BAD_REQUEST, "missing.gguf"),
        ("x", "../secret.gguf", StatusCode::BAD_REQUEST, "cannot read"),
        ("x", &outside, StatusCode::BAD_REQUEST, "lies outside the folders of models"),
        ("x", "empty.gguf", StatusCode::BAD_REQUEST, "adapter empty.gguf: it is empty"),
        ("", "alice.gguf", StatusCode::BAD_REQUEST, "lora_name: a text is needed"),
    ] {
        let reply = load(&app, name, path).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        assert!(reply.text.contains(words), "{}", reply.text);
        assert!(!reply.text.contains("/in/"), "clients are not told where the folders are: {}", reply.text);
    }
    let misspelt = json!({"lora_name": "x", "lora_path": "alice.gguf", "modle": "chat"});
    assert_eq!(post_json(&app, "/v1/load_lora_adapter", misspelt).await.status, StatusCode::BAD_REQUEST);
    let folder = json!([folder.0.join("in")]);
    for (models, words) in [
        (json!({"folders": folder, "chat": {"adapters": {"x": "missing.gguf"}}}), "models.chat.adapters.x"),
        (
            json!({"folders": folder, "chat": {"workers": 1, "adapters": {"x": "alice.gguf"}}}),
            "models.chat.adapters",
        ),
    ] {
        let problem = open(models).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}
