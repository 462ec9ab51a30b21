//! `/openapi.json`.

use crate::harness::{app, chat_app, get, send};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use std::collections::BTreeSet;

/// The routes that the sources name, as `METHOD /path`: axum's router does not list its own.
fn routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let source = std::fs::read_to_string(format!("{sources}/server.rs")).unwrap();
    for part in source.split(".route(").skip(1) {
        let (path, rest) = part.trim_start().strip_prefix('"').unwrap().split_once('"').unwrap();
        let handlers = rest.split_once(".route(").map_or(rest, |(handlers, _)| handlers);
        let handlers = handlers.split("\n}").next().unwrap();
        for (call, method) in [("get(", "GET"), ("post(", "POST"), ("delete(", "DELETE"), ("put(", "PUT")] {
            if handlers.contains(&format!(" {call}")) || handlers.contains(&format!(".{call}")) {
                routes.insert(format!("{method} {}", path.replace("{*", "{")));
            }
        }
    }
    routes
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let reply = get(&app("x"), "/openapi.json").await;
    assert_eq!(reply.status, StatusCode::OK);
    let document = reply.json();
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let routes = routes();
    assert!(routes.len() > 30, "{routes:?}");
    let missing: Vec<_> = routes.difference(&documented).collect();
    let surplus: Vec<_> = documented.difference(&routes).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "not documented: {missing:?}; no routes: {surplus:?}");
}

#[tokio::test]
async fn every_documented_route_is_served() {
    let app = chat_app("x");
    let document = get(&app, "/openapi.json").await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let request = Request::builder().method(method.to_ascii_uppercase().as_str());
            let request = request.uri(path.replace("{id}", "x")).header(header::HOST, "localhost");
            let reply = send(&app, request.body(Body::from("{}")).unwrap()).await;
            assert!(!reply.text.contains("unknown_url"), "{method} {path}: {}", reply.text);
            assert_ne!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}
