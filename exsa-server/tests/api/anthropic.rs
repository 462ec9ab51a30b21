//! `/v1/messages`.

use crate::harness::{Reply, chat_app, post_json};
use axum::http::StatusCode;
use serde_json::{Value, json};

const MESSAGES: &str = "/v1/messages";

fn ask() -> Value {
    json!({"model": "", "max_tokens": 40, "messages": [{"role": "user", "content": "Say hello."}]})
}

/// Names and data of server-sent events.
fn named_events(reply: &Reply) -> Vec<(String, Value)> {
    let event = |text: &str| {
        let (name, data) = text.split_once('\n').unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    };
    reply.text.split("\n\n").filter(|text| !text.is_empty()).map(event).collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let reply = post_json(&chat_app("Hello, world."), MESSAGES, ask()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let message = reply.json();
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["content"], json!([{"type": "text", "text": "Hello, world."}]));
    assert_eq!((&message["stop_reason"], &message["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    assert_eq!(message["usage"]["output_tokens"], 14);
}

#[tokio::test]
async fn a_streamed_answer_has_blocks_that_begin_and_end() {
    let mut body = ask();
    body["stream"] = json!(true);
    let events = named_events(&post_json(&chat_app("Hello."), MESSAGES, body).await);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    for (name, data) in &events {
        assert_eq!(data["type"], name.as_str());
    }
    let text: String = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text, "Hello.");
    let prompt = &events[0].1["message"]["usage"]["input_tokens"];
    let delta = &events[events.len() - 2].1;
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
    assert_eq!((prompt, &delta["usage"]["output_tokens"]), (&delta["usage"]["input_tokens"], &json!(7)));
}

#[tokio::test]
async fn stop_sequences_and_limits_are_told() {
    let mut body = ask();
    body["stop_sequences"] = json!(["xyz", ", "]);
    let message = post_json(&chat_app("Hello, world."), MESSAGES, body.clone()).await.json();
    assert_eq!((&message["stop_reason"], &message["stop_sequence"]), (&json!("stop_sequence"), &json!(", ")));
    body["max_tokens"] = json!(3);
    let message = post_json(&chat_app("Hello, world."), MESSAGES, body).await.json();
    assert_eq!(message["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn blocks_become_messages_of_the_template() {
    let template = "{% for m in messages %}[{{ m.role }}|{{ m.content }}|{% for c in m.tool_calls or [] %}\
                    {{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}]{% endfor %}{{ tools | tojson }}";
    let model = exsa_core::scripted::ScriptedModel::echo("x").chat_template(template);
    let engine = exsa_core::Engine::start(model.shared(), exsa_core::EngineOptions::default()).unwrap();
    let app = exsa_server::router(std::sync::Arc::new(engine), exsa_server::ServerOptions::default());
    let body = json!({
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12 degrees"}]},
                {"type": "text", "text": "And?"},
            ]},
        ],
        "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
    });
    let tools = r#"[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "description": "d"}}]"#;
    let rendered = format!(
        "[system|Be brief.|][user|Weather?|][assistant|Looking.|weather({})][tool|12 degrees|][user|And?|]{tools}",
        r#"{"city": "Bern"}"#
    );
    let reply = post_json(&app, "/v1/messages/count_tokens", body).await;
    // The order of keys in an object is the template's business; the length is not.
    assert_eq!(reply.json(), json!({"input_tokens": rendered.len()}), "{}", reply.text);
}

#[tokio::test]
async fn errors_have_the_form_of_the_api() {
    let app = chat_app("x");
    for (body, kind) in [
        (json!({"messages": [{"role": "user", "content": "a"}]}), "invalid_request_error"),
        (json!({"max_tokens": 5, "messages": []}), "invalid_request_error"),
        (json!({"max_tokens": 5, "messages": [{"role": "system", "content": "a"}]}), "invalid_request_error"),
        (
            json!({"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "x"}]}]}),
            "invalid_request_error",
        ),
        (
            json!({"max_tokens": 5, "model": "none", "messages": [{"role": "user", "content": "a"}]}),
            "not_found_error",
        ),
    ] {
        let reply = post_json(&app, MESSAGES, body.clone()).await;
        let error = reply.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{body}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        assert!(reply.status.is_client_error());
    }
}

#[tokio::test]
async fn a_model_without_reasoning_ignores_its_limit() {
    let body = json!({
        "model": "scripted", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi."}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    });
    let reply = post_json(&chat_app("ok"), "/v1/messages", body).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
}
