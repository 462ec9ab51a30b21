//! Models of a configuration, from folders.

use crate::gated::{Gated, eventually};
use crate::harness::{get, post_json};
use axum::Router;
use axum::http::StatusCode;
use exsa_core::EngineOptions;
use exsa_server::Server;
use exsa_server::models::{Models, ModelsConfig};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// A folder of a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str, files: &[&str]) -> Self {
        let path = std::env::temp_dir().join(format!("exsa-server-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for file in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "GGUF").unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(value: Value) -> ModelsConfig {
    serde_json::from_value(value).unwrap()
}

fn open(value: Value) -> Result<Arc<Models>, String> {
    let models = Models::open(&config(value), Gated::new("Hello."), EngineOptions::default());
    models.map(Arc::new).map_err(|error| error.to_string())
}

async fn ids(app: &Router) -> Vec<String> {
    let list = get(app, "/v1/models/list").await.json();
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

async fn load(app: &Router, model: &str) -> (StatusCode, Value) {
    let reply = post_json(app, "/v1/models/load", json!({"model": model})).await;
    (reply.status, reply.json()["error"]["message"].clone())
}

#[tokio::test]
async fn files_in_folders_are_models() {
    let folder = Folder::new("discover", &["in/a.gguf", "in/org/b.gguf", "in/notes.txt", "out.gguf"]);
    let models = open(json!({
        "folders": [folder.0.join("in")], "discover": true,
        "chat": {"path": "a.gguf", "load": true, "aliases": ["default"], "sequences": 3},
    }));
    let models = models.unwrap();
    let app = Server::of_models(models.clone()).router();
    eventually("the table's model is loaded", async || get(&app, "/health").await.status == StatusCode::OK)
        .await;
    assert_eq!(ids(&app).await, ["a", "chat", "org/b"]);
    assert_eq!(get(&app, "/v1/models/active").await.json()["model"], "chat");
    assert_eq!(load(&app, "org/b").await.0, StatusCode::OK);
    assert_eq!(load(&app, "late").await.0, StatusCode::NOT_FOUND);
    fs::write(folder.0.join("in/late.gguf"), "GGUF").unwrap();
    assert_eq!(load(&app, "late").await.0, StatusCode::OK);
    for name in ["../out", "in/../../out", "/etc/passwd", "late.gguf", "notes"] {
        assert_eq!(load(&app, name).await.0, StatusCode::NOT_FOUND, "{name}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_became_a_link_out_is_not_loaded() {
    let folder = Folder::new("swap", &["in/a.gguf", "out.gguf"]);
    let models = open(json!({"folders": [folder.0.join("in")], "a": {"load": false}})).unwrap();
    let app = Server::of_models(models).router();
    let file = folder.0.join("in/a.gguf");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(folder.0.join("out.gguf"), &file).unwrap();
    let (status, message) = load(&app, "a").await;
    let message = message.as_str().unwrap();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(message.contains("cannot read a.gguf") && message.contains("outside the folders"), "{message}");
    assert!(!message.contains(folder.0.to_str().unwrap()), "the folder is not told: {message}");
}

#[test]
fn errors_name_the_setting() {
    let folder = Folder::new("errors", &["in/a.gguf", "out.gguf"]);
    let folders = [folder.0.join("in")];
    for (value, words) in [
        (json!({"folders": [folder.0.join("none")]}), "models.folders: "),
        (json!({"folders": [folder.0.join("out.gguf")]}), "models.folders: "),
        (json!({"folders": folders, "b": {}}), "models.b.path: no folder of models has the file b.gguf"),
        (json!({"folders": folders, "b": {"path": "../out.gguf"}}), "models.b.path: no folder"),
        (
            json!({"folders": folders, "b": {"path": folder.0.join("out.gguf")}}),
            "outside the folders of models",
        ),
        (json!({"a": {}}), "models.a.path: a path is needed"),
        (json!({"a": {"builtin": true, "path": "a.gguf"}}), "one of both"),
        (json!({"a": {"builtin": true, "aliases": ["b", "a b"]}}), "models.a.aliases: 'a b'"),
        (json!({"a": {"builtin": true, "aliases": ["b"]}, "b": {"builtin": true}}), "alias of another model"),
        (
            json!({"a": {"builtin": true, "chat_template": "none.jinja"}}),
            "models.a.chat_template: none.jinja",
        ),
        (json!({"active": "b", "a": {"builtin": true}}), "models.active: there is no model 'b'"),
        (json!({"keep_streams": 1.5}), "models.keep_streams: 1.5 is not between 0 and 0.99"),
        (json!({"discover": true}), "models.discover: folders are needed"),
    ] {
        let error = open(value).err().unwrap_or_default();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn tables_are_applied_again() {
    let folder = Folder::new("apply", &["a.gguf", "b.gguf", "c.gguf"]);
    let models = open(json!({"folders": [folder.0], "a": {"load": true}, "b": {"load": false}})).unwrap();
    let app = Server::of_models(models.clone()).router();
    eventually("the model is loaded", async || get(&app, "/health").await.status == StatusCode::OK).await;
    let applied = config(json!({"a": {"pinned": true, "aliases": ["x"]}, "c": {"sequences": 2}}));
    models.apply(&applied, EngineOptions::default()).unwrap();
    assert_eq!(ids(&app).await, ["a", "c"]);
    let list = get(&app, "/v1/models/list").await.json();
    assert_eq!(
        (&list["data"][0]["pinned"], &list["data"][1]["settings"]["sequences"]),
        (&json!(true), &json!(2))
    );
    let wrong = config(json!({"a": {}, "d": {}}));
    assert!(
        models.apply(&wrong, EngineOptions::default()).unwrap_err().to_string().contains("models.d.path")
    );
    assert_eq!(ids(&app).await, ["a", "c"], "nothing has changed");
    models.apply(&config(json!({"c": {}})), EngineOptions::default()).unwrap();
    assert_eq!(ids(&app).await, ["a", "c"], "a model in memory stays");
}

#[tokio::test]
async fn a_request_waits_for_its_model_if_the_configuration_says_so() {
    let folder = Folder::new("wait", &["a.gguf"]);
    let models = open(json!({
        "folders": [folder.0], "load_on_request": true, "load_wait": "30s", "a": {"idle_timeout": "1h"},
    }));
    let app = Server::of_models(models.unwrap()).router();
    assert_eq!(get(&app, "/health/ready").await.status, StatusCode::OK, "a request loads the model");
    let listed = get(&app, "/v1/models").await.json();
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["status"]["value"]),
        (&json!("a"), &json!("unloaded"))
    );
    let requests = (0..4).map(|_| {
        let app = app.clone();
        let body = json!({"model": "a", "prompt": "x", "max_tokens": 3});
        tokio::spawn(async move { post_json(&app, "/v1/completions", body).await })
    });
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap();
        assert_eq!(
            (answer.status, answer.json()["choices"][0]["text"].as_str()),
            (StatusCode::OK, Some("Hel"))
        );
    }
}
