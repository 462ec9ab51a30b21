//! Routes of llama-server.

use crate::harness::{Reply, app, chat_app, get, post_json};
use axum::http::StatusCode;
use serde_json::{Value, json};

const COMPLETION: &str = "/completion";

fn data(reply: &Reply) -> Vec<Value> {
    let events = reply.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    events.map(|text| serde_json::from_str(text).unwrap()).collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let body = json!({"prompt": "say: ", "n_predict": 20, "return_tokens": true});
    let answer = post_json(&app("ok\nso"), COMPLETION, body).await.json();
    assert_eq!((&answer["content"], &answer["stop"]), (&json!("ok\nso"), &json!(true)));
    assert_eq!((&answer["stop_type"], &answer["stopping_word"]), (&json!("eos"), &json!("")));
    assert_eq!((&answer["tokens_predicted"], &answer["tokens_evaluated"]), (&json!(6), &json!(5)));
    assert_eq!((&answer["has_new_line"], &answer["prompt"]), (&json!(true), &json!("say: ")));
    assert_eq!(answer["tokens"].as_array().unwrap()[..2], [json!(111), json!(107)]);
    assert_eq!(answer["timings"]["predicted_n"], 6);
    assert_eq!(answer["generation_settings"]["n_predict"], 20);
}

#[tokio::test]
async fn the_cause_of_the_end_is_told() {
    for (body, kind, word) in [
        (json!({"prompt": "a", "n_predict": 2}), "limit", ""),
        (json!({"prompt": "a", "stop": ["zzz", "lo"]}), "word", "lo"),
        (json!({"prompt": "a", "n_predict": -1, "seed": -1}), "eos", ""),
    ] {
        let answer = post_json(&app("hello"), COMPLETION, body.clone()).await.json();
        assert_eq!((&answer["stop_type"], &answer["stopping_word"]), (&json!(kind), &json!(word)), "{body}");
    }
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_one_in_pieces() {
    let body = json!({"prompt": "say: ", "n_predict": 3, "stream": true, "n_probs": 2});
    let chunks = data(&post_json(&app("hello"), "/completions", body).await);
    let text: String = chunks.iter().filter_map(|chunk| chunk["content"].as_str()).collect();
    assert_eq!((text.as_str(), chunks.len()), ("hel", 4));
    let (last, parts) = chunks.split_last().unwrap();
    assert_eq!((&last["stop"], &last["stop_type"]), (&json!(true), &json!("limit")));
    for part in parts {
        assert_eq!(part["stop"], false);
        let probabilities = &part["completion_probabilities"][0];
        assert_eq!(probabilities["id"], part["tokens"][0]);
        assert!(probabilities["top_logprobs"].as_array().unwrap().len() <= 2);
    }
}

#[tokio::test]
async fn prompts_are_texts_ids_mixtures_and_lists() {
    let app = app("x");
    for (prompt, tokens) in
        [(json!("abc"), 3), (json!([97, 98]), 2), (json!(["abc"]), 3), (json!([97, "bc", 100]), 4)]
    {
        let answer = post_json(&app, COMPLETION, json!({"prompt": prompt, "n_predict": 1})).await.json();
        let answer = if answer.is_array() { answer[0].clone() } else { answer };
        assert_eq!(answer["tokens_evaluated"], tokens, "{prompt}: {answer}");
    }
    let list = post_json(&app, COMPLETION, json!({"prompt": ["a", "bc"], "n_predict": 1})).await.json();
    assert_eq!((&list[0]["index"], &list[1]["tokens_evaluated"]), (&json!(0), &json!(2)));
    for prompt in
        [json!(null), json!({}), json!([]), json!(["a", {}]), json!([1, "a", -2]), json!(vec!["a"; 65])]
    {
        let reply = post_json(&app, COMPLETION, json!({"prompt": prompt})).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{prompt}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_conversation_is_rendered() {
    let body = json!({"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi."}]});
    let reply = post_json(&chat_app("x"), "/apply-template", body).await;
    assert_eq!(reply.json(), json!({"prompt": "system: Be brief.\nuser: Hi.\n"}));
    let reply = post_json(&chat_app("x"), "/apply-template", json!({"prompt": "a"})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_model_without_tokens_for_it_fills_no_gap() {
    for (path, body) in [
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b"})),
        ("/v1/completions", json!({"prompt": "a", "suffix": "b"})),
    ] {
        let reply = post_json(&app("x"), path, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.json()["error"]["code"], "fill_in_not_supported", "{path}");
    }
}

#[tokio::test]
async fn properties_tell_no_folders() {
    let props = get(&chat_app("x"), "/props").await.json();
    assert!(props["chat_template"].as_str().unwrap().contains("m.role"));
    assert_eq!(props["total_slots"], 1);
    assert!(!props["model_path"].as_str().unwrap().contains('/'));
    assert!(props["default_generation_settings"]["params"]["temperature"].is_number());
    assert_eq!(get(&chat_app("x"), "/props?model=none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_request_in_flight_is_no_slot() {
    let app = app("x");
    post_json(&app, COMPLETION, json!({"prompt": "a"})).await;
    assert_eq!(get(&app, "/slots").await.json(), json!([]));
}
