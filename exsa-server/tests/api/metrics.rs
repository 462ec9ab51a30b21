//! `/metrics`, and the load header.

use crate::gated::{Gated, registry};
use crate::harness::{get, post_json, send};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_core::registry::RegistryOptions;
use exsa_server::models::Models;
use exsa_server::{MetricsAlias, MetricsConfig, Server};
use serde_json::json;

async fn app(config: MetricsConfig) -> Router {
    let registry = registry(&Gated::new("Hello."), &["a", "b"], RegistryOptions::new().memory_bytes(1000));
    registry.load("a").await.unwrap();
    Server::of_models(Models::new(registry)).metrics(config).router()
}

async fn complete(app: &Router) {
    let body = json!({"model": "a", "prompt": "a", "max_tokens": 3});
    assert_eq!(post_json(app, "/v1/completions", body).await.status, StatusCode::OK);
}

fn assert_lines(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(page.lines().any(|l| l == *line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn models_have_their_own_values() {
    let app = app(MetricsConfig::default()).await;
    complete(&app).await;
    let page = get(&app, "/metrics").await.text;
    assert_lines(
        &page,
        &[
            "exsa_requests_finished_total{model=\"a\"} 1",
            "exsa_tokens_generated_total{model=\"a\"} 3",
            "exsa_waiting{model=\"a\",class=\"normal\"} 0.0",
            "exsa_time_to_first_token_seconds_bucket{model=\"a\",le=\"+Inf\"} 1",
            "exsa_model_state{model=\"a\",state=\"ready\"} 1.0",
            "exsa_model_state{model=\"b\",state=\"unloaded\"} 1.0",
            "exsa_model_loads_total{model=\"a\"} 1",
            "exsa_model_evictions_total{model=\"b\"} 0",
            "exsa_model_memory_bytes{model=\"a\"} 100.0",
            "exsa_models_memory_used_bytes 100.0",
            "exsa_models_memory_budget_bytes 1000.0",
        ],
    );
    assert!(!page.contains("vllm:") && !page.contains("exsa_user_"), "only by option");
}

#[tokio::test]
async fn http_requests_are_counted_by_route() {
    let app = app(MetricsConfig::default()).await;
    complete(&app).await;
    for name in ["/v1/models/a", "/v1/models/b", "/v1/models/c", "/nowhere"] {
        get(&app, name).await;
    }
    let page = get(&app, "/metrics").await.text;
    assert_lines(
        &page,
        &[
            "exsa_http_requests_total{route=\"/v1/completions\",method=\"POST\",status=\"200\"} 1",
            "exsa_http_requests_total{route=\"/v1/models/{*id}\",method=\"GET\",status=\"200\"} 2",
            "exsa_http_requests_total{route=\"/v1/models/{*id}\",method=\"GET\",status=\"404\"} 1",
            "exsa_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
            "exsa_http_request_duration_seconds_count{route=\"/v1/completions\",method=\"POST\"} 1",
            "exsa_http_in_flight 1",
        ],
    );
    assert!(
        page.contains("exsa_http_received_bytes_total{route=\"/v1/completions\",method=\"POST\"} 4"),
        "{page}"
    );
}

#[tokio::test]
async fn aliases_have_both_generations_of_names() {
    let app = app(MetricsConfig::default().alias(MetricsAlias::Vllm).users_max(3)).await;
    complete(&app).await;
    let page = get(&app, "/metrics").await.text;
    assert_lines(
        &page,
        &[
            "vllm:num_requests_running{model_name=\"a\",engine=\"0\"} 0.0",
            "vllm:num_requests_waiting{model_name=\"a\",engine=\"0\"} 0.0",
            "vllm:generation_tokens_total{model_name=\"a\",engine=\"0\"} 3",
            "vllm:prefix_cache_queries_total{model_name=\"a\",engine=\"0\"} 1",
            "vllm:gpu_prefix_cache_queries_total{model_name=\"a\",engine=\"0\"} 1",
            "vllm:time_to_first_token_seconds_count{model_name=\"a\",engine=\"0\"} 1",
            "vllm:cache_config_info{model_name=\"a\",engine=\"0\",block_size=\"16\",num_gpu_blocks=\"4096\"} 1.0",
        ],
    );
    for name in ["vllm:kv_cache_usage_perc{", "vllm:gpu_cache_usage_perc{", "vllm:gpu_prefix_cache_hit_rate{"]
    {
        assert!(page.contains(name), "{name}");
    }
}

#[tokio::test]
async fn the_load_is_told_to_those_who_ask() {
    let request = || {
        Request::post("/v1/completions")
            .header(header::HOST, "localhost")
            .header("endpoint-load-metrics-format", "TEXT")
            .body(Body::from(json!({"model": "a", "prompt": "a", "max_tokens": 3}).to_string()))
            .unwrap()
    };
    let app = app(MetricsConfig::default().load_header(true)).await;
    let reply = send(&app, request()).await;
    let load = reply.headers["endpoint-load-metrics"].to_str().unwrap();
    assert!(load.starts_with("TEXT named_metrics.kv_cache_usage_perc=0"), "{load}");
    let silent = self::app(MetricsConfig::default()).await;
    assert!(!send(&silent, request()).await.headers.contains_key("endpoint-load-metrics"));
}
