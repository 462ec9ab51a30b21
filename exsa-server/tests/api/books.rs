//! Quotas and the audit log over the routes.

use crate::harness::{engine, get, post_json, send};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::Server;
use exsa_server::audit::{AuditConfig, AuditLog};
use exsa_server::quota::{Limits, QuotaConfig, Quotas};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn quotas(limits: Value) -> Quotas {
    let mut config = QuotaConfig::default();
    config.default = serde_json::from_value::<Limits>(limits).unwrap();
    Quotas::open(config, None).unwrap()
}

fn limited(limits: Value) -> Router {
    Server::new(Arc::new(engine("one two three"))).quotas(quotas(limits)).router()
}

/// A folder of its own for a log, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("exsa-books-{}-{number}", std::process::id())))
    }

    fn lines(&self) -> Vec<Value> {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let files = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        let text: String = files.map(|path| read(&path)).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Lines about requests.
    fn requests(&self) -> Vec<Value> {
        let about = |line: &Value| line["path"].is_string();
        self.lines().into_iter().filter(about).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn recorded(folder: &Folder, text: &str, config: AuditConfig) -> (Router, AuditLog) {
    let log = AuditLog::open(&config.folder(&folder.0)).unwrap().unwrap();
    let server = Server::new(Arc::new(engine(text))).audit(log.clone());
    (server.quotas(quotas(json!({"requests_per_minute": 2}))).router(), log)
}

#[tokio::test]
async fn a_used_up_limit_is_told_with_the_time_to_wait() {
    let app = limited(json!({"requests_per_minute": 2}));
    for remaining in ["1", "0"] {
        let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 2})).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        assert_eq!(reply.headers["x-ratelimit-limit-requests"], "2");
        assert_eq!(reply.headers["x-ratelimit-remaining-requests"], remaining);
    }
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = reply.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    let error = reply.json();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("key:anonymous is limited to 2 requests per minute: 0 remain"), "{message}");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    let reply = get(&app, "/v1/models").await;
    assert_eq!(reply.headers["x-ratelimit-remaining-requests"], "0");
    assert!(reply.headers["x-ratelimit-reset-requests"].to_str().unwrap().ends_with('s'));
    assert!(!reply.headers.contains_key("x-ratelimit-limit-tokens"));
}

#[tokio::test]
async fn real_use_is_settled() {
    let app = limited(json!({"output_tokens_per_day": 100, "prompt_tokens_per_day": 1000}));
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "abc", "max_tokens": 90})).await;
    let usage = &reply.json()["usage"];
    let (prompt, output) =
        (usage["prompt_tokens"].as_u64().unwrap(), usage["completion_tokens"].as_u64().unwrap());
    assert!(output < 90, "the model ends before");
    let reply = get(&app, "/v1/models").await;
    assert_eq!(reply.headers["x-ratelimit-limit-tokens"], "100");
    assert_eq!(reply.headers["x-ratelimit-remaining-tokens"], (100 - output).to_string().as_str());
    assert!(prompt > 0);
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_for_good() {
    let app = limited(json!({"prompt_tokens_per_minute": 5}));
    let body = json!({"prompt": "a long text that has more than five tokens in it"});
    let reply = post_json(&app, "/v1/completions", body).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", reply.text);
    assert_eq!(reply.json()["error"]["code"], "request_exceeds_quota");
    assert!(!reply.headers.contains_key(header::RETRY_AFTER));
    let app = limited(json!({"output_tokens_per_minute": 5}));
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 6})).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", reply.text);
    // Without a limit of its own it reserves what there is.
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a"})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
}

#[tokio::test]
async fn a_refused_request_costs_nothing() {
    let app = limited(json!({"requests_per_day": 5, "output_tokens_per_day": 50}));
    let body = json!({"prompt": ["a", "b", "c", "d"], "max_tokens": 15});
    let reply = post_json(&app, "/v1/completions", body).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "the fourth prompt is refused: {}", reply.text);
    let reply = get(&app, "/v1/models").await;
    assert_eq!(reply.headers["x-ratelimit-remaining-requests"], "5");
    assert_eq!(reply.headers["x-ratelimit-remaining-tokens"], "50");
}

#[tokio::test]
async fn each_request_has_one_line() {
    let folder = Folder::new();
    let (app, log) = recorded(&folder, "one two three", AuditConfig::default());
    let body = json!({"prompt": "secret", "max_tokens": 2, "stream": true});
    let request = Request::post("/v1/completions").header(header::HOST, "localhost");
    let request = request.header("x-request-id", "abc").body(Body::from(body.to_string())).unwrap();
    let reply = send(&app, request).await;
    assert_eq!(reply.status, StatusCode::OK);
    // The end of an answer comes after its line is stable.
    assert_eq!(folder.requests().len(), 1);
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let reply = post_json(&app, "/v1/completions", json!({"prompt": "secret", "max_tokens": 2})).await;
        assert_eq!(reply.status, status);
    }
    log.close();
    let lines = folder.requests();
    let acts: Vec<_> = lines.iter().map(|line| (&line["act"], &line["outcome"])).collect();
    let (request, refused) = (json!("request"), json!("quota_refused"));
    assert_eq!(
        acts,
        [
            (&request, &json!("length")),
            (&request, &json!("length")),
            (&refused, &json!("rate_limit_exceeded"))
        ]
    );
    let first = &lines[0];
    assert_eq!((&first["request"], &first["caller"]), (&json!("abc"), &json!("anonymous")));
    assert_eq!((&first["path"], &first["output_tokens"]), (&json!("POST /v1/completions"), &json!(2)));
    assert!(first["model"].is_string() && first["prompt_tokens"].as_u64() > Some(0), "{first}");
    assert!(
        !folder.lines().iter().any(|line| line.to_string().contains("secret")),
        "contents are not logged"
    );
    let acts: Vec<_> = folder.lines().iter().map(|line| line["act"].as_str().unwrap().to_owned()).collect();
    assert_eq!([&acts[0], &acts[4], &acts[5]], ["start", "stop", "checkpoint"]);
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_and_charged() {
    let folder = Folder::new();
    let log = AuditLog::open(&AuditConfig::default().folder(&folder.0)).unwrap().unwrap();
    let quotas = quotas(json!({"output_tokens_per_day": 1000, "streams": 1}));
    let text = "a ".repeat(900);
    let server = Server::new(Arc::new(engine(&text))).audit(log.clone()).quotas(quotas);
    let app = server.router();
    let body = json!({"prompt": "a", "max_tokens": 800, "stream": true}).to_string();
    let request =
        Request::post("/v1/completions").header(header::HOST, "localhost").body(Body::from(body)).unwrap();
    let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..3 {
        http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    }
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 1})).await;
    assert_eq!(reply.json()["error"]["code"], "too_many_streams");
    drop(body);
    let reply = get(&app, "/v1/models").await;
    let remaining: u64 = reply.headers["x-ratelimit-remaining-tokens"].to_str().unwrap().parse().unwrap();
    assert!((900..1000).contains(&remaining), "what was generated is charged: {remaining}");
    log.close();
    let lines = folder.requests();
    let gone: Vec<_> = lines.iter().filter(|line| line["outcome"] == "client_gone").collect();
    assert_eq!(gone.len(), 1, "{lines:?}");
    assert_eq!(gone[0]["output_tokens"], 1000 - remaining);
}

#[tokio::test]
async fn contents_are_recorded_on_request() {
    let folder = Folder::new();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let model = ScriptedModel::echo("one two three").chat_template(template);
    let engine = Engine::start(model.shared(), EngineOptions::default()).unwrap();
    let config = AuditConfig::default().folder(&folder.0).content(true);
    let log = AuditLog::open(&config).unwrap().unwrap();
    let app = Server::new(Arc::new(engine)).audit(log.clone()).router();
    let body = json!({"messages": [{"role": "user", "content": "what?"}]});
    let answer = post_json(&app, "/v1/chat/completions", body).await.json();
    log.close();
    let line = folder.requests().remove(0);
    assert_eq!(line["answer"], answer["choices"][0]["message"]["content"]);
    assert!(line["prompt"].as_str().unwrap().contains("what?"), "{line}");
}

#[tokio::test]
async fn without_a_place_in_the_log_no_work_is_done() {
    let folder = Folder::new();
    let mut config = AuditConfig::default().folder(&folder.0);
    config.queue = 1;
    let log = AuditLog::open(&config).unwrap().unwrap();
    let app = Server::new(Arc::new(engine("one two three"))).audit(log.clone()).router();
    let place = log.admit().unwrap();
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text);
    assert_eq!(reply.json()["error"]["code"], "audit_log");
    drop(place);
    let reply = post_json(&app, "/v1/completions", json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(reply.status, StatusCode::OK);
    log.close();
}
