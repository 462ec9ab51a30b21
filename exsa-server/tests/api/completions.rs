//! `/v1/completions`, `/v1/embeddings`, `/v1/rerank`.

use crate::harness::{app, post_json};
use axum::http::StatusCode;
use serde_json::json;

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn prompts_are_texts_ids_and_lists_of_them() {
    let app = app("the quick brown fox");
    for (prompt, answers) in [
        (json!("say: "), 1),
        (json!([115, 97, 121]), 1),
        (json!(["say: ", "tell: "]), 2),
        (json!([[115, 97], [121]]), 2),
        (json!(["say: ", [115]]), 2),
    ] {
        let reply = post_json(&app, COMPLETIONS, json!({"prompt": prompt, "max_tokens": 9})).await;
        assert_eq!(reply.status, StatusCode::OK, "{prompt}: {}", reply.text);
        let choices = reply.json()["choices"].as_array().unwrap().clone();
        assert_eq!(choices.len(), answers, "{prompt}");
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(choice["index"], index);
            assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("the quick"), &json!("length")));
        }
        assert_eq!(reply.json()["usage"]["completion_tokens"], 9 * answers);
    }
}

#[tokio::test]
async fn streams_of_several_prompts_keep_their_indices() {
    let body = json!({"prompt": ["a ", "b ", "c "], "max_tokens": 3, "stream": true});
    let events = post_json(&app("xyz!"), COMPLETIONS, body).await.events();
    for index in 0..3 {
        let of_index = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let text: String = of_index.clone().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
        assert_eq!(text, "xyz");
        assert_eq!(of_index.clone().next_back().unwrap()["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test]
async fn log_probabilities_come_in_columns() {
    let body = json!({"prompt": "say: ", "max_tokens": 2, "logprobs": 3});
    let answer = post_json(&app("ok"), COMPLETIONS, body).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["o", "k"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1]));
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 2);
    assert!(logprobs["top_logprobs"][0]["o"].is_number());
}

#[tokio::test]
async fn the_prompt_is_repeated_with_its_log_probabilities() {
    let mut body = json!({"prompt": "say: ", "max_tokens": 2, "echo": true});
    let plain = post_json(&app("ok"), COMPLETIONS, body.clone()).await.json();
    assert_eq!(
        (&plain["choices"][0]["text"], &plain["choices"][0]["logprobs"]),
        (&json!("say: ok"), &json!(null))
    );
    body["logprobs"] = json!(1);
    let whole = post_json(&app("ok"), COMPLETIONS, body.clone()).await.json();
    let logprobs = &whole["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["s", "a", "y", ":", " ", "o", "k"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 4, 5, 6]));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&json!(null), &json!(null)));
    assert!(logprobs["token_logprobs"][1].is_number());
    body["stream"] = json!(true);
    let events = post_json(&app("ok"), COMPLETIONS, body).await.events();
    let text: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "say: ok");
    let tokens = events.iter().filter_map(|e| e["choices"][0]["logprobs"]["tokens"].as_array()).flatten();
    assert_eq!(tokens.count(), 7);
    let offsets =
        events.iter().filter_map(|e| e["choices"][0]["logprobs"]["text_offset"].as_array()).flatten();
    assert_eq!(offsets.cloned().collect::<Vec<_>>(), (0..7).map(serde_json::Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn log_probabilities_of_the_prompt_are_objects_by_token() {
    let body = json!({"prompt": "ab", "max_tokens": 1, "prompt_logprobs": 2});
    for stream in [false, true] {
        let mut body = body.clone();
        body["stream"] = json!(stream);
        let reply = post_json(&app("x"), COMPLETIONS, body).await;
        let choice = if stream { reply.events()[0].clone() } else { reply.json() }["choices"][0].clone();
        let positions = choice["prompt_logprobs"].as_array().unwrap();
        assert_eq!((positions.len(), &positions[0]), (2, &json!(null)));
        assert_eq!(positions[1]["98"]["decoded_token"], "b", "{choice}");
    }
}

#[tokio::test]
async fn times_and_usage_come_where_asked_for() {
    let body = json!({
        "prompt": "ab", "max_tokens": 3, "stream": true, "timings": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    let events = post_json(&app("xyz"), COMPLETIONS, body).await.events();
    let counts: Vec<_> =
        events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!((counts[0], counts[counts.len() - 1]), (1, 3));
    assert!(events.iter().all(|event| event["usage"]["prompt_tokens"] == 2));
    let timed: Vec<_> = events.iter().filter(|event| event["timings"].is_object()).collect();
    assert_eq!((timed.len(), &timed[0]["timings"]["predicted_n"]), (1, &json!(3)));
}

#[tokio::test]
async fn fields_that_are_not_supported_are_refused() {
    for body in [
        json!({"prompt": "a", "suffix": "b", "echo": true}),
        json!({"prompt": "a", "echo": "yes"}),
        json!({"prompt": "a", "logprobs": "many"}),
        json!({"prompt": []}),
        json!({"prompt": vec!["a"; 65]}),
        json!({"prompt": {"a": 1}}),
        json!({"messages": [{"role": "user", "content": "a"}]}),
        json!({}),
    ] {
        let reply = post_json(&app("x"), COMPLETIONS, body.clone()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}: {}", reply.text);
        assert!(reply.json()["error"]["param"].is_string(), "{body}: {}", reply.text);
    }
    let accepted =
        post_json(&app("x"), COMPLETIONS, json!({"prompt": "a", "echo": false, "suffix": null})).await;
    assert_eq!(accepted.status, StatusCode::OK, "{}", accepted.text);
}

#[tokio::test]
async fn embeddings_of_a_model_without_vectors_are_refused() {
    let reply = post_json(&app("x"), "/v1/embeddings", json!({"input": "text"})).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("unsupported"))
    );
    let reply = post_json(&app("x"), "/v1/rerank", json!({"query": "q", "documents": ["d"]})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}
