//! `/v1/responses`.

use crate::gated::{Gated, eventually, registry};
use crate::harness::{Reply, chat_app, get, post_json, send};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_core::registry::RegistryOptions;
use exsa_server::Server;
use exsa_server::models::Models;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tower::ServiceExt;

const RESPONSES: &str = "/v1/responses";

/// The data of the events, whose names are their types and whose numbers count from 0.
fn typed_events(reply: &Reply) -> Vec<Value> {
    let event = |(number, text): (usize, &str)| {
        let (name, data) = text.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name.strip_prefix("event: ").unwrap());
        assert_eq!(data["sequence_number"], number);
        data
    };
    reply.text.split("\n\n").filter(|text| !text.is_empty()).enumerate().map(event).collect()
}

async fn delete(app: &Router, path: &str) -> Reply {
    let request = Request::delete(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
    send(app, request).await
}

#[tokio::test]
async fn a_whole_answer() {
    let body = json!({"input": "Say hello.", "max_output_tokens": 40, "metadata": {"a": "b"}});
    let reply = post_json(&chat_app("Hello, world."), RESPONSES, body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let response = reply.json();
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    let item = &response["output"][0];
    assert_eq!(
        (&item["type"], &item["role"], &item["status"]),
        (&json!("message"), &json!("assistant"), &json!("completed"))
    );
    let part = json!({"type": "output_text", "text": "Hello, world.", "annotations": [], "logprobs": []});
    assert_eq!(item["content"], json!([part]));
    assert_eq!(response["usage"]["output_tokens"], 14);
    assert_eq!((&response["metadata"], &response["store"]), (&json!({"a": "b"}), &json!(true)));
    assert_eq!(response["text"], json!({"format": {"type": "text"}}));
}

#[tokio::test]
async fn a_stream_ends_with_the_whole_answer() {
    let body = json!({"input": "Say hello.", "stream": true});
    let events = typed_events(&post_json(&chat_app("Hello."), RESPONSES, body).await);
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        types[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
        ]
    );
    assert_eq!(
        types[types.len() - 4..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    let last = &events[events.len() - 1]["response"];
    assert_eq!((text.as_str(), &last["output"][0]["content"][0]["text"]), ("Hello.", &json!("Hello.")));
    assert_eq!(last["id"], events[0]["response"]["id"]);
    assert_eq!(events[2]["item"]["id"], last["output"][0]["id"]);
    assert_eq!(last["usage"]["output_tokens"], 7);
}

#[tokio::test]
async fn reasoning_and_calls_are_items_of_their_own() {
    let text = "<think>Which city?</think>Looking.<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}\
                </tool_call>";
    let mut body = json!({
        "input": "Weather?", "reasoning_format": "think", "tool_format": "hermes",
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
    });
    let whole = post_json(&chat_app(text), RESPONSES, body.clone()).await;
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.text);
    let whole = whole.json();
    let output = whole["output"].as_array().unwrap();
    let types: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["reasoning", "message", "function_call"], "{whole}");
    assert_eq!(output[0]["content"], json!([{"type": "reasoning_text", "text": "Which city?"}]));
    assert_eq!(output[2]["name"], "weather");
    let arguments: Value = serde_json::from_str(output[2]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Bern"}));
    assert!(whole["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 5);

    body["stream"] = json!(true);
    let events = typed_events(&post_json(&chat_app(text), RESPONSES, body).await);
    let joined = |kind: &str| -> String {
        let deltas = events.iter().filter(|event| event["type"] == kind);
        deltas.map(|event| event["delta"].as_str().unwrap()).collect()
    };
    assert_eq!(joined("response.reasoning_text.delta"), "Which city?");
    assert_eq!(joined("response.output_text.delta"), "Looking.");
    assert_eq!(Value::from(joined("response.function_call_arguments.delta")), output[2]["arguments"]);
    let streamed = &events[events.len() - 1]["response"]["output"];
    for (index, item) in output.iter().enumerate() {
        let mut expected = item.clone();
        for field in ["id", "call_id"] {
            if !item[field].is_null() {
                expected[field] = streamed[index][field].clone();
            }
        }
        assert_eq!(streamed[index], expected);
        let added =
            events.iter().find(|e| e["type"] == "response.output_item.added" && e["output_index"] == index);
        assert_eq!(added.unwrap()["item"]["id"], streamed[index]["id"]);
    }
}

#[tokio::test]
async fn a_limit_makes_a_response_incomplete() {
    let body = json!({"input": "a", "max_output_tokens": 5, "stream": true});
    let events = typed_events(&post_json(&chat_app("Hello, world."), RESPONSES, body).await);
    let last = &events[events.len() - 1];
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[tokio::test]
async fn a_failed_stream_ends_with_a_failed_response() {
    let body = json!({"input": "a", "timeout": 0.0, "stream": true});
    let events = typed_events(&post_json(&chat_app("Hello."), RESPONSES, body.clone()).await);
    let last = &events[events.len() - 1];
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    let mut body = body;
    body["stream"] = json!(false);
    assert_eq!(post_json(&chat_app("Hello."), RESPONSES, body).await.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_response_follows_another() {
    let app = chat_app("Hi.");
    let first =
        post_json(&app, RESPONSES, json!({"input": "One.", "instructions": "Be brief."})).await.json();
    let id = first["id"].as_str().unwrap();
    let body = json!({"input": "Two.", "previous_response_id": id});
    let second = post_json(&app, RESPONSES, body).await.json();
    let rendered = "user: One.\nassistant: Hi.\nuser: Two.\n";
    assert_eq!(second["usage"]["input_tokens"], rendered.len(), "{second}");

    let path = format!("{RESPONSES}/{}/input_items?order=asc", second["id"].as_str().unwrap());
    let items = get(&app, &path).await.json();
    let roles: Vec<_> = items["data"].as_array().unwrap().iter().map(|item| item["role"].clone()).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    let path = path.replace("order=asc", "limit=1");
    let items = get(&app, &path).await.json();
    assert_eq!((&items["data"][0]["content"][0]["text"], &items["has_more"]), (&json!("Two."), &json!(true)));
    let path = format!("{path}&after={}", items["last_id"].as_str().unwrap());
    assert_eq!(get(&app, &path).await.json()["data"][0]["role"], "assistant");
    assert_eq!(get(&app, &path.replace("limit=1", "limit=0")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn stored_responses_are_shown_and_deleted() {
    let app = chat_app("Hi.");
    let response = post_json(&app, RESPONSES, json!({"input": "One."})).await.json();
    let path = format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    assert_eq!(get(&app, &path).await.json(), response);
    let request = Request::post(format!("{path}/cancel")).header(header::HOST, "localhost");
    let cancel = send(&app, request.body(Body::empty()).unwrap()).await;
    assert_eq!(cancel.status, StatusCode::BAD_REQUEST, "it has ended");
    assert_eq!(delete(&app, &path).await.json()["deleted"], true);
    for reply in [get(&app, &path).await, delete(&app, &path).await] {
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
    }
    let body = json!({"input": "Two.", "previous_response_id": response["id"]});
    let reply = post_json(&app, RESPONSES, body).await;
    assert_eq!(reply.json()["error"]["code"], "previous_response_not_found");

    let unstored = post_json(&app, RESPONSES, json!({"input": "One.", "store": false})).await.json();
    let path = format!("{RESPONSES}/{}", unstored["id"].as_str().unwrap());
    assert_eq!(get(&app, &path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_response_that_is_generated_can_be_cancelled() {
    let app = chat_app(&"abc ".repeat(500));
    let body = json!({"input": "a", "stream": true}).to_string();
    let request = Request::post(RESPONSES).header(header::HOST, "localhost").body(Body::from(body)).unwrap();
    let mut stream = app.clone().oneshot(request).await.unwrap().into_body();
    let mut text = Vec::new();
    while !text.ends_with(b"\n\n") {
        text.extend_from_slice(&stream.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let first = String::from_utf8(text.clone()).unwrap();
    let data = first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let id = serde_json::from_str::<Value>(data).unwrap()["response"]["id"].as_str().unwrap().to_owned();
    let cancelled = post_json(&app, &format!("{RESPONSES}/{id}/cancel"), json!({})).await;
    assert_eq!(cancelled.json()["status"], "cancelled", "{}", cancelled.text);
    text.extend_from_slice(&stream.collect().await.unwrap().to_bytes());
    let text = String::from_utf8(text).unwrap();
    let events = typed_events(&Reply { status: StatusCode::OK, headers: Default::default(), text });
    let last = &events[events.len() - 1]["response"];
    assert_eq!((&last["status"], &last["id"]), (&json!("cancelled"), &json!(id)));
    assert_eq!(get(&app, &format!("{RESPONSES}/{id}")).await.json()["status"], "cancelled");
    let again = post_json(&app, &format!("{RESPONSES}/{id}/cancel"), json!({})).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn fields_that_are_not_supported_are_refused() {
    for (field, value) in [
        ("input", json!(null)),
        ("input", json!([])),
        ("conversation", json!("conv_1")),
        ("prompt", json!({"id": "p"})),
        ("n", json!(2)),
        ("tools", json!([{"type": "web_search"}])),
        ("tools", json!([{"type": "function"}])),
        ("text", json!({"format": {"type": "json_schema"}})),
        ("text", json!({"format": {"type": "xml"}})),
        ("max_output_tokens", json!(0)),
        ("metadata", json!({"a": 1})),
        ("metadata", json!({"a": "x".repeat(513)})),
        ("temperature", json!(-1)),
    ] {
        let mut body = json!({"input": "a"});
        body[field] = value.clone();
        let reply = post_json(&chat_app("x"), RESPONSES, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{field} {value}: {}", reply.text);
        let error = reply.json();
        assert!(error["error"]["param"].as_str().is_some_and(|param| param.starts_with(field)), "{error}");
    }
}

#[tokio::test]
async fn a_schema_of_the_format_constrains_the_answer() {
    let schema = json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    let body = json!({
        "input": "a", "max_output_tokens": 30,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": true}},
    });
    let response = post_json(&chat_app("nothing of the kind"), RESPONSES, body).await.json();
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"a": 1}));
}

/// The response once it has ended.
async fn ended(app: &Router, id: &str) -> Value {
    let mut response = Value::Null;
    eventually("the response has ended", async || {
        response = get(app, &format!("/v1/responses/{id}")).await.json();
        response["status"] != "in_progress"
    })
    .await;
    response
}

/// A loaded model whose passes stand still, and a response to it in the background.
async fn background() -> (Arc<Gated>, Router, String) {
    let backend = Gated::new("Hello.");
    let app = Server::of_models(Models::new(registry(&backend, &["a"], RegistryOptions::new()))).router();
    post_json(&app, "/v1/models/load", json!({"model": "a"})).await;
    backend.gates.hold_passes.store(true, Ordering::SeqCst);
    let begun = post_json(&app, "/v1/responses", json!({"input": "Hi.", "background": true})).await.json();
    assert_eq!((&begun["status"], &begun["background"]), (&json!("in_progress"), &json!(true)), "{begun}");
    let id = begun["id"].as_str().unwrap().to_owned();
    assert_eq!(get(&app, &format!("/v1/responses/{id}")).await.json(), begun);
    (backend, app, id)
}

#[tokio::test]
async fn a_response_in_the_background_is_polled() {
    let (backend, app, id) = background().await;
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    let whole = ended(&app, &id).await;
    assert_eq!((&whole["status"], &whole["background"]), (&json!("completed"), &json!(true)));
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello.");
    let next = json!({"input": "And?", "previous_response_id": id});
    assert_eq!(post_json(&app, "/v1/responses", next).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_response_in_the_background_is_cancelled() {
    let (backend, app, id) = background().await;
    let cancelled = post_json(&app, &format!("/v1/responses/{id}/cancel"), json!({})).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    backend.gates.hold_passes.store(false, Ordering::SeqCst);
    assert_eq!(ended(&app, &id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_response_in_the_background_needs_a_store_and_no_stream() {
    for more in [json!({"stream": true}), json!({"store": false})] {
        let mut body = json!({"input": "Hi.", "background": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = post_json(&chat_app("x"), "/v1/responses", body).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!("background"))
        );
    }
}
