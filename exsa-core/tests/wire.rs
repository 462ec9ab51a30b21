//! JSON of requests, options, events and errors: names, forms, and round trips.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::Pooling;
use exsa_core::chat::{ChatOptions, Json, ToolCall};
use exsa_core::constraint::{Constraint, Grammar, GrammarStart, StructuralTag, StructuralTags, Trigger};
use exsa_core::embed::{EmbedInput, Truncate};
use exsa_core::error::StepError;
use exsa_core::queue::FairOptions;
use exsa_core::sampler::{Mirostat, SamplerState, TransformKind};
use exsa_core::stream::{
    AnswerFinished, AnswerLogprob, Event, Finished, MalformedToolCall, PromptLogprobs, PromptToken, Token,
    ToolCallDelta,
};
use exsa_core::tools::{
    ReasoningEffort, ReasoningFormat, ReasoningOptions, ToolChoice, ToolFormat, ToolOptions,
};
use exsa_core::{
    EmbedRequest, EngineOptions, ErrorReport, FinishReason, Message, Mode, Overflow, PrefixCacheOptions,
    Priority, Prompt, Request, RequestError, RerankRequest, Resume, SamplingParams, SubmitError, Usage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json, to_value};
use std::fmt::Debug;
use std::time::Duration;

fn there_and_back<T: Serialize + DeserializeOwned + Debug>(value: &T) -> Value {
    // The text itself, for a `Value` forgets the order of fields, which tools and arguments keep.
    let json = serde_json::to_string(value).unwrap();
    let back: T = serde_json::from_str(&json).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"), "{json}");
    serde_json::from_str(&json).unwrap()
}

#[test]
fn a_request_has_the_names_of_openai_and_llama_cpp() {
    let mut sampling = SamplingParams::greedy();
    sampling.temperature = 0.5;
    sampling.repetition_penalty = 1.25;
    sampling.penalty_window = None;
    sampling.logit_bias = vec![(5, -1.5), (7, f32::NEG_INFINITY)];
    sampling.logprobs = true;
    let request = Request::text("Once")
        .sampling(sampling)
        .seed((1 << 53) - 1)
        .max_tokens(9)
        .stop("a")
        .stop("b")
        .stop_token(3)
        .ignore_eos(true)
        .timeout(Duration::from_millis(1500))
        .priority(Priority::Interactive)
        .user_id("u")
        .cache_salt("s")
        .model("m")
        .n(2)
        .best_of(5)
        .prompt_logprobs(3)
        .adapter("alice", 0.5);
    let json = there_and_back(&request);
    assert_eq!(json["lora"], json!([{"name": "alice", "scale": 0.5}]));
    let brief: Request = from_value(json!({"prompt": "a", "lora": [{"name": "alice"}]})).unwrap();
    assert_eq!(brief.adapters[0].scale, 1.0);
    assert!(from_value::<Request>(json!({"prompt": "a", "lora": [{"id": 0, "scale": 1}]})).is_err());
    let expected = json!({
        "model": "m", "prompt": "Once", "temperature": 0.5, "repeat_penalty": 1.25, "repeat_last_n": -1,
        "logit_bias": {"5": -1.5, "7": false}, "logprobs": true, "seed": 9007199254740991u64, "max_tokens": 9,
        "stop": ["a", "b"], "stop_token_ids": [3], "ignore_eos": true, "timeout": 1.5, "priority": "interactive",
        "user": "u", "cache_salt": "s", "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_k": 40,
        "n": 2, "best_of": 5, "prompt_logprobs": 3,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&json[name], value, "{name}");
    }
    there_and_back(&Request::tokens([1, 2, 3]));
}

#[test]
fn sampling_has_the_names_of_llama_cpp() {
    let json = json!({
        "prompt": "x", "samplers": ["temperature", "min_p", "typ_p", "host", "adaptive_p"], "penalize_prompt": false,
        "typical_p": 0.5, "top_n_sigma": 1.5, "xtc_probability": 0.25, "xtc_threshold": 0.125, "dynatemp_range": 0.5,
        "dynatemp_exponent": 2.0, "mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.25, "adaptive_decay": 0.5,
        "adaptive_target": -1.0, "dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": 3,
        "dry_penalty_last_n": -1, "dry_sequence_breakers": ["a", "b"], "min_tokens": 7, "seed": 1,
    });
    let request: Request = from_value(json.clone()).unwrap();
    let expected = SamplingParams::default()
        .order([
            TransformKind::Temperature,
            TransformKind::MinP,
            TransformKind::TypicalP,
            TransformKind::Host,
            TransformKind::AdaptiveP,
        ])
        .penalize_prompt(false)
        .typical_p(0.5)
        .top_n_sigma(1.5)
        .xtc_probability(0.25)
        .xtc_threshold(0.125)
        .dynatemp_range(0.5)
        .dynatemp_exponent(2.0)
        .mirostat(Mirostat::V2)
        .mirostat_tau(3.0)
        .mirostat_eta(0.25)
        .adaptive_decay(0.5)
        .dry_multiplier(0.5)
        .dry_base(1.5)
        .dry_allowed_length(3)
        .dry_window(None)
        .dry_sequence_breakers(["a", "b"])
        .min_tokens(7)
        .seed(1);
    assert_eq!(request.sampling, expected);
    let back = there_and_back(&request);
    for (name, value) in json.as_object().unwrap() {
        assert_eq!(&back[name], value, "{name}");
    }

    let defaults = there_and_back(&Request::text("x"));
    let order = ["penalties", "dry", "host", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc"];
    let order = [&order[..], &["temperature", "adaptive_p"]].concat();
    assert_eq!(defaults["samplers"], json!(order));
    assert_eq!((&defaults["mirostat"], &defaults["adaptive_target"]), (&json!(0), &json!(-1.0)));
    let names = json!({"prompt": "x", "samplers": ["top-k", "nucleus", "temp"], "adaptive_target": 0.5});
    let request: Request = from_value(names).unwrap();
    let order = [TransformKind::TopK, TransformKind::TopP, TransformKind::Temperature];
    assert_eq!((request.sampling.order, request.sampling.adaptive_target), (order.to_vec(), Some(0.5)));
    for bad in [
        json!({"prompt": "x", "samplers": ["infill"]}),
        json!({"prompt": "x", "mirostat": 3}),
        json!({"prompt": "x", "dry_penalty_last_n": -2}),
        json!({"prompt": "x", "min_tokens": -1}),
    ] {
        assert!(from_value::<Request>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn overflow_has_the_names_of_openai_and_llama_cpp() {
    let shift = |keep| Overflow::Shift { keep };
    let names = ["truncation", "context_shift", "n_keep"];
    for (fields, overflow, written) in [
        (json!({}), Overflow::Refuse, json!({})),
        (json!({"truncation": "disabled", "n_keep": 3}), Overflow::Refuse, json!({})),
        (json!({"truncation": null, "context_shift": false}), Overflow::Refuse, json!({})),
        (json!({"truncation": "auto"}), Overflow::DropMessages, json!({"truncation": "auto"})),
        (json!({"context_shift": true}), shift(0), json!({"context_shift": true, "n_keep": 0})),
        (json!({"context_shift": true, "n_keep": 9}), shift(9), json!({"context_shift": true, "n_keep": 9})),
        (
            json!({"context_shift": true, "n_keep": -1}),
            shift(usize::MAX),
            json!({"context_shift": true, "n_keep": -1}),
        ),
    ] {
        let mut json = fields.clone();
        json["prompt"] = json!("x");
        let request: Request = from_value(json).unwrap();
        assert_eq!(request.overflow, overflow, "{fields}");
        let json = there_and_back(&request);
        let mut all = json!({});
        names.iter().filter(|name| !json[**name].is_null()).for_each(|name| all[*name] = json[*name].clone());
        assert_eq!(all, written);
    }
    for bad in [
        json!({"prompt": "x", "truncation": "left"}),
        json!({"prompt": "x", "context_shift": true, "n_keep": -2}),
        json!({"prompt": "x", "context_shift": true, "truncation": "auto"}),
    ] {
        assert!(from_value::<Request>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn a_samplers_state_survives_json() {
    let state: SamplerState = from_value(json!([[0x3f00_0000, 0x7fc0_0000]])).unwrap();
    let finished = Finished::new(FinishReason::Cancelled).sampler_state(state.clone());
    assert_eq!(there_and_back(&finished)["sampler_state"], json!([[0x3f00_0000, 0x7fc0_0000]]));
    let resume = Resume::new([2, 3]).sampler_state(state.clone());
    let json = there_and_back(&Request::tokens([1]).resume(resume));
    assert_eq!(json["resume"]["sampler_state"], to_value(&state).unwrap());
    let without = there_and_back(&Finished::new(FinishReason::Cancelled));
    assert!(without.get("sampler_state").is_none());
    assert!(from_value::<SamplerState>(json!("x")).is_err());
}

#[test]
fn banned_strings_are_a_text_or_a_list() {
    let request: Request = from_value(json!({"prompt": "x", "banned_strings": "a"})).unwrap();
    assert_eq!((request.banned_strings, request.banned_strings_ignore_case), (vec!["a".to_owned()], true));
    let request = Request::text("x").banned_string("a").banned_string("b").banned_strings_ignore_case(false);
    let json = there_and_back(&request);
    let fields = (&json["banned_strings"], &json["banned_strings_ignore_case"]);
    assert_eq!(fields, (&json!(["a", "b"]), &json!(false)));
    assert_eq!(there_and_back(&FinishReason::BannedString(2)), json!({"type": "banned_string", "value": 2}));
    let usage = Usage::new(1, 2).dropped_messages(3).shifted_tokens(4);
    let json = there_and_back(&usage);
    assert_eq!((&json["dropped_messages"], &json["shifted_tokens"]), (&json!(3), &json!(4)));
    let plain = there_and_back(&Usage::new(1, 2));
    assert!(plain.get("dropped_messages").is_none() && plain.get("shifted_tokens").is_none());
}

#[test]
fn a_request_of_few_words_has_the_defaults() {
    let request: Request = from_value(json!({"prompt": "x", "stop": "end", "min_p": 0.25})).unwrap();
    let mut expected = Request::text("x").stop("end");
    expected.sampling.min_p = 0.25;
    assert_eq!(format!("{request:?}"), format!("{expected:?}"));
    let request: Request = from_value(json!({"prompt": [4, 5], "stop": null, "logit_bias": null})).unwrap();
    assert!(matches!(request.prompt, Prompt::Tokens(tokens) if tokens == [4, 5]));
    let nulls = json!({"prompt": "x", "n": null, "best_of": null, "prompt_logprobs": null});
    let request: Request = from_value(nulls).unwrap();
    assert_eq!((request.n, request.best_of, request.prompt_logprobs), (1, None, None));
    let json = to_value(Request::text("x")).unwrap();
    assert!(json.get("best_of").is_none() && json.get("prompt_logprobs").is_none());
    for bad in [
        json!({"stop": "x"}),
        json!({"prompt": 5}),
        json!({"prompt": "x", "timeout": -1.0}),
        json!({"prompt": "x", "logit_bias": {"no": 1.0}}),
        json!({"prompt": "x", "logit_bias": {"1": true}}),
        json!({"prompt": "x", "repeat_last_n": -2}),
        json!({"prompt": "x", "priority": "urgent"}),
        json!({"prompt": "x", "n": -1}),
        json!({"prompt": "x", "n": 1.5}),
        json!({"prompt": "x", "best_of": "2"}),
        json!({"prompt": "x", "prompt_logprobs": -1}),
    ] {
        assert!(from_value::<Request>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn chat_requests_of_the_openai_api_are_read() {
    // As in OpenAI's guide to function calling, with fields that the core does not know.
    let tool = r#"{
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get current temperature for a given location.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "description": "City and country"}},
                "required": ["location"],
                "additionalProperties": false
            },
            "strict": true
        }
    }"#;
    let text = format!(
        r#"{{
            "model": "gpt-4.1",
            "messages": [
                {{"role": "developer", "content": "You are a helpful assistant."}},
                {{"role": "user", "content": "What is the weather like in Paris today?"}},
                {{"role": "assistant", "content": null, "tool_calls": [{{
                    "id": "call_12345xyz", "type": "function",
                    "function": {{"name": "get_weather", "arguments": "{{\"location\":\"Paris, France\"}}"}}
                }}]}},
                {{"role": "tool", "tool_call_id": "call_12345xyz", "content": "14"}}
            ],
            "tools": [{tool}],
            "tool_choice": "auto", "stream": true, "stream_options": {{"include_usage": true}}, "n": 1,
            "max_completion_tokens": 100, "temperature": 0.5, "top_p": 0.75, "seed": 7, "stop": ["a", "b"],
            "chat_template_kwargs": {{"enable_thinking": false}}, "user": "user-123456"
        }}"#
    );
    let request: Request = serde_json::from_str(&text).unwrap();
    let call = ToolCall::new("get_weather", r#"{"location":"Paris, France"}"#).id("call_12345xyz");
    let messages = vec![
        Message::new("developer", "You are a helpful assistant."),
        Message::user("What is the weather like in Paris today?"),
        Message::assistant("").parts([]).tool_call(call),
        Message::tool("call_12345xyz", "14"),
    ];
    let mut expected = Request::chat(messages)
        .model("gpt-4.1")
        .chat_options(
            ChatOptions::default().tools([tool.parse::<Json>().unwrap()]).variable("enable_thinking", false),
        )
        .max_tokens(100)
        .temperature(0.5)
        .seed(7)
        .stop("a")
        .stop("b")
        .user_id("user-123456");
    expected.sampling.top_p = 0.75;
    assert_eq!(format!("{request:?}"), format!("{expected:?}"));
    let json = there_and_back(&request);
    assert_eq!(
        json["messages"][3],
        json!({"role": "tool", "content": "14", "tool_call_id": "call_12345xyz"})
    );
    assert_eq!(json["tools"][0]["function"]["name"], "get_weather");
    assert_eq!(json["chat_template_kwargs"], json!({"enable_thinking": false}));
    assert!(json.get("prompt").is_none());
    assert!(there_and_back(&Request::text("x")).get("messages").is_none());
    there_and_back(&Request::chat([]));
}

#[test]
fn a_request_has_either_a_prompt_or_messages() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let request: Request = from_value(json!({"messages": messages, "prompt": null, "tools": null})).unwrap();
    assert!(matches!(request.prompt, Prompt::Chat(messages) if messages == [Message::user("Hi")]));
    for (bad, words) in [
        (json!({"messages": messages, "prompt": "Hi"}), "both prompt and messages"),
        (json!({"model": "m"}), "neither prompt nor messages"),
        (json!({"messages": null}), "neither prompt nor messages"),
        (json!({"prompt": ["a", "b"]}), "a text or a list of token ids"),
        (json!({"messages": [{"content": "Hi"}]}), "role"),
        (json!({"messages": "Hi"}), "expected a sequence"),
        (json!({"prompt": "x", "tools": {}}), "expected a sequence"),
    ] {
        let error = from_value::<Request>(bad.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{bad}: {error}");
    }
}

#[test]
fn embedding_requests_of_the_openai_api_are_read() {
    // As in OpenAI's reference.
    let text = r#"{
        "input": "The food was delicious and the waiter...",
        "model": "text-embedding-ada-002",
        "encoding_format": "float"
    }"#;
    let request: EmbedRequest = serde_json::from_str(text).unwrap();
    let expected =
        EmbedRequest::texts(["The food was delicious and the waiter..."]).model("text-embedding-ada-002");
    assert_eq!(request, expected);
    for (input, inputs) in [
        (json!("a"), vec![EmbedInput::from("a")]),
        (json!(["a", "b"]), vec!["a".into(), "b".into()]),
        (json!([1, 2]), vec![vec![1, 2].into()]),
        (json!([[1, 2], [3]]), vec![vec![1, 2].into(), vec![3].into()]),
        (json!([]), vec![]),
        (json!([[]]), vec![vec![].into()]),
    ] {
        let request: EmbedRequest = from_value(json!({"input": input})).unwrap();
        assert_eq!(request, EmbedRequest::new(inputs));
    }
    let request = EmbedRequest::new(vec![EmbedInput::from("a"), vec![1, 2].into()])
        .model("m")
        .normalize(false)
        .dimensions(256)
        .truncate(Truncate::End)
        .priority(Priority::Batch)
        .timeout(Duration::from_millis(1500))
        .user_id("u");
    assert_eq!(
        there_and_back(&request),
        json!({"model": "m", "input": ["a", [1, 2]], "normalize": false, "dimensions": 256, "truncate": "end",
            "priority": "batch", "timeout": 1.5, "user": "u"})
    );
    there_and_back(&EmbedRequest::texts(["a"]));
    for (name, truncate) in [("NONE", Truncate::Refuse), ("START", Truncate::Start), ("end", Truncate::End)] {
        let request: EmbedRequest = from_value(json!({"input": "a", "truncate": name})).unwrap();
        assert_eq!(request, EmbedRequest::texts(["a"]).truncate(truncate));
        there_and_back(&request);
    }
    for (bad, words) in [
        (json!({"model": "m"}), "missing field `input`"),
        (json!({"input": 7}), "a list of lists of token ids"),
        (json!({"input": [1.5]}), "a list of lists of token ids"),
        (json!({"input": [-1]}), "a list of lists of token ids"),
        (json!({"input": "a", "dimensions": -1}), "invalid value"),
        (json!({"input": "a", "truncate": "middle"}), "middle"),
    ] {
        let error = from_value::<EmbedRequest>(bad.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{bad}: {error}");
    }
}

#[test]
fn rerank_requests_of_the_jina_api_are_read() {
    // The form of Jina's and vLLM's documentation.
    let text = r#"{
        "model": "BAAI/bge-reranker-base",
        "query": "What is the capital of France?",
        "documents": ["The capital of Brazil is Brasilia.", {"text": "The capital of France is Paris."}],
        "top_n": 1,
        "return_documents": false
    }"#;
    let request: RerankRequest = serde_json::from_str(text).unwrap();
    let documents = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."];
    let expected =
        RerankRequest::new("What is the capital of France?", documents).model("BAAI/bge-reranker-base");
    assert_eq!(request, expected);
    let json = there_and_back(&expected.truncate(Truncate::End).timeout(Duration::from_secs(2)).user_id("u"));
    assert_eq!((&json["documents"], &json["truncate"]), (&json!(documents), &json!("end")));
    let request: RerankRequest =
        from_value(json!({"query": "q", "documents": [], "truncate": "NONE"})).unwrap();
    assert_eq!(request, RerankRequest::new("q", [""; 0]));
    for (bad, words) in [
        (json!({"documents": ["a"]}), "missing field `query`"),
        (json!({"query": "q"}), "missing field `documents`"),
        (json!({"query": "q", "documents": ["a", 7]}), "an object with a text"),
        (json!({"query": "q", "documents": [{"image": "u"}]}), "an object with a text"),
    ] {
        let error = from_value::<RerankRequest>(bad.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{bad}: {error}");
    }
}

#[test]
fn options_go_there_and_back_and_know_their_names() {
    let mut options = EngineOptions::default()
        .mode(Mode::Latency)
        .user_queue_max(3)
        .inter_token_target(Duration::from_millis(50))
        .prefix_cache(PrefixCacheOptions::default().tokens_max(100))
        .fair(FairOptions::default().ageing(Duration::from_secs(2)));
    options.session.pooling = Some(Pooling::Mean);
    options.session.kv_tokens_max = Some(1 << 20);
    let json = there_and_back(&options);
    assert_eq!((&json["mode"], &json["inter_token_target"]), (&json!("latency"), &json!(0.05)));
    assert!(json["session"].get("interrupt").is_none());
    let few: EngineOptions = from_value(json!({"queue_max": 7, "session": {"sequences_max": 2}})).unwrap();
    let mut expected = EngineOptions::default().queue_max(7);
    expected.session.sequences_max = 2;
    assert_eq!(format!("{few:?}"), format!("{expected:?}"));
    assert!(from_value::<EngineOptions>(json!({"queue_mx": 7})).is_err(), "a misspelt option is an error");
}

#[test]
fn events_go_there_and_back() {
    let usage = Usage::new(3, 4).cached_tokens(2).time_to_first_token(Duration::from_nanos(123_456_789));
    for event in [
        Event::Token(Token::new(7, "a").logprob(-0.5).top_logprobs([(7, -0.5), (8, -1.0)])),
        Event::Reasoning(Token::new(None, "b").index(1)),
        Event::ToolCall(ToolCallDelta::new(1).id("i").name("n").arguments("{")),
        Event::AnswerFinished(AnswerFinished::new(1, FinishReason::StopToken(9)).seed(4)),
        Event::Finished(Finished::new(FinishReason::StopString(1)).text("x").usage(usage).seed(u64::MAX)),
        Event::Finished(Finished::new(FinishReason::Failed(RequestError::Panicked("p".into())))),
        Event::AnswerFinished(
            AnswerFinished::new(2, FinishReason::MaxTokens).logprob(AnswerLogprob::new(-1.5, 3)),
        ),
        Event::Finished(Finished::new(FinishReason::MaxTokens).logprob(AnswerLogprob::new(-0.25, 1))),
        Event::Prompt(PromptLogprobs::new(0, [PromptToken::new(1, None)])),
        Event::Prompt(PromptLogprobs::new(1, [PromptToken::new(2, -0.5).top_logprobs([(2, -0.5)])])),
    ] {
        there_and_back(&event);
    }
    let part = to_value(Event::Prompt(PromptLogprobs::new(7, [PromptToken::new(5, -0.5)]))).unwrap();
    let token = json!({"id": 5, "logprob": -0.5, "top_logprobs": []});
    assert_eq!(part, json!({"type": "prompt", "start": 7, "tokens": [token]}));
    let end = to_value(Event::Finished(Finished::new(FinishReason::MaxTokens))).unwrap();
    assert_eq!((&end["type"], &end["reason"]), (&json!("finished"), &json!({"type": "max_tokens"})));
}

#[test]
fn errors_are_reports() {
    let full = SubmitError::QueueFull {
        waiting: 2,
        limit: 2,
        scope: exsa_core::generator::QueueScope::User,
        priority: Priority::Batch,
        class_depth: 1,
        ahead: 2,
        estimated_wait: Some(Duration::from_millis(1500)),
    };
    let json = to_value(&full).unwrap();
    assert_eq!(json["type"], "queue_full");
    assert_eq!(json["message"], full.to_string());
    assert_eq!(json["retry_after"], 1.5);
    let json = to_value(SubmitError::NoTokens).unwrap();
    assert_eq!(json, json!({"type": "no_tokens", "message": SubmitError::NoTokens.to_string()}));
    there_and_back(&RequestError::EngineStopped);
    there_and_back(&RequestError::Generator("lost".into()));
    let step = RequestError::Step(StepError::Interrupted);
    let back: RequestError = from_value(to_value(&step).unwrap()).unwrap();
    assert_eq!(back, RequestError::Generator(step.to_string()));
    let report = from_value::<ErrorReport>(to_value(&step).unwrap()).unwrap();
    assert_eq!(report, ErrorReport::new("step", step.to_string()));
}

#[test]
fn a_constraint_is_written_as_structured_outputs() {
    let schema = r#"{"type": "object", "properties": {"b": {"const": 1}, "a": {"enum": [0.5, "x"]}}}"#;
    let tags = StructuralTags::new(["<f"])
        .tag(StructuralTag::new("<f=a>", Grammar::JsonSchema(schema.into()), "</f>"))
        .tag(StructuralTag::new("<f=b>", Grammar::Choice(vec!["u".into()]), "</f>"))
        .at_least_one(true);
    for (constraint, name) in [
        (Constraint::json_object(), "json_object"),
        (Constraint::json_schema(schema).after_reasoning("</think>"), "json"),
        (Constraint::regex("a+"), "regex"),
        (Constraint::choice(["yes", "no"]).trigger(Trigger::text("A: ")), "choice"),
        (Constraint::lark("start: \"a\"").trigger(Trigger::token(7)), "lark"),
        (Constraint::gbnf("root ::= \"a\"").grammar_start(GrammarStart::TriggerEnd), "gbnf"),
        (Constraint::structural_tags(tags), "structural_tag"),
    ] {
        let json = there_and_back(&Request::text("x").constraint(constraint));
        assert!(json["structured_outputs"].get(name).is_some(), "{name}: {json}");
    }
}

#[test]
fn constraints_have_the_names_of_openai_vllm_and_llama_server() {
    let schema = json!({"type": "integer"});
    let of_schema = Some(Constraint::json_schema(r#"{"type": "integer"}"#));
    let tag = StructuralTag::new("<a>", Grammar::JsonSchema(r#"{"type": "integer"}"#.into()), "</a>");
    let of_tags = Some(Constraint::structural_tags(StructuralTags::new(["<a"]).tag(tag)));
    let old_tags =
        json!({"structures": [{"begin": "<a>", "schema": schema, "end": "</a>"}], "triggers": ["<a"]});
    let new_tags = json!({"type": "structural_tag", "format": {
        "type": "triggered_tags", "triggers": ["<a"],
        "tags": [{"type": "tag", "begin": "<a>", "end": "</a>",
            "content": {"type": "json_schema", "json_schema": schema}}],
    }});
    let mut response_format = old_tags.clone();
    response_format["type"] = "structural_tag".into();
    for (fields, expected) in [
        (json!({}), None),
        (json!({"response_format": null}), None),
        (json!({"response_format": {"type": "text"}}), None),
        (json!({"response_format": {"type": "json_object"}}), Some(Constraint::json_object())),
        (json!({"response_format": {"type": "json_object", "schema": schema}}), of_schema.clone()),
        (
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "strict": true, "schema": schema}}}),
            of_schema.clone(),
        ),
        (json!({"response_format": response_format}), of_tags.clone()),
        (json!({"structured_outputs": {"json": schema}}), of_schema.clone()),
        (
            json!({"structured_outputs": {"json": schema.to_string()}}),
            Some(Constraint::json_schema(schema.to_string())),
        ),
        (json!({"structured_outputs": {"choice": ["a"]}}), Some(Constraint::choice(["a"]))),
        (
            json!({"structured_outputs": {"grammar": "root ::= \"a\""}}),
            Some(Constraint::gbnf("root ::= \"a\"")),
        ),
        (json!({"structured_outputs": {"grammar": "start: \"a\""}}), Some(Constraint::lark("start: \"a\""))),
        (json!({"structured_outputs": {"structural_tag": new_tags}}), of_tags.clone()),
        (json!({"structured_outputs": {"structural_tag": old_tags.to_string()}}), of_tags),
        (json!({"guided_json": schema}), of_schema.clone()),
        (json!({"guided_regex": "a"}), Some(Constraint::regex("a"))),
        (json!({"guided_choice": ["a"]}), Some(Constraint::choice(["a"]))),
        (json!({"json_schema": schema}), of_schema),
        (json!({"grammar": "root ::= \"a\""}), Some(Constraint::gbnf("root ::= \"a\""))),
    ] {
        let mut request = fields.clone();
        request["prompt"] = "x".into();
        let request: Request = from_value(request).unwrap_or_else(|error| panic!("{fields}: {error}"));
        assert_eq!(request.constraint, expected, "{fields}");
    }
    for bad in [
        json!({"prompt": "x", "response_format": {"type": "json_schema"}}),
        json!({"prompt": "x", "response_format": {"type": "xml"}}),
        json!({"prompt": "x", "guided_regex": "a", "guided_choice": ["a"]}),
        json!({"prompt": "x", "structured_outputs": {"regex": "a", "choice": ["a"]}}),
        json!({"prompt": "x", "structured_outputs": {"structural_tag": {"structures": 1}}}),
    ] {
        assert!(from_value::<Request>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn tool_choice_and_reasoning_have_the_names_of_openai_and_vllm() {
    let named = ToolOptions::default().choice(ToolChoice::Named("f".into())).parallel(false);
    let reasoning = ReasoningOptions::default().enabled(false).effort(ReasoningEffort::Low).budget(64);
    let request = Request::text("x")
        .tools(named.format(ToolFormat::Qwen3Coder).strict(true))
        .reasoning(reasoning.format(ReasoningFormat::Think))
        .skip_special_tokens(false);
    let json = there_and_back(&request);
    let expected = json!({
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false,
        "strict_tool_calls": true, "tool_format": "qwen3_coder", "enable_thinking": false, "reasoning_effort": "low",
        "thinking_budget": 64, "reasoning_format": "think", "skip_special_tokens": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&json[name], value, "{name}");
    }
    let plain = there_and_back(&Request::text("x"));
    assert_eq!((&plain["tool_choice"], &plain["parallel_tool_calls"]), (&json!("auto"), &json!(true)));
    let choice = |value: Value| {
        let request = from_value::<Request>(json!({"prompt": "x", "tool_choice": value}));
        request.map(|request| request.tools.choice).map_err(|error| error.to_string())
    };
    assert_eq!(choice(json!(null)), Ok(ToolChoice::Auto));
    assert_eq!(choice(json!("none")), Ok(ToolChoice::None));
    assert_eq!(choice(json!("required")), Ok(ToolChoice::Required));
    assert_eq!(choice(json!({"type": "function", "name": "f"})), Ok(ToolChoice::Named("f".into())));
    assert!(choice(json!("always")).unwrap_err().contains("none, auto, required or a function"));
    assert!(choice(json!({"type": "custom", "name": "f"})).is_err());
    for format in ToolFormat::ALL {
        assert_eq!(to_value(format).unwrap(), json!(format.name()));
    }
}

#[test]
fn malformed_calls_are_events() {
    let event = Event::MalformedToolCall(MalformedToolCall::new("<tool_call>{").call(1));
    let expected = json!({"type": "malformed_tool_call", "index": 0, "call": 1, "text": "<tool_call>{"});
    assert_eq!(there_and_back(&event), expected);
}
