//! `/v1/chat/completions`.

use crate::harness::{app, chat_app, post_json};
use axum::http::{StatusCode, header};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn ask() -> Value {
    json!({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 40})
}

#[tokio::test]
async fn a_whole_answer() {
    let reply = post_json(&chat_app("Hello, world."), CHAT, ask()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "Hello, world."}));
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null));
    let usage = &answer["usage"];
    // One token a byte, and the end.
    assert_eq!(usage["completion_tokens"], 14);
    let sum = usage["prompt_tokens"].as_u64().unwrap() + 14;
    assert_eq!(usage["total_tokens"], sum);
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_one_in_pieces() {
    let mut body = ask();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = post_json(&chat_app("Hello, wörld."), CHAT, body).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers[header::CONTENT_TYPE], "text/event-stream");
    let events = reply.events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello, wörld.");
    let last = events.len() - 1;
    assert_eq!(events[last - 1]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[last]["choices"], json!([]));
    assert_eq!(events[last]["usage"]["completion_tokens"], 15);
    let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one id for all chunks");
}

#[tokio::test]
async fn several_answers_have_their_indices() {
    let mut body = ask();
    body["n"] = json!(3);
    let answer = post_json(&chat_app("Hello."), CHAT, body.clone()).await.json();
    let choices = answer["choices"].as_array().unwrap();
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert!(choices.iter().all(|choice| choice["message"]["content"] == "Hello."));
    assert_eq!(answer["usage"]["completion_tokens"], 21);
    body["stream"] = json!(true);
    let events = post_json(&chat_app("Hello."), CHAT, body).await.events();
    for index in 0..3 {
        let of_index = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let text: String =
            of_index.clone().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "Hello.");
        let ends = of_index.filter(|event| event["choices"][0]["finish_reason"] == "stop");
        assert_eq!(ends.count(), 1);
    }
}

#[tokio::test]
async fn usage_is_streamed_only_where_asked_for() {
    let mut body = ask();
    body["stream"] = json!(true);
    let events = post_json(&chat_app("Hi."), CHAT, body).await.events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn an_answer_cut_by_its_limit_says_so() {
    let mut body = ask();
    body["max_completion_tokens"] = json!(5);
    body["max_tokens"] = Value::Null;
    let answer = post_json(&chat_app("Hello, world."), CHAT, body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn stop_strings_end_an_answer() {
    let mut body = ask();
    body["stop"] = json!(", ");
    let answer = post_json(&chat_app("Hello, world."), CHAT, body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn log_probabilities_come_per_token() {
    let mut body = ask();
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(2);
    for stream in [false, true] {
        body["stream"] = json!(stream);
        let reply = post_json(&chat_app("Hé"), CHAT, body.clone()).await;
        let content: Vec<Value> = if stream {
            let events = reply.events();
            let lists =
                events.iter().filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array().cloned());
            lists.flatten().collect()
        } else {
            reply.json()["choices"][0]["logprobs"]["content"].as_array().unwrap().clone()
        };
        assert_eq!(content.len(), 3, "{content:?}");
        assert_eq!(content[0]["token"], "H");
        assert_eq!(content[1]["bytes"], json!([0xc3]));
        assert!(content[0]["logprob"].as_f64().unwrap() <= 0.0);
        assert!(content[0]["top_logprobs"].as_array().unwrap().len() <= 2);
    }
}

#[tokio::test]
async fn a_model_without_template_refuses_a_conversation() {
    let reply = post_json(&app("Hello."), CHAT, ask()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json()["error"]["code"], "chat");
}

#[tokio::test]
async fn a_passed_time_limit_is_an_error() {
    let mut body = ask();
    body["timeout"] = json!(0.0);
    let reply = post_json(&chat_app("Hello."), CHAT, body.clone()).await;
    assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT);
    body["stream"] = json!(true);
    let events = post_json(&chat_app("Hello."), CHAT, body).await.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "deadline");
}

#[tokio::test]
async fn reasoning_has_both_names_where_asked_for() {
    let app = chat_app("<think>Hm.</think>Yes.");
    let mut body = ask();
    body["reasoning_format"] = json!("think");
    let message = post_json(&app, CHAT, body.clone()).await.json()["choices"][0]["message"].clone();
    assert_eq!((&message["reasoning"], &message["reasoning_content"]), (&json!("Hm."), &Value::Null));
    body["reasoning_content"] = json!(true);
    let answer = post_json(&app, CHAT, body.clone()).await.json();
    assert_eq!(answer["choices"][0]["message"]["reasoning_content"], "Hm.");
    assert!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() >= 3);
    body["stream"] = json!(true);
    let events = post_json(&app, CHAT, body).await.events();
    let deltas = events.iter().filter_map(|e| e["choices"][0]["delta"]["reasoning_content"].as_str());
    assert_eq!(deltas.collect::<String>(), "Hm.");
}

#[tokio::test]
async fn fields_of_other_clients_are_accepted() {
    let mut body = ask();
    for (field, value) in [
        ("store", json!(true)),
        ("metadata", json!({"a": "b"})),
        ("service_tier", json!("auto")),
        ("user", json!("u")),
        ("parallel_tool_calls", json!(false)),
        ("priority", json!(-3)),
    ] {
        body[field] = value;
    }
    let answer = post_json(&chat_app("Hello."), CHAT, body.clone()).await.json();
    assert_eq!(answer["service_tier"], "default", "{answer}");
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    for (field, value) in [
        ("functions", json!([])),
        ("function_call", json!("auto")),
        ("priority", json!(0.5)),
        ("priority", json!("urgent")),
        ("metadata", json!({"a": 1})),
    ] {
        let mut body = ask();
        body[field] = value;
        let reply = post_json(&chat_app("x"), CHAT, body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
}

#[tokio::test]
async fn a_developer_is_a_system_to_templates_that_know_none() {
    let body = json!({
        "messages": [
            {"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, {"role": "user", "content": "c"},
        ],
    });
    let answer = post_json(&chat_app("x"), CHAT, body).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], "system: a\n\nb\nuser: c\n".len());
}

#[tokio::test]
async fn a_message_is_continued_or_answered_not_both() {
    let messages = json!([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yo"}]);
    let body = json!({"messages": messages, "add_generation_prompt": true, "continue_final_message": true});
    let reply = post_json(&chat_app("x"), "/v1/chat/completions", body).await;
    assert_eq!(reply.status.as_u16(), 400, "{}", reply.text);
    assert_eq!(reply.json()["error"]["param"], "continue_final_message");
}
