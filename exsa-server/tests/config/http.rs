//! Options of the routes: CORS, limits of requests, and their change while the server runs.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::{Live, Server, ServerOptions};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

fn app(options: &Live<ServerOptions>) -> Router {
    let engine = Engine::start(ScriptedModel::echo("x").shared(), EngineOptions::default()).unwrap();
    Server::new(Arc::new(engine)).options(options.clone()).router()
}

async fn send(app: &Router, method: Method, origin: &str, body: String) -> Response {
    let request = Request::builder()
        .method(method)
        .uri("/v1/completions")
        .header(header::HOST, "localhost")
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .body(Body::from(body))
        .unwrap();
    app.clone().oneshot(request).await.unwrap()
}

/// Status and code of the error of a completion.
async fn refusal(app: &Router, fields: Value) -> (u16, Value) {
    let response = send(app, Method::POST, "http://localhost", fields.to_string()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    (status, body["error"]["code"].clone())
}

#[tokio::test]
async fn cors_is_off_and_for_allowed_origins_alone() {
    let options = Live::new(ServerOptions::default().allowed_origin("https://app.example"));
    let app = app(&options);
    let allowed = |response: &Response| response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    let response = send(&app, Method::POST, "https://app.example", body.clone()).await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (200, None));
    assert_eq!(send(&app, Method::OPTIONS, "https://app.example", String::new()).await.status(), 405);
    options.set(ServerOptions::default().allowed_origin("https://app.example").cors(true));
    let response = send(&app, Method::POST, "https://app.example", body).await;
    assert_eq!(allowed(&response).unwrap(), "https://app.example");
    assert_eq!(response.headers()[header::VARY], "origin");
    let response = send(&app, Method::OPTIONS, "https://app.example", String::new()).await;
    assert_eq!(
        (response.status().as_u16(), allowed(&response).unwrap()),
        (204, "https://app.example".parse().unwrap())
    );
    let response = send(&app, Method::OPTIONS, "https://evil.example", String::new()).await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (403, None));
}

#[tokio::test]
async fn limits_of_requests_change_while_the_server_runs() {
    let options = Live::default();
    let app = app(&options);
    let schema = json!({"type": "json_schema", "json_schema": {"schema": {"enum": ["a".repeat(200)]}}});
    let cases = [
        (ServerOptions::default().n_max(2), json!({"n": 3}), "over_limit"),
        (ServerOptions::default().n_max(2), json!({"best_of": 3}), "over_limit"),
        (ServerOptions::default().schema_bytes_max(100), json!({"response_format": schema}), "over_limit"),
        (ServerOptions::default().prompt_tokens_max(4), json!({}), "context_length_exceeded"),
    ];
    for (limited, mut fields, code) in cases {
        fields["prompt"] = "six words of text for this".into();
        fields["max_tokens"] = 1.into();
        options.set(ServerOptions::default());
        let (status, before) = refusal(&app, fields.clone()).await;
        assert_ne!((status, &before), (400, &json!(code)), "{fields}");
        options.set(limited);
        assert_eq!(refusal(&app, fields.clone()).await, (400, json!(code)), "{fields}");
    }
    options.set(ServerOptions::default().body_bytes_max(1024));
    assert_eq!(refusal(&app, json!({"prompt": "a".repeat(2000)})).await.0, 413);
}
