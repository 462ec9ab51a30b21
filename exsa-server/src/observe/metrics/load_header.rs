//! Server load in a response header, as in ORCA (Open Request Cost Aggregation) and vLLM.
//!
//! A router that sends `endpoint-load-metrics-format: TEXT` or `JSON` gets `endpoint-load-metrics` with each
//! response.

use super::vllm::kv_use;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use exsa_core::stats::EngineStats;
use serde_json::json;
use std::sync::Arc;

const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
const LOAD: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Adds the header to a response if the request asks for it and the server enables it.
pub(crate) async fn add(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let format = request.headers().get(FORMAT).filter(|_| state.metrics.options.load_header).cloned();
    let mut response = next.run(request).await;
    if let Some(format) = format
        && let Some(value) = value(format.as_bytes(), &state.generator.stats())
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        response.headers_mut().insert(LOAD, value);
    }
    response
}

/// The header's value; `None` for an unknown format.
fn value(format: &[u8], stats: &EngineStats) -> Option<String> {
    let (kv, waiting) = (kv_use(stats), stats.scheduler.waiting);
    match format.to_ascii_uppercase().as_slice() {
        b"TEXT" => Some(format!(
            "TEXT named_metrics.kv_cache_usage_perc={kv}, named_metrics.num_requests_waiting={waiting}"
        )),
        b"JSON" => {
            let metrics = json!({"kv_cache_usage_perc": kv, "num_requests_waiting": waiting});
            Some(format!("JSON {}", json!({"named_metrics": metrics})))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_have_the_same_numbers() {
        let mut stats = EngineStats::default();
        stats.scheduler.waiting = 3;
        (stats.scheduler.kv_tokens_used, stats.scheduler.kv_tokens_max) = (32, 128);
        let text = "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=3";
        assert_eq!(value(b"text", &stats).as_deref(), Some(text));
        let json = r#"JSON {"named_metrics":{"kv_cache_usage_perc":0.25,"num_requests_waiting":3}}"#;
        assert_eq!(value(b"JSON", &stats).as_deref(), Some(json));
        assert_eq!(value(b"XML", &stats), None);
    }
}
