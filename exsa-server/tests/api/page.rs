//! The page's files and its figures.

use crate::harness::{Reply, app, get, post_json, send};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

async fn get_if_none_match(app: &Router, path: &str, tags: &str) -> Reply {
    let request = Request::get(path).header(header::HOST, "localhost").header(header::IF_NONE_MATCH, tags);
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_page_is_sent_with_a_policy_that_allows_its_own_files_alone() {
    let app = app("x");
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/index.html", "text/html; charset=utf-8"),
        ("/assets/app.js", "text/javascript; charset=utf-8"),
        ("/assets/chat/view.js", "text/javascript; charset=utf-8"),
        ("/assets/style/base.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let reply = get(&app, path).await;
        assert_eq!((reply.status, text(&reply.headers, "content-type")), (StatusCode::OK, content_type));
        let policy = text(&reply.headers, "content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(text(&reply.headers, "x-content-type-options"), "nosniff");
        assert_eq!(text(&reply.headers, "referrer-policy"), "no-referrer");
        assert_eq!(text(&reply.headers, "cache-control"), "no-cache");
    }
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let app = app("x");
    let first = get(&app, "/").await;
    let tag = text(&first.headers, "etag").to_owned();
    assert!(first.text.len() > 1000);
    for known in [&tag, &format!("\"other\", W/{tag}"), "*"] {
        let reply = get_if_none_match(&app, "/", known).await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{known}");
        assert_eq!(text(&reply.headers, "etag"), tag);
    }
    assert_eq!(get_if_none_match(&app, "/", "\"other\"").await.status, StatusCode::OK);
    assert_ne!(text(&get(&app, "/assets/app.js").await.headers, "etag"), tag);
}

#[tokio::test]
async fn paths_outside_the_page_have_no_file() {
    let app = app("x");
    for path in
        ["/assets/", "/assets/none.js", "/assets/../Cargo.toml", "/assets/%2e%2e/Cargo.toml", "/assets/chat"]
    {
        let reply = get(&app, path).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(reply.json()["error"]["code"], "unknown_url", "{path}");
    }
    let request = Request::builder().method(Method::POST).uri("/").header(header::HOST, "localhost");
    let reply = send(&app, request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn figures_count_the_work() {
    let app = app("abcdef");
    let before = get(&app, "/v1/stats").await.json();
    assert_eq!(before["totals"]["tokens_generated"], 0);
    assert_eq!(before["latency"]["time_to_first_token"]["p50"], Value::Null);
    let classes: Vec<_> =
        before["waiting_by_class"].as_array().unwrap().iter().map(|queue| queue["class"].clone()).collect();
    assert_eq!(classes, ["interactive", "normal", "batch"]);
    let answer = post_json(&app, "/v1/completions", json!({"prompt": "x", "max_tokens": 4})).await;
    assert_eq!(answer.status, StatusCode::OK);
    let after = get(&app, "/v1/stats").await.json();
    assert_eq!(after["totals"]["tokens_generated"], 4);
    assert_eq!((&after["totals"]["requests"], &after["totals"]["requests_finished"]), (&json!(1), &json!(1)));
    let first = &after["latency"]["time_to_first_token"];
    assert_eq!(first["count"], 1);
    assert!(first["p99"].as_f64().unwrap() > 0.0);
    let buckets = first["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!(buckets.last().unwrap()[0], Value::Null);
    assert!(after["uptime_seconds"].as_f64() > before["uptime_seconds"].as_f64());
    assert!(after["kv_tokens"]["max"].as_u64() > Some(0));
}

#[tokio::test]
async fn unknown_parameters_of_figures_are_refused() {
    let app = app("x");
    assert_eq!(get(&app, "/v1/stats?users=true").await.status, StatusCode::OK);
    for query in ["users=yes", "user=true"] {
        let reply = get(&app, &format!("/v1/stats?{query}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(reply.text.contains("users=true"), "{}", reply.text);
    }
}
