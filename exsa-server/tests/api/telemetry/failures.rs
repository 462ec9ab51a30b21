//! Collectors that are gone, slow or picky: requests do not notice, and losses are counted.

use super::{Collector, Traced, config, exporting};
use crate::gated::eventually;
use crate::harness::{get, post_json};
use axum::Router;
use axum::http::StatusCode;
use serde_json::json;
use std::net::TcpListener;
use std::time::{Duration, Instant};

async fn complete(app: &Router) {
    let reply = post_json(app, "/v1/completions", json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
}

/// A counter of spans: `exported_spans_total`, or `dropped_spans_total` with its reason.
async fn count(app: &Router, name: &str) -> u64 {
    let page = get(app, "/metrics").await.text;
    let name = format!("exsa_telemetry_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse().unwrap()
}

const FAILED: &str = "dropped_spans_total{reason=\"export_failed\"}";
const FULL: &str = "dropped_spans_total{reason=\"queue_full\"}";
const REJECTED: &str = "dropped_spans_total{reason=\"rejected\"}";

#[tokio::test]
async fn a_dead_collector_harms_nothing() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = config(&format!("http://127.0.0.1:{port}")).timeout(Duration::from_millis(100));
    let (app, telemetry) = exporting(settings);
    for _ in 0..5 {
        complete(&app).await;
    }
    eventually("the spans are lost", async || count(&app, FAILED).await >= 10).await;
    let begun = Instant::now();
    complete(&app).await;
    telemetry.close();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    complete(&app).await;
    assert_eq!(count(&app, "exported_spans_total").await, 0);
}

#[tokio::test]
async fn a_silent_collector_fills_the_queue_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = config(&url).queue(4, 2).flush_timeout(Duration::from_millis(300));
    let (app, telemetry) = exporting(settings);
    for _ in 0..10 {
        complete(&app).await;
    }
    assert_eq!(count(&app, FULL).await, 16, "of 20 spans 4 wait");
    let begun = Instant::now();
    telemetry.close();
    let elapsed = begun.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn failures_that_pass_lose_nothing() {
    let traced = Traced::with("ab", |config| config.queue(64, 64));
    let busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    traced.collector.answer(busy.map(|status| (status, 0)));
    complete(&traced.app).await;
    eventually("the spans are exported", async || count(&traced.app, "exported_spans_total").await == 2)
        .await;
    assert!(traced.collector.exports().len() >= 3);
    assert_eq!(traced.spans().len(), 2, "each once");
    assert_eq!(count(&traced.app, FAILED).await, 0);
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let traced = Traced::with("ab", |config| config.interval(Duration::from_secs(60)));
    traced.collector.answer([(StatusCode::UNAUTHORIZED, 0)]);
    complete(&traced.app).await;
    assert!(traced.spans().is_empty());
    assert_eq!(traced.collector.exports().len(), 1);
    assert_eq!(count(&traced.app, FAILED).await, 2);
}

#[tokio::test]
async fn rejected_spans_are_counted() {
    let traced = Traced::with("ab", |config| config.interval(Duration::from_secs(60)));
    traced.collector.answer([(StatusCode::OK, 1)]);
    complete(&traced.app).await;
    traced.spans();
    assert_eq!(count(&traced.app, REJECTED).await, 1);
    assert_eq!(count(&traced.app, "exported_spans_total").await, 1);
}

#[tokio::test]
async fn headers_are_sent_and_not_shown() {
    let file = std::env::temp_dir().join(format!("exsa-headers-{}", std::process::id()));
    std::fs::write(&file, "# of the collector\nauthorization: Bearer secret-token\n\nx-tenant: a:b\n")
        .unwrap();
    let collector = Collector::start();
    let (app, telemetry) = exporting(config(&collector.url).headers_file(&file));
    std::fs::remove_file(&file).unwrap();
    complete(&app).await;
    telemetry.close();
    let exports = collector.exports();
    let headers = &exports[0].0;
    assert_eq!(headers["authorization"], "Bearer secret-token");
    assert_eq!(headers["x-tenant"], "a:b");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert!(!format!("{telemetry:?}").contains("secret-token"));
}
