//! Bad input: each a 4xx with a clear body, and nothing else is harmed.

use crate::harness::{app, post, post_json, send};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use proptest::prelude::*;
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let app = app("x");
    let bad: [&[u8]; 9] =
        [b"", b"{", b"[]", b"null", b"\"text\"", b"{\"prompt\": \xff}", b"{\"a\":1}{", b"\0", b"NaN"];
    for body in bad {
        let reply = post(&app, COMPLETIONS, body.to_vec()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(body));
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let body = format!("{{\"prompt\": {}", "[".repeat(100_000));
    assert_eq!(post(&app("x"), COMPLETIONS, body).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let body = format!("{{\"prompt\": \"{}\"}}", "a".repeat(17 << 20));
    let reply = post(&app("x"), COMPLETIONS, body).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("limit"));
}

#[tokio::test]
async fn values_out_of_range_name_their_field() {
    let app = app("x");
    for (field, value) in [
        ("temperature", json!("hot")),
        ("temperature", json!(-1)),
        ("temperature", json!(1e300)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-5)),
        ("max_tokens", json!(1.5)),
        ("seed", json!(-1)),
        ("seed", json!("x")),
        ("stop", json!({"a": 1})),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"999999": 1})),
        ("top_logprobs", json!(1_000_000)),
        ("model", json!(5)),
        ("model", json!("no such model")),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("timeout", json!(-1)),
    ] {
        let mut body = json!({"prompt": "a"});
        body[field] = value.clone();
        let reply = post_json(&app, COMPLETIONS, body).await;
        assert!(reply.status.is_client_error(), "{field} {value}: {} {}", reply.status, reply.text);
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains(field) || message.contains("'no such model'") || message.contains("token"),
            "{field} {value}: {message}"
        );
    }
    assert_eq!(post_json(&app, COMPLETIONS, json!({"prompt": "a"})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused() {
    let reply = post_json(&app("x"), COMPLETIONS, json!({"prompt": "a".repeat(1_000_000)})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn only_the_host_sets_what_it_alone_may() {
    // Accepted, but without effect.
    let body = json!({"prompt": "a", "priority": "interactive", "weight": 1e9, "parse_special": true});
    let reply = post_json(&app("x"), COMPLETIONS, body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    for value in [json!("<|im_start|>"), json!("a".repeat(65)), json!(["x"]), json!({"a": "b"})] {
        let body = json!({"prompt": "a", "chat_template_kwargs": {"v": value}});
        let reply = post_json(&app("x"), COMPLETIONS, body).await;
        assert_eq!(reply.json()["error"]["param"], "chat_template_kwargs.v", "{}", reply.text);
    }
}

#[tokio::test]
async fn foreign_hosts_and_pages_are_refused() {
    let app = app("x");
    let request = |host: &str, origin: Option<&str>| {
        let mut request = Request::get("/v1/models").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(send(&app, request("rebound.example", None)).await.status, StatusCode::MISDIRECTED_REQUEST);
    let foreign = request("localhost", Some("https://evil.example"));
    assert_eq!(send(&app, foreign).await.status, StatusCode::FORBIDDEN);
    assert_eq!(send(&app, request("127.0.0.1:8080", None)).await.status, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the value of whatever field: an answer, no 5xx.
    #[test]
    fn any_value_of_any_field_is_answered(
        field in prop::sample::select(vec![
            "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "logprobs",
            "top_logprobs", "logit_bias", "stream", "stream_options", "n", "best_of", "user", "priority", "weight", "timeout",
            "first_token_timeout", "resume", "cache_salt", "chat_template_kwargs", "tools", "frequency_penalty",
        ]),
        value in any_json(),
        chat in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut body = match chat {
            true => json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 4}),
            false => json!({"prompt": "a", "max_tokens": 4}),
        };
        body[field] = value;
        let path = if chat { "/v1/chat/completions" } else { COMPLETIONS };
        let reply = runtime.block_on(async { post_json(&app("xyz"), path, body.clone()).await });
        prop_assert!(!reply.status.is_server_error(), "{body}: {} {}", reply.status, reply.text);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![0i64, 1, -1, i64::MAX, i64::MIN]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
