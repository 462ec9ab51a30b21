//! `/api/...`, Ollama's API.

use crate::harness::{app, chat_app, get, post_json};
use axum::http::{StatusCode, header};
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn model(app: &axum::Router) -> String {
    get(app, "/api/tags").await.json()["models"][0]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn chat_streams_lines_unless_told_otherwise() {
    let app = chat_app("Hello.");
    let mut body = json!({"model": model(&app).await, "messages": [{"role": "user", "content": "Hi"}]});
    let reply = post_json(&app, "/api/chat", body.clone()).await;
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let parts = lines(&reply.text);
    let text: String = parts.iter().map(|part| part["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(text, "Hello.");
    let (last, rest) = parts.split_last().unwrap();
    assert!(rest.iter().all(|part| part["done"] == false));
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["eval_count"]),
        (&json!(true), &json!("stop"), &json!(7))
    );
    body["stream"] = json!(false);
    let whole = post_json(&app, "/api/chat", body).await.json();
    assert_eq!(whole["message"], json!({"role": "assistant", "content": "Hello."}));
    assert_eq!(whole["done"], true);
}

#[tokio::test]
async fn options_reach_the_engine() {
    let app = app("the quick brown fox");
    let body = json!({
        "model": model(&app).await, "prompt": "say: ", "raw": true, "stream": false,
        "options": {"num_predict": 9, "temperature": 0.5, "num_ctx": 4096, "seed": -1, "num_gpu": 1},
    });
    let reply = post_json(&app, "/api/generate", body.clone()).await.json();
    assert_eq!(
        (&reply["response"], &reply["done_reason"]),
        (&json!("the quick"), &json!("length")),
        "{reply}"
    );
    let mut unlimited = body.clone();
    unlimited["options"] = json!({"num_predict": -1, "stop": [" brown"]});
    assert_eq!(post_json(&app, "/api/generate", unlimited).await.json()["response"], "the quick");
    let mut bad = body;
    bad["options"] = json!({"temperature": -3});
    let reply = post_json(&app, "/api/generate", bad).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.json()["error"].as_str().unwrap().contains("temperature"), "{}", reply.text);
}

#[tokio::test]
async fn models_are_described() {
    let app = chat_app("x");
    let name = model(&app).await;
    assert!(name.ends_with(":latest"));
    let shown = post_json(&app, "/api/show", json!({"model": name})).await.json();
    assert_eq!(shown["details"]["format"], "gguf");
    assert_eq!(shown["capabilities"], json!(["completion"]));
    assert_eq!(get(&app, "/api/ps").await.json()["models"][0]["name"], name.as_str());
    assert!(get(&app, "/api/version").await.json()["version"].is_string());
    let reply = post_json(&app, "/api/show", json!({"model": "none"})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(reply.json()["error"].is_string());
}
