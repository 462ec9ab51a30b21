//! A router over a scripted engine.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::{ServerOptions, router};
use http_body_util::BodyExt;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// An answer of the server.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The data of server-sent events, the closing `[DONE]` checked and left out.
    pub fn events(&self) -> Vec<Value> {
        let mut data: Vec<_> =
            self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.text);
        data.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

/// An engine whose model says `text`, whatever the prompt.
pub fn engine(text: &str) -> Engine {
    Engine::start(ScriptedModel::echo(text).shared(), EngineOptions::default()).unwrap()
}

/// The routes over an engine whose model says `text`.
pub fn app(text: &str) -> Router {
    router(Arc::new(engine(text)), ServerOptions::default())
}

/// The routes over an engine whose model says `text` and has a chat template.
pub fn chat_app(text: &str) -> Router {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let model = ScriptedModel::echo(text).chat_template(template);
    router(
        Arc::new(Engine::start(model.shared(), EngineOptions::default()).unwrap()),
        ServerOptions::default(),
    )
}

/// Sends a request with a body.
pub async fn post(app: &Router, path: &str, body: impl Into<Body>) -> Reply {
    let request = Request::post(path).header(header::HOST, "localhost").body(body.into()).unwrap();
    send(app, request).await
}

pub async fn post_json(app: &Router, path: &str, body: Value) -> Reply {
    post(app, path, body.to_string()).await
}

pub async fn get(app: &Router, path: &str) -> Reply {
    send(app, Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap()).await
}

pub async fn send(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Reply { status: parts.status, headers: parts.headers, text }
}
