//! Conversations that the engine renders, tool calls, grammars, embeddings and scores, by the routes of
//! OpenAI.

use crate::fields;
use crate::mock::{Exchange, Mock, Received};
use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions};
use exsa_core::chat::Json;
use exsa_core::constraint::Constraint;
use exsa_core::embed::EmbedError;
use exsa_core::tools::{ToolChoice, ToolOptions};
use exsa_core::{
    EmbedRequest, Event, FinishReason, Generator, Message, Request, RerankRequest, SamplingParams,
    SubmitError,
};
use serde_json::{Value, json};
use std::time::Duration;

/// A server whose model is listed as that of `owner`; `handler` answers the rest.
fn mock(owner: &'static str, handler: impl Fn(&Received, &mut Exchange<'_>) + Send + Sync + 'static) -> Mock {
    Mock::start(move |request, exchange| match request.path.as_str() {
        "/v1/models" => exchange.json(200, &json!({ "data": [{ "id": "m", "owned_by": owner }] })),
        "/inference/v1/generate" | "/props" => exchange.json(404, &json!({})),
        _ => handler(request, exchange),
    })
}

fn connect(mock: &Mock) -> RemoteEngine {
    RemoteEngine::connect(RemoteOptions::new(&mock.url)).unwrap()
}

/// Streams deltas of a chat completion.
fn deltas(exchange: &mut Exchange<'_>, deltas: &[Value], reason: &str) {
    exchange.begin_events();
    for delta in deltas {
        exchange.event(&json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] }));
    }
    exchange.event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }));
    exchange.event(&json!({ "choices": [], "usage": { "prompt_tokens": 9, "completion_tokens": 4 } }));
    exchange.done();
}

fn tool() -> Json {
    r#"{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}"#.parse().unwrap()
}

fn chat() -> Request {
    let mut request =
        Request::chat([Message::system("Be brief."), Message::user("Weather?")]).max_tokens(32).seed(5);
    request.sampling = request.sampling.top_k(0).min_p(0.0);
    request
}

#[test]
fn tool_calls_and_reasoning_of_the_engine_become_events() {
    for owner in ["someone", "vllm", "tensorrt_llm", "llamacpp"] {
        let mock = mock(owner, move |request, exchange| {
            assert_eq!(request.path, "/v1/chat/completions");
            let known = if owner == "tensorrt_llm" { fields::TRTLLM_CHAT } else { fields::OPENAI_CHAT };
            if let ("someone" | "tensorrt_llm", Some(field)) =
                (owner, fields::unknown(request.body.as_object().unwrap(), known))
            {
                return exchange.json(400, &json!({ "message": format!("extra: {field}") }));
            }
            let call = |delta: Value| json!({ "tool_calls": [delta] });
            let reasoning = if owner == "llamacpp" { "reasoning_content" } else { "reasoning" };
            deltas(
                exchange,
                &[
                    json!({ "role": "assistant", "content": "" }),
                    json!({ reasoning: "hmm" }),
                    json!({ "content": "Let me " }),
                    json!({ "content": "see." }),
                    call(
                        json!({ "index": 0, "id": "c1", "function": { "name": "weather", "arguments": "" } }),
                    ),
                    call(json!({ "index": 0, "function": { "arguments": "{\"city\":" } })),
                    call(json!({ "index": 0, "function": { "arguments": " \"Rome\"}" } })),
                ],
                "tool_calls",
            );
        });
        let engine = connect(&mock);
        let mut request = chat().tools(ToolOptions::default().choice(ToolChoice::Required).parallel(false));
        request.chat = request.chat.tools([tool()]);
        let answer = engine.submit(request).unwrap().complete().unwrap();
        assert_eq!((answer.text.as_str(), answer.reasoning.as_str()), ("Let me see.", "hmm"), "{owner}");
        let calls: Vec<_> =
            answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("weather", r#"{"city": "Rome"}"#)], "{owner}");
        assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (9, 4));
        let body = &mock.received()[0].body;
        assert_eq!(body["messages"][1], json!({ "role": "user", "content": "Weather?" }));
        assert_eq!((&body["tool_choice"], &body["parallel_tool_calls"]), (&json!("required"), &json!(false)));
        assert_eq!((&body["seed"], &body["max_tokens"]), (&json!(5), &json!(32)));
        assert_eq!(body["tools"][0]["function"]["name"], "weather");
    }
}

#[test]
fn stop_strings_do_not_end_reasoning() {
    let mock = mock("someone", |_, exchange| {
        deltas(exchange, &[json!({ "reasoning": "a STOP b" }), json!({ "content": "c STOP d" })], "stop");
    });
    let answer = connect(&mock).submit(chat().stop("STOP")).unwrap().complete().unwrap();
    assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("a STOP b", "c "));
    assert_eq!(answer.reason, FinishReason::StopString(0));
}

#[test]
fn chat_log_probabilities() {
    let mock = mock("someone", |request, exchange| {
        assert_eq!((&request.body["logprobs"], &request.body["top_logprobs"]), (&json!(true), &json!(2)));
        let top = |text: &str, logprob: f64| json!({ "token": text, "logprob": logprob });
        let mut entry = top("Hi", -0.5);
        entry["top_logprobs"] = json!([top("Ho", -2.0), top("Hi", -0.5), top("He", -3.0)]);
        exchange.begin_events();
        exchange.event(
            &json!({ "choices": [{ "delta": { "content": "Hi" }, "logprobs": { "content": [entry] } }] }),
        );
        exchange.event(&json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }));
        exchange.done();
    });
    let mut request = chat();
    request.sampling = request.sampling.logprobs(true).top_logprobs(2);
    let engine = connect(&mock);
    let mut stream = engine.submit(request).unwrap();
    let Event::Token(token) = stream.next().unwrap() else { panic!() };
    assert_eq!((token.text.as_str(), token.logprob), ("Hi", Some(-0.5)));
    let top: Vec<_> = token.top_logprobs.iter().map(|top| (top.text.as_deref(), top.logprob)).collect();
    assert_eq!(top, [(Some("Hi"), -0.5), (Some("Ho"), -2.0)]);
}

/// Text, log-probability and most probable tokens of a token.
type Scored = (String, f32, Vec<exsa_core::stream::TopLogprob>);

/// The tokens that the client reads from a recorded stream.
fn recorded(stream: &str, mut request: Request) -> (Vec<Scored>, exsa_core::finish::Usage) {
    let stream = stream.to_owned();
    let mock = mock("someone", move |_, exchange| {
        exchange.begin_events();
        exchange.chunk(stream.as_bytes());
        exchange.raw(b"0\r\n\r\n");
    });
    request.sampling = request.sampling.top_k(0).min_p(0.0).logprobs(true).top_logprobs(2);
    let (mut tokens, mut usage) = (Vec::new(), None);
    for event in connect(&mock).submit(request).unwrap() {
        match event {
            Event::Token(token) => tokens.push((token.text, token.logprob.unwrap(), token.top_logprobs)),
            Event::Finished(finished) => {
                finished.reason.into_result().unwrap();
                usage = Some(finished.usage);
            }
            other => panic!("{other:?}"),
        }
    }
    (tokens, usage.unwrap())
}

fn texts(tokens: &[Scored]) -> Vec<&str> {
    tokens.iter().map(|(text, ..)| text.as_str()).collect()
}

/// llama-server (of llama-cpp-python 0.3.36) writes the entries of conversations on `/v1/completions` too.
#[test]
fn llama_servers_log_probabilities_of_completions() {
    let stream = include_str!("recorded/llama-server-completions.txt");
    let (tokens, usage) = recorded(stream, Request::text("The café").max_tokens(4));
    assert_eq!(texts(&tokens), ["\n", "\n", "The", " story"]);
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (18, 4));
    let (_, logprob, top) = &tokens[2];
    assert_eq!((*logprob, top.len()), (-1.271_890_8, 2));
    let second = (top[1].id, top[1].text.as_deref(), top[1].logprob);
    assert_eq!(second, (Some(788), Some("In"), -3.233_991_6));
}

/// The log-probability is that of the token that completes the character.
#[test]
fn llama_servers_log_probabilities_of_conversations() {
    let (tokens, usage) = recorded(include_str!("recorded/llama-server-chat.txt"), chat());
    assert_eq!(texts(&tokens), ["🦜", "🐧", "🐧"]);
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (45, 10));
    let (_, logprob, top) = &tokens[0];
    assert_eq!((*logprob, top[0].id, top[1].id), (-0.032_875_285, Some(246), Some(222)));
}

#[test]
fn vllms_log_probabilities_of_completions() {
    let stream = include_str!("recorded/vllm-completions.txt");
    let (tokens, usage) = recorded(stream, Request::text("The story").max_tokens(4));
    assert_eq!(texts(&tokens), [" frog", "'s", " own", " frog"]);
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 4));
    let (_, logprob, top) = &tokens[1];
    assert_eq!((*logprob, top[1].text.as_deref(), top[1].logprob), (-1.110_372_9, Some("’"), -2.729_223_7));
}

/// vLLM 0.32 with `stream_interval` 3: events of three tokens, of which one completes a character.
#[test]
fn vllms_log_probabilities_of_conversations() {
    let (tokens, usage) = recorded(include_str!("recorded/vllm-chat.txt"), chat());
    assert_eq!((texts(&tokens).concat(), usage.completion_tokens), ("🦜🐧🐧🐧".to_owned(), 14));
    let complete: Vec<_> = tokens.iter().filter(|(text, ..)| !text.is_empty()).collect();
    let logprobs: Vec<f32> = complete.iter().map(|(_, logprob, _)| *logprob).collect();
    assert_eq!(logprobs, [-0.019_214_103, -0.004_965_829_7, -0.015_037_863_5, -0.010_856_845]);
    assert_eq!(complete[0].2[1].text.as_deref(), Some("🦄"));
}

#[test]
fn an_event_with_several_tokens_is_divided() {
    let entry = |text: &str, logprob: f64| json!({ "token": text, "logprob": logprob, "top_logprobs": [] });
    let event = |content: &str, entries: &Value| json!({ "choices": [{ "delta": { "content": content }, "logprobs": { "content": entries } }] });
    let entries = json!([entry("a", -1.0), entry(" b", -2.0)]);
    let lists = json!({ "tokens": ["a", " b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": null });
    let lists = json!({ "choices": [{ "text": "a b", "logprobs": lists }] });
    for (event, request, expected) in [
        (event("a b", &entries), chat(), vec![("a", -1.0), (" b", -2.0)]),
        (lists, Request::text("A").max_tokens(4), vec![("a", -1.0), (" b", -2.0)]),
        // The texts of the tokens are not that of the event.
        (event("ab", &entries), chat(), vec![("ab", -1.0)]),
    ] {
        let end = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
        let (tokens, _) = recorded(&format!("data: {event}\n\ndata: {end}\n\ndata: [DONE]\n\n"), request);
        let found: Vec<_> = tokens.iter().map(|(text, logprob, _)| (text.as_str(), *logprob)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn what_the_engine_cannot_render_is_refused() {
    let mock = mock("someone", |_, exchange| deltas(exchange, &[], "stop"));
    let engine = connect(&mock);
    let mut cases = Vec::new();
    let mut push = |name: &'static str, change: &dyn Fn(&mut Request)| {
        let mut request = chat();
        change(&mut request);
        cases.push((name, request));
    };
    push("documents", &|it| it.chat.documents = vec![Json::from("x")]);
    push("chat_template_kwargs", &|it| _ = it.chat.variables.insert("a".into(), Json::from("b")));
    push("continue_final_message", &|it| it.chat.continue_final_message = true);
    push("add_generation_prompt", &|it| it.chat.add_generation_prompt = false);
    push("enable_thinking", &|it| it.reasoning.enabled = Some(true));
    push("top_k", &|it| it.sampling.top_k = Some(7));
    push("min_tokens", &|it| it.sampling.min_tokens = 7);
    push("ignore_eos", &|it| it.ignore_eos = true);
    push("stop_tokens", &|it| it.stop_tokens = vec![7]);
    push("cache_salt", &|it| it.cache_salt = Some("s".into()));
    push("constraint", &|it| it.constraint = Some(Constraint::regex("a+")));
    for (name, request) in cases {
        match engine.submit(request) {
            Err(SubmitError::Unsupported { operation, .. }) => assert_eq!(operation, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let ids = engine.submit(Request::tokens([1, 2]).max_tokens(3)).unwrap_err();
    assert!(matches!(ids, SubmitError::Unsupported { operation: "prompt", .. }));
    assert!(mock.received().is_empty());
    let lenient = RemoteOptions::new(&mock.url).ignore_cache_salt(true);
    RemoteEngine::connect(lenient).unwrap().submit(chat().cache_salt("s")).unwrap().complete().unwrap();
}

#[test]
fn grammars_in_each_engines_form() {
    let schema = r#"{"type": "object"}"#;
    let sent_by = |owner: &'static str, dialect: Dialect, constraint: Constraint| {
        let mock = mock(owner, |request, exchange| match request.path.as_str() {
            "/generate" => {
                exchange.begin_events();
                let meta = json!({ "finish_reason": { "type": "stop" }, "completion_tokens": 0 });
                exchange.event(&json!({ "text": "", "output_ids": [], "meta_info": meta }));
                exchange.done();
            }
            "/completion" => {
                exchange.begin_events();
                exchange.event(&json!({ "content": "", "stop": true, "stop_type": "eos" }));
                exchange.raw(b"0\r\n\r\n");
            }
            _ => {
                exchange.begin_events();
                exchange.event(&json!({ "choices": [{ "text": "", "finish_reason": "stop" }] }));
                exchange.done();
            }
        });
        let mut request = Request::text("a").max_tokens(4).constraint(constraint);
        request.sampling = SamplingParams::greedy();
        let engine = RemoteEngine::connect(RemoteOptions::new(&mock.url).dialect(dialect)).unwrap();
        engine.submit(request).unwrap().complete().unwrap();
        mock.received()[0].body.clone()
    };
    let sent = |owner: &'static str, constraint: Constraint| sent_by(owner, Dialect::Auto, constraint);
    for owner in ["vllm", "sglang", "tensorrt_llm", "exsa"] {
        let body = sent_by(owner, Dialect::OpenAi, Constraint::json_schema(schema));
        assert_eq!(body["response_format"]["json_schema"]["schema"], json!({ "type": "object" }), "{owner}");
        let body = sent_by(owner, Dialect::OpenAi, Constraint::json_object());
        assert_eq!(body["response_format"], json!({ "type": "json_object" }), "{owner}");
    }
    // It ignores `response_format` on this route.
    for constraint in [Constraint::json_schema(schema), Constraint::json_object()] {
        let body = sent_by("llamacpp", Dialect::OpenAi, constraint);
        assert_eq!(
            (&body["json_schema"], &body["response_format"]),
            (&json!({ "type": "object" }), &Value::Null)
        );
    }
    let body = sent("vllm", Constraint::json_schema(schema));
    assert_eq!(
        body["structured_outputs"],
        json!({ "json": { "type": "object" }, "disable_any_whitespace": true })
    );
    let body = sent("vllm", Constraint::choice(["a", "b"]));
    assert_eq!(body["structured_outputs"], json!({ "choice": ["a", "b"] }));
    let body = sent("tensorrt_llm", Constraint::gbnf("root ::= \"a\""));
    assert_eq!(body["response_format"], json!({ "type": "ebnf", "ebnf": "root ::= \"a\"" }));
    let body = sent("sglang", Constraint::json_schema(schema));
    assert_eq!(body["sampling_params"]["json_schema"], json!("{\"type\":\"object\"}"));
    let body = sent("llamacpp", Constraint::gbnf("root ::= \"a\""));
    assert_eq!(body["grammar"], "root ::= \"a\"");
    let body = sent("llamacpp", Constraint::json_schema(schema));
    assert_eq!(body["json_schema"], json!({ "type": "object" }));
}

#[test]
fn a_grammar_that_may_be_ignored_is_refused() {
    let mock = mock("someone", |request, exchange| {
        assert_eq!(request.path, "/v1/chat/completions");
        deltas(exchange, &[json!({ "content": "{}" })], "stop");
    });
    let engine = connect(&mock);
    assert!(!engine.capabilities().text_constraints);
    let mut text = Request::text("a").max_tokens(4).constraint(Constraint::json_object());
    text.sampling = SamplingParams::greedy();
    match engine.submit(text) {
        Err(SubmitError::Unsupported { operation: "constraint", reason }) => {
            assert!(reason.contains("on /v1/completions; send a conversation"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // Conversations have `response_format` by OpenAI's own documentation.
    let answer = engine.submit(chat().constraint(Constraint::json_object())).unwrap().complete().unwrap();
    assert_eq!(answer.text, "{}");
    assert_eq!(mock.received()[0].body["response_format"], json!({ "type": "json_object" }));
}

#[test]
fn embeddings_keep_their_order_and_have_length_one() {
    let mock = mock("vllm", |request, exchange| {
        assert_eq!(request.path, "/v1/embeddings");
        let item = |index: usize, x: f64| json!({ "index": index, "embedding": [x, 0.0, x] });
        let data = json!([item(1, 2.0), item(0, -4.0)]);
        exchange.json(200, &json!({ "data": data, "usage": { "prompt_tokens": 6 } }));
    });
    let engine = connect(&mock);
    let output = engine.embed(EmbedRequest::texts(["a", "b"]).dimensions(2)).unwrap().wait().unwrap();
    assert_eq!(output.usage.prompt_tokens, 6);
    assert_eq!(output.into_vectors().unwrap(), [[-1.0, 0.0], [1.0, 0.0]]);
    assert_eq!(
        mock.received()[0].body,
        json!({ "model": "m", "input": ["a", "b"], "encoding_format": "float" })
    );
    let wide = engine.embed(EmbedRequest::texts(["a", "b"]).dimensions(9)).unwrap().wait();
    assert_eq!(wide.unwrap_err(), EmbedError::Dimensions { asked: 9, width: 3 });
    // One result for two texts, and texts that are refused.
    let few = engine.embed(EmbedRequest::texts(["a"])).unwrap().wait().unwrap_err();
    assert!(few.to_string().contains("2 results for 1"), "{few}");
    assert!(matches!(engine.embed(EmbedRequest::texts(["a", ""])), Err(SubmitError::EmptyText { index: 1 })));
    assert!(engine.embed(EmbedRequest::texts(["a"]).normalize(false)).is_err());
    assert_eq!(engine.stats().texts_embedded, 2);
}

#[test]
fn scores_of_documents_in_both_forms() {
    for (owner, bare) in [("vllm", false), ("sglang", true)] {
        let mock = mock(owner, move |request, exchange| {
            assert_eq!(request.body, json!({ "model": "m", "query": "q", "documents": ["a", "b"] }));
            let name = if bare { "score" } else { "relevance_score" };
            let results = json!([{ "index": 1, name: 0.9 }, { "index": 0, name: 0.1 }]);
            exchange.json(200, &if bare { results } else { json!({ "results": results }) });
        });
        let output = connect(&mock).rerank(RerankRequest::new("q", ["a", "b"])).unwrap().wait().unwrap();
        assert_eq!(output.ranking(), [(1, 0.9), (0, 0.1)]);
    }
    let mock = mock("tensorrt_llm", |_, _| {});
    let refused = connect(&mock).rerank(RerankRequest::new("q", ["a"]));
    assert!(matches!(refused, Err(SubmitError::Unsupported { operation: "rerank", .. })));
}

#[test]
fn embeddings_end_by_deadline_and_by_drop() {
    let (closed, when) = std::sync::mpsc::channel();
    let closed = std::sync::Mutex::new(closed);
    let mock = mock("vllm", move |_, exchange| {
        exchange.wait_for_close();
        closed.lock().unwrap().send(()).unwrap();
    });
    let engine = connect(&mock);
    let limited = EmbedRequest::texts(["a"]).timeout(Duration::from_millis(100));
    assert_eq!(engine.embed(limited).unwrap().wait().unwrap_err(), EmbedError::Deadline);
    when.recv_timeout(Duration::from_secs(20)).unwrap();
    let dropped = engine.embed(EmbedRequest::texts(["a"])).unwrap();
    while mock.received().len() < 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(dropped);
    when.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn dialects_are_detected() {
    for (owner, dialect) in [
        ("vllm", Dialect::Vllm),
        ("sglang", Dialect::Sglang),
        ("tensorrt_llm", Dialect::TensorRtLlm),
        ("llamacpp", Dialect::LlamaServer),
        ("someone", Dialect::OpenAi),
    ] {
        let mock = mock(owner, |_, _| {});
        assert_eq!(connect(&mock).capabilities().dialect, dialect);
    }
}
