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
async fn fields_that_are_not_supported_are_refused() {
    for body in [
        json!({"prompt": "a", "suffix": "b"}),
        json!({"prompt": "a", "echo": true}),
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
