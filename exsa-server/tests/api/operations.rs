//! Metrics of refusals, of the audit log and of reloads.

use crate::harness::{Reply, engine, send};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use exsa_server::Server;
use exsa_server::access::{Access, AccessConfig, Caller, KeyOptions, Keys, Scope, Store};
use exsa_server::audit::{AuditConfig, AuditLog};
use exsa_server::config::ConfigSource;
use exsa_server::quota::{QuotaConfig, Quotas};
use exsa_server::reload::Reloader;
use redb::backends::InMemoryBackend;
use serde_json::json;
use std::sync::Arc;

async fn ask(app: &Router, method: &str, path: &str, key: &str, body: Body) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if !key.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    send(app, request.body(body).unwrap()).await
}

/// The value of a series, which must be there.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

#[tokio::test]
async fn refusals_lines_and_reloads_are_counted_by_reason() {
    let folder = std::env::temp_dir().join(format!("exsa-operations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("exsa.toml");
    std::fs::write(&file, "").unwrap();
    let source = ConfigSource::new(Some(file.clone()));
    let config = source.load().unwrap();
    let reloader = Arc::new(Reloader::new(source, config));
    let log = AuditLog::open(&AuditConfig::default().folder(folder.join("audit"))).unwrap().unwrap();
    let keys = Arc::new(Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap());
    let access = Access::with_keys(keys.clone(), &AccessConfig::default().failures(3, 1)).unwrap();
    let app = Server::new(Arc::new(engine("hello")))
        .access(access)
        .quotas(Quotas::open(QuotaConfig::default(), None).unwrap())
        .audit(log.clone())
        .reloader(reloader)
        .router();
    let key = |options: KeyOptions| keys.create(&options, &Caller::operator()).unwrap();
    let (_, admin) = key(KeyOptions::new("admin").scopes([Scope::Metrics, Scope::Models]));
    let (_, user) =
        key(KeyOptions::new("user").quota(json!({"requests_per_day": 1, "output_tokens_per_day": 50})));
    let (revoked, gone) = key(KeyOptions::new("gone"));
    keys.revoke(&revoked.id, &Caller::operator()).unwrap();
    let complete = |max: u64| Body::from(json!({"prompt": "a", "max_tokens": max}).to_string());
    for (key, max) in
        [(user.expose(), 60), (user.expose(), 2), (user.expose(), 2), (gone.expose(), 2), ("", 2)]
    {
        ask(&app, "POST", "/v1/completions", key, complete(max)).await;
    }
    for _ in 0..3 {
        ask(&app, "GET", "/v1/models", "wrong", Body::empty()).await;
    }
    ask(&app, "GET", "/metrics", user.expose(), Body::empty()).await;
    // Routes for everyone are asked without a key.
    ask(&app, "GET", "/health", "", Body::empty()).await;
    ask(&app, "POST", "/v1/config/reload", admin.expose(), Body::empty()).await;
    std::fs::write(&file, "[limits]\nn_max = 0\n").unwrap();
    ask(&app, "POST", "/v1/config/reload", admin.expose(), Body::empty()).await;
    let page = ask(&app, "GET", "/metrics", admin.expose(), Body::empty()).await.text;
    for (series, expected) in [
        (r#"exsa_quota_refusals_total{limit="output_tokens_per_day",reason="request_exceeds_quota"}"#, 1),
        (r#"exsa_quota_refusals_total{limit="requests_per_day",reason="rate_limit_exceeded"}"#, 1),
        (r#"exsa_authentication_failures_total{reason="key_revoked"}"#, 1),
        (r#"exsa_authentication_failures_total{reason="missing_api_key"}"#, 1),
        (r#"exsa_authentication_failures_total{reason="invalid_api_key"}"#, 2),
        (r#"exsa_authentication_failures_total{reason="too_many_failures"}"#, 1),
        (r#"exsa_permission_refusals_total{reason="missing_scope"}"#, 1),
        (r#"exsa_config_reloads_total{outcome="ok"}"#, 1),
        (r#"exsa_config_reloads_total{outcome="refused"}"#, 1),
        ("exsa_audit_lines_dropped_total", 0),
        ("exsa_audit_write_failures_total", 0),
        ("exsa_audit_failed", 0),
    ] {
        assert_eq!(value(&page, series), f64::from(expected), "{series}");
    }
    assert!(value(&page, "exsa_audit_lines_total") >= 5.0, "{page}");
    log.close();
    std::fs::remove_dir_all(folder).unwrap();
}
