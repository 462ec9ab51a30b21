//! Bad input: each a 4xx with a clear body, and nothing else is harmed.

use crate::harness::{Reply, app, chat_app, engine, post, post_json, send};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_server::{ServerOptions, router};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const COMPLETIONS: &str = "/v1/completions";

/// Every route that reads a body, with a body that it reads.
fn routes() -> Vec<(&'static str, Value)> {
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2});
    let text = json!({"prompt": "a", "max_tokens": 2});
    vec![
        ("/v1/chat/completions", chat.clone()),
        ("/v1/completions", text.clone()),
        ("/v1/responses", json!({"input": "a", "max_output_tokens": 2})),
        ("/v1/embeddings", json!({"input": "a"})),
        ("/v1/rerank", json!({"query": "a", "documents": ["b"]})),
        ("/rerank", json!({"query": "a", "documents": ["b"]})),
        ("/v1/messages", chat.clone()),
        ("/v1/messages/count_tokens", chat.clone()),
        ("/api/chat", json!({"messages": [{"role": "user", "content": "a"}], "options": {"num_predict": 2}})),
        ("/api/generate", json!({"prompt": "a", "options": {"num_predict": 2}})),
        ("/api/embed", json!({"input": "a"})),
        ("/api/show", json!({"model": "x"})),
        ("/completion", json!({"prompt": "a", "n_predict": 2})),
        ("/completions", json!({"prompt": "a", "n_predict": 2})),
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2})),
        ("/embedding", json!({"content": "a"})),
        ("/apply-template", chat),
        ("/v1/tokenize", json!({"content": "a"})),
        ("/tokenize", json!({"content": "a"})),
        ("/v1/detokenize", json!({"tokens": [97]})),
        ("/detokenize", json!({"tokens": [97]})),
    ]
}

/// Asserts that the route refused the body, in words.
fn assert_refused(reply: &Reply, what: &str) {
    assert!(reply.status.is_client_error(), "{what}: {} {}", reply.status, reply.text);
    let error = reply.json()["error"].clone();
    let message = error["message"].as_str().or(error.as_str());
    assert!(message.is_some_and(|message| !message.is_empty()), "{what}: {}", reply.text);
}

#[tokio::test]
async fn no_route_takes_a_body_that_is_no_json_object() {
    let app = chat_app("x");
    let deep = format!("{{\"messages\": {}", "[".repeat(50_000));
    let bad: [&[u8]; 9] = [
        b"",
        b"[]",
        b"{\"prompt\": NaN}",
        b"{\"prompt\": Infinity}",
        b"{\"prompt\": \"\xff\xfe\"}",
        b"{\"a\": 1",
        b"{\"n\": 1e999}",
        b"{\"prompt\": \"\x00\"}",
        deep.as_bytes(),
    ];
    for (path, _) in routes() {
        for body in bad {
            assert_refused(&post(&app, path, body.to_vec()).await, path);
        }
    }
}

#[tokio::test]
async fn compressed_bodies_are_refused_before_they_are_read() {
    let app = chat_app("x");
    for (path, body) in routes() {
        for encoding in ["gzip", "br", "zstd", "gzip, gzip"] {
            let request = Request::post(path)
                .header(header::HOST, "localhost")
                .header(header::CONTENT_ENCODING, encoding)
                .body(Body::from(body.to_string()))
                .unwrap();
            let reply = send(&app, request).await;
            assert_refused(&reply, path);
            assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {encoding}");
        }
    }
}

#[tokio::test]
async fn numbers_at_their_ends_harm_no_route() {
    let app = chat_app("xyz");
    let fields = [
        "n",
        "best_of",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n_predict",
        "n_probs",
        "top_k",
        "top_p",
        "min_p",
        "temperature",
        "seed",
        "logprobs",
        "top_logprobs",
        "prompt_logprobs",
        "frequency_penalty",
        "presence_penalty",
        "repeat_penalty",
        "repeat_last_n",
        "priority",
        "weight",
        "timeout",
        "first_token_timeout",
        "top_n",
        "dimensions",
        "thinking_budget",
        "n_keep",
        "min_tokens",
        "dry_multiplier",
        "dry_allowed_length",
        "mirostat",
        "mirostat_tau",
        "xtc_probability",
        "dynatemp_range",
        "typical_p",
        "max_tool_calls",
    ];
    let values = [
        json!(0),
        json!(-1),
        json!(1_000_000_000),
        json!(i32::MIN),
        json!(i32::MAX),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(f64::MAX),
        json!(f64::MIN),
        json!(f64::MIN_POSITIVE),
        json!(0.5),
    ];
    for (path, body) in routes() {
        for field in fields {
            for value in &values {
                let mut body = body.clone();
                body[field] = value.clone();
                let reply = post_json(&app, path, body).await;
                let what = format!("{path} {field} {value}");
                if reply.status != StatusCode::OK {
                    assert_refused(&reply, &what);
                }
            }
        }
        let reply = post_json(&app, path, body).await;
        assert!(reply.status == StatusCode::OK || reply.status.is_client_error(), "{path} still answers");
    }
}

#[tokio::test]
async fn fields_of_wrong_types_harm_no_route() {
    let app = chat_app("xyz");
    let wrong = [
        json!(null),
        json!(true),
        json!(1),
        json!("x"),
        json!(""),
        json!([]),
        json!([null]),
        json!([[]]),
        json!({}),
        json!({"a": {"b": []}}),
        json!("\u{0}"),
        json!(["\u{0}", 5]),
        json!("<|im_start|>system<|im_end|>"),
    ];
    for (path, body) in routes() {
        let own: Vec<String> = body.as_object().unwrap().keys().cloned().collect();
        let others = [
            "tools",
            "tool_choice",
            "stop",
            "logit_bias",
            "response_format",
            "stream",
            "stream_options",
            "text",
            "reasoning",
            "metadata",
            "options",
            "input_extra",
            "include",
            "grammar",
            "json_schema",
            "samplers",
            "echo",
            "suffix",
            "instructions",
            "previous_response_id",
            "chat_template_kwargs",
            "documents",
            "resume",
        ];
        for field in own.iter().map(String::as_str).chain(others) {
            for value in &wrong {
                let mut body = body.clone();
                body[field] = value.clone();
                let reply = post_json(&app, path, body).await;
                let what = format!("{path} {field} {value}");
                if reply.status != StatusCode::OK {
                    assert_refused(&reply, &what);
                }
            }
        }
    }
}

#[tokio::test]
async fn limits_of_the_host_are_kept() {
    let options = ServerOptions::default().n_max(2).prompt_tokens_max(5).schema_bytes_max(100);
    let app = router(Arc::new(engine("xyz")), options);
    let schema = json!({"type": "json_schema", "json_schema": {"schema": {"enum": vec!["a"; 50]}}});
    for (body, param) in [
        (json!({"prompt": "a", "n": 3}), json!("n")),
        (json!({"prompt": "a", "best_of": 3}), json!("best_of")),
        (json!({"prompt": "sixsix"}), json!(null)),
        (json!({"prompt": [1, 2, 3, 4, 5, 6]}), json!(null)),
        (json!({"prompt": "a", "response_format": schema}), json!("response_format")),
        (json!({"prompt": "a", "guided_regex": "a".repeat(101)}), json!("response_format")),
        (json!({"prompt": "a", "tools": [{"description": "d".repeat(100)}]}), json!("tools")),
    ] {
        let reply = post_json(&app, COMPLETIONS, body.clone()).await;
        assert_refused(&reply, &body.to_string());
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
    let fits = json!({"prompt": "five5", "n": 2, "max_tokens": 2});
    assert_eq!(post_json(&app, COMPLETIONS, fits).await.status, StatusCode::OK);
}

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
