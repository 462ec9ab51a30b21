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
async fn sequences_are_slots() {
    let app = app("x");
    post_json(&app, COMPLETION, json!({"prompt": "a"})).await;
    let n_ctx = get(&app, "/props").await.json()["default_generation_settings"]["n_ctx"].clone();
    assert_eq!(get(&app, "/slots").await.json(), json!([{"id": 0, "n_ctx": n_ctx, "is_processing": false}]));
}

#[tokio::test]
async fn chosen_fields_alone_are_sent() {
    let fields = json!(["content", "generation_settings/n_predict", "none"]);
    let body = json!({"prompt": "a", "n_predict": 3, "response_fields": fields, "stream": false});
    let answer = post_json(&app("hello"), COMPLETION, body.clone()).await.json();
    assert_eq!(answer, json!({"content": "hel", "generation_settings/n_predict": 3}));
    let mut streamed = body;
    streamed["stream"] = true.into();
    let chunks = data(&post_json(&app("hello"), COMPLETION, streamed).await);
    let (last, parts) = chunks.split_last().unwrap();
    assert_eq!(last, &json!({"content": "", "generation_settings/n_predict": 3}));
    assert!(parts.iter().all(|part| part["stop"] == false));
}

#[tokio::test]
async fn biases_name_tokens_or_texts() {
    let app = app("hello");
    for bias in [
        json!([[104, false]]),
        json!([["h", -1000.0], ["e", 0.5]]),
        json!({"h": false}),
        json!({"104": -1000.0}),
    ] {
        let body = json!({"prompt": "a", "n_predict": 1, "temperature": 0, "logit_bias": bias});
        let answer = post_json(&app, COMPLETION, body).await.json();
        assert_ne!(answer["content"], "h", "{answer}");
        let first = &answer["generation_settings"]["logit_bias"][0];
        assert_eq!(first["token"], 104, "{answer}");
    }
    for bias in [json!([["h"]]), json!([[null, 1]]), json!([["h", true]]), json!({"h": null})] {
        let reply = post_json(&app, COMPLETION, json!({"prompt": "a", "logit_bias": bias})).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bias}: {}", reply.text);
        assert_eq!(reply.json()["error"]["param"], "logit_bias");
    }
}

#[tokio::test]
async fn ignored_ends_are_told_as_bans() {
    let body = json!({"prompt": "a", "n_predict": 2, "ignore_eos": true});
    let answer = post_json(&app("hello"), COMPLETION, body).await.json();
    let bans = answer["generation_settings"]["logit_bias"].as_array().unwrap().clone();
    assert!(!bans.is_empty() && bans.iter().all(|ban| ban["bias"].is_null() && ban["token"].is_u64()));
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_told_in_tokens() {
    let reply = post_json(&app("x"), COMPLETION, json!({"prompt": "a".repeat(100_000)})).await;
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("context_length_exceeded")));
    let n_ctx = get(&app("x"), "/props").await.json()["default_generation_settings"]["n_ctx"].clone();
    assert_eq!((error["n_prompt_tokens"].as_u64(), &error["n_ctx"]), (Some(100_000), &n_ctx));
}

#[tokio::test]
async fn tokens_of_a_conversation_are_counted() {
    let body = json!({"messages": [{"role": "user", "content": "Hi."}]});
    let reply = post_json(&chat_app("x"), "/chat/completions/input_tokens", body).await;
    assert_eq!(reply.json(), json!({"input_tokens": "user: Hi.\n".len()}));
}

#[tokio::test]
async fn probabilities_after_sampling_are_refused() {
    let body = json!({"prompt": "a", "n_probs": 2, "post_sampling_probs": true});
    let reply = post_json(&app("x"), COMPLETION, body).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("post_sampling_probs"))
    );
}
