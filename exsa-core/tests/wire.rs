//! Requests, options, events and errors as JSON: names, forms, and the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::Pooling;
use exsa_core::error::StepError;
use exsa_core::queue::FairOptions;
use exsa_core::stream::{AnswerFinished, Event, Finished, Token, ToolCallDelta};
use exsa_core::{
    EngineOptions, ErrorReport, FinishReason, Mode, PrefixCacheOptions, Priority, Prompt, Request,
    RequestError, SamplingParams, SubmitError, Usage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json, to_value};
use std::fmt::Debug;
use std::time::Duration;

fn there_and_back<T: Serialize + DeserializeOwned + Debug>(value: &T) -> Value {
    let json = to_value(value).unwrap();
    let back: T = serde_json::from_str(&json.to_string()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"), "{json}");
    json
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
        .user("u")
        .cache_salt("s")
        .model("m");
    let json = there_and_back(&request);
    let expected = json!({
        "model": "m", "prompt": "Once", "temperature": 0.5, "repeat_penalty": 1.25, "repeat_last_n": -1,
        "logit_bias": {"5": -1.5, "7": false}, "logprobs": true, "seed": 9007199254740991u64, "max_tokens": 9,
        "stop": ["a", "b"], "stop_token_ids": [3], "ignore_eos": true, "timeout": 1.5, "priority": "interactive",
        "user": "u", "cache_salt": "s", "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_k": 40,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&json[name], value, "{name}");
    }
    there_and_back(&Request::tokens([1, 2, 3]));
}

#[test]
fn a_request_of_few_words_has_the_defaults() {
    let request: Request = from_value(json!({"prompt": "x", "stop": "end", "min_p": 0.25})).unwrap();
    let mut expected = Request::text("x").stop("end");
    expected.sampling.min_p = 0.25;
    assert_eq!(format!("{request:?}"), format!("{expected:?}"));
    let request: Request = from_value(json!({"prompt": [4, 5], "stop": null, "logit_bias": null})).unwrap();
    assert!(matches!(request.prompt, Prompt::Tokens(tokens) if tokens == [4, 5]));
    for bad in [
        json!({"stop": "x"}),
        json!({"prompt": 5}),
        json!({"prompt": "x", "timeout": -1.0}),
        json!({"prompt": "x", "logit_bias": {"no": 1.0}}),
        json!({"prompt": "x", "logit_bias": {"1": true}}),
        json!({"prompt": "x", "repeat_last_n": -2}),
        json!({"prompt": "x", "priority": "urgent"}),
    ] {
        assert!(from_value::<Request>(bad.clone()).is_err(), "{bad}");
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
    ] {
        there_and_back(&event);
    }
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
