//! Answers of each dialect equal those of the engine behind it, alone and continued.

use crate::simulated::{Kind, engine, start};
use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions, TokenizerSource};
use exsa_core::backend::Fingerprint;
use exsa_core::constraint::Constraint;
use exsa_core::scripted::ByteTokenizer;
use exsa_core::stream::{Completion, Token};
use exsa_core::{
    Continued, Event, FinishReason, Generator, Priority, Request, Resume, SamplingParams, SubmitError,
};
use std::sync::Arc;

const BY_IDS: [Kind; 5] =
    [Kind::VllmGenerate, Kind::Vllm, Kind::TensorRtLlm, Kind::Sglang, Kind::SglangIncremental];

fn with_tokenizer(options: RemoteOptions) -> RemoteOptions {
    options.tokenizer(TokenizerSource::Tokenizer(Arc::new(ByteTokenizer::new())))
}

fn connect(url: &str, kind: Kind) -> RemoteEngine {
    let options = RemoteOptions::new(url);
    let options = if kind == Kind::Triton { options.model(Some("ensemble".to_owned())) } else { options };
    RemoteEngine::connect(with_tokenizer(options)).unwrap()
}

fn dialect(kind: Kind) -> Dialect {
    match kind {
        Kind::VllmGenerate | Kind::Vllm => Dialect::Vllm,
        Kind::TensorRtLlm => Dialect::TensorRtLlm,
        Kind::Sglang | Kind::SglangIncremental => Dialect::Sglang,
        Kind::LlamaServer => Dialect::LlamaServer,
        Kind::Triton => Dialect::Triton,
    }
}

fn sampling(seed: u64) -> SamplingParams {
    SamplingParams::default().seed(seed).temperature(1.2).top_k(0).min_p(0.0)
}

/// Requests that every dialect of token ids accepts, with answers that end for each reason.
fn requests() -> Vec<Request> {
    let text = |max| Request::text("A prompt").max_tokens(max);
    vec![
        text(50).sampling(SamplingParams::greedy()),
        text(50).sampling(sampling(1)),
        text(60).sampling(sampling(2).top_k(20).top_p(0.8).min_p(0.02)),
        ('a'..='z').fold(text(90).sampling(sampling(3)), |request, c| request.stop(c)),
        (b'a'..=b'z').fold(text(90).sampling(sampling(4)), |request, c| request.stop_token(c.into())),
        text(300).sampling(sampling(5).min_tokens(20).logit_bias(vec![(257, 4.0)])),
        text(40).sampling(sampling(6).logit_bias(vec![(65, 5.0), (66, f32::NEG_INFINITY)])),
        text(60).sampling(sampling(7).logit_bias(vec![(257, 3.0)])).ignore_eos(true),
        Request::text("No limit").sampling(sampling(8)),
        Request::text("No end").sampling(sampling(10)).ignore_eos(true),
        Request::text("Ünï🙂").max_tokens(30).sampling(sampling(9)),
    ]
}

fn complete(generator: &dyn Generator, request: &Request) -> Completion {
    generator.submit(request.clone()).unwrap().complete().unwrap()
}

fn tokens(generator: &dyn Generator, request: Request) -> (Vec<Token>, String, FinishReason) {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    for event in generator.submit(request).unwrap() {
        match event {
            Event::Token(token) => {
                text.push_str(&token.text);
                tokens.push(token);
            }
            Event::Finished(finished) => {
                text.push_str(&finished.text);
                return (tokens, text, finished.reason);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id.unwrap()).collect()
}

#[test]
fn answers_by_token_ids_are_those_of_the_engine() {
    let local = engine();
    let mut reasons = Vec::new();
    for kind in BY_IDS {
        let mock = start(kind);
        let remote = connect(&mock.url, kind);
        assert_eq!(remote.capabilities().dialect, dialect(kind));
        for request in requests() {
            if kind == Kind::TensorRtLlm && request.max_tokens.is_none() {
                continue; // It does not tell its context.
            }
            let (ours, our_text, our_reason) = tokens(&*local, request.clone());
            let (theirs, text, reason) = tokens(&remote, request.clone());
            assert_eq!(
                (ids(&theirs), text, &reason),
                (ids(&ours), our_text, &our_reason),
                "{kind:?} {request:?}"
            );
            let usage = |it: Completion| (it.usage.prompt_tokens, it.usage.completion_tokens, it.text);
            assert_eq!(usage(complete(&remote, &request)), usage(complete(&*local, &request)));
            reasons.push(format!("{our_reason:?}"));
        }
        for request in mock.received() {
            assert!(request.body.get("stop").is_none(), "{:?}", request.body);
        }
    }
    for reason in ["EndOfGeneration", "StopToken", "StopString", "MaxTokens", "ContextFull"] {
        assert!(reasons.iter().any(|it| it.starts_with(reason)), "{reason} is not tested: {reasons:?}");
    }
}

#[test]
fn log_probabilities_come_through() {
    let local = engine();
    for kind in [Kind::VllmGenerate, Kind::Vllm, Kind::Sglang, Kind::SglangIncremental] {
        let mock = start(kind);
        let remote = connect(&mock.url, kind);
        let request =
            Request::text("A prompt").max_tokens(12).sampling(sampling(1).logprobs(true).top_logprobs(3));
        let (ours, ..) = tokens(&*local, request.clone());
        let (theirs, ..) = tokens(&remote, request);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
            assert!(near(ours.logprob.unwrap(), theirs.logprob.unwrap()), "{kind:?} {ours:?} {theirs:?}");
            assert_eq!(theirs.top_logprobs.len(), 3);
            for (ours, theirs) in ours.top_logprobs.iter().zip(&theirs.top_logprobs) {
                assert!(ours.id == theirs.id && near(ours.logprob, theirs.logprob), "{ours:?} {theirs:?}");
            }
        }
    }
    let mock = start(Kind::TensorRtLlm);
    let request = Request::text("A").max_tokens(2).sampling(sampling(1).logprobs(true));
    let refused = connect(&mock.url, Kind::TensorRtLlm).submit(request).unwrap_err();
    assert!(matches!(refused, SubmitError::Unsupported { operation: "logprobs", .. }), "{refused:?}");
}

#[test]
fn a_continued_answer_is_the_uncut_one() {
    let local = engine();
    for kind in BY_IDS {
        let mock = start(kind);
        let options = RemoteOptions::new(&mock.url).fingerprint(Some(Fingerprint(7))).positional_seeds(true);
        let remote = RemoteEngine::connect(with_tokenizer(options)).unwrap();
        let terms = remote.continuation(None);
        assert_eq!((terms.continued, terms.fingerprint), (Continued::Identical, Some(Fingerprint(7))));
        for request in requests() {
            if request.max_tokens.is_none() && kind == Kind::TensorRtLlm {
                continue;
            }
            let (whole, text, reason) = tokens(&*local, request.clone());
            for cut in [1, 2, whole.len() / 2, whole.len().saturating_sub(1), whole.len()] {
                let cut = cut.min(whole.len());
                let before: String = whole[..cut].iter().map(|token| token.text.as_str()).collect();
                let resume = Resume::new(ids(&whole[..cut]));
                let (rest, rest_text, rest_reason) = tokens(&remote, request.clone().resume(resume));
                assert_eq!(ids(&rest), ids(&whole[cut..]), "{kind:?} cut at {cut}: {request:?}");
                assert_eq!(format!("{before}{rest_text}"), text, "{kind:?} cut at {cut}: {request:?}");
                assert_eq!(rest_reason, reason, "{kind:?} cut at {cut}: {request:?}");
            }
        }
    }
}

#[test]
fn continuations_that_would_differ_are_refused() {
    let mock = start(Kind::Vllm);
    let remote = connect(&mock.url, Kind::Vllm);
    assert_eq!(remote.continuation(None).continued, Continued::SameDistribution);
    let resumed = |sampling: SamplingParams| {
        Request::text("A").max_tokens(9).sampling(sampling).resume(Resume::new([65, 66]))
    };
    let free = sampling(1).penalty_window(None);
    assert!(remote.continued(&resumed(free.clone())).is_ok());
    assert!(remote.continued(&resumed(free.clone().repetition_penalty(1.2))).is_ok());
    let refused = |request: Request, word: &str| {
        let error = remote.submit(request.clone()).unwrap_err().to_string();
        assert!(error.contains("resume") && error.contains(word), "{error}");
        assert_eq!(remote.check(&request).unwrap_err().to_string(), error);
    };
    refused(resumed(free.clone().penalize_prompt(false).presence_penalty(0.5)), "penalties");
    refused(resumed(free.clone()).constraint(Constraint::json_object()), "grammar");
    // Without the tokenizer, and where ids are incomplete.
    let blind = RemoteEngine::connect(RemoteOptions::new(&mock.url)).unwrap();
    assert_eq!(blind.continuation(None).continued, Continued::Refused);
    assert!(blind.submit(resumed(free.clone())).is_err());
    let mock = start(Kind::LlamaServer);
    assert_eq!(connect(&mock.url, Kind::LlamaServer).continuation(None).continued, Continued::Refused);
    let mock = start(Kind::Sglang);
    let sglang = connect(&mock.url, Kind::Sglang);
    let repeated = free.clone().penalize_prompt(false).repetition_penalty(1.2);
    assert!(sglang.continued(&resumed(repeated)).is_err());
    let mock = start(Kind::TensorRtLlm);
    let trtllm = connect(&mock.url, Kind::TensorRtLlm);
    let request = resumed(free.penalize_prompt(false).presence_penalty(0.5));
    trtllm.submit(request).unwrap().complete().unwrap();
    let body = &mock.received()[0].body;
    assert_eq!((body["prompt"].as_array().unwrap().len(), &body["prompt_ignore_length"]), (3, &1.into()));
}

#[test]
fn answers_by_text_are_those_of_the_engine() {
    let local = engine();
    for (kind, with_ids) in
        [(Kind::LlamaServer, true), (Kind::LlamaServer, false), (Kind::Vllm, false), (Kind::Triton, true)]
    {
        let mock = start(kind);
        let options = RemoteOptions::new(&mock.url).dialect(dialect(kind));
        let options = if kind == Kind::Triton { options.model(Some("ensemble".to_owned())) } else { options };
        let options = if with_ids { with_tokenizer(options) } else { options };
        let remote = RemoteEngine::connect(options).unwrap();
        for request in requests().into_iter().filter(|request| request.max_tokens.is_some()) {
            let sampling = &request.sampling;
            let plain = sampling.logit_bias.is_empty() && sampling.min_tokens == 0 && sampling.min_p == 0.0;
            if !plain && kind != Kind::Vllm
                || !request.stop_tokens.is_empty() && !with_ids && kind != Kind::Vllm
            {
                continue;
            }
            if request.ignore_eos || kind == Kind::Triton && !request.stop_tokens.is_empty() {
                continue;
            }
            let (ours, theirs) = (complete(&*local, &request), complete(&remote, &request));
            assert_eq!(theirs.text, ours.text, "{kind:?} {request:?}");
            // Triton's events have no reason.
            if kind != Kind::Triton {
                assert_eq!(theirs.reason, ours.reason, "{kind:?} {request:?}");
            }
        }
    }
}

#[test]
fn incomplete_ids_are_left_out() {
    let mock = start(Kind::LlamaServer);
    let remote = connect(&mock.url, Kind::LlamaServer);
    let request = Request::text("A prompt").max_tokens(80).sampling(sampling(1));
    let (tokens, ..) = tokens(&remote, request);
    for token in &tokens {
        let mut bytes = Vec::new();
        exsa_core::tokenizer::Tokenizer::piece(&ByteTokenizer::new(), token.id.unwrap_or(257), &mut bytes);
        assert!(token.id.is_none() || bytes == token.text.as_bytes(), "{token:?}");
    }
    assert!(tokens.iter().any(|token| token.id.is_some()));
}

#[test]
fn settings_without_a_field_are_refused() {
    let text = || Request::text("A").max_tokens(4);
    let plain = || SamplingParams::default().top_k(0).min_p(0.0).seed(1);
    let cases: Vec<(Request, &str)> = vec![
        (text().sampling(plain().typical_p(0.5)), "typical_p"),
        (text().sampling(plain().xtc_probability(0.5)), "xtc_probability"),
        (text().sampling(plain().dynatemp_range(0.5)), "dynatemp_range"),
        (text().sampling(plain().mirostat(exsa_core::sampler::Mirostat::V2)), "mirostat"),
        (text().sampling(plain().adaptive_target(0.3)), "adaptive_target"),
        (text().sampling(plain().dry_multiplier(0.5)), "dry_multiplier"),
        (text().sampling(plain().top_n_sigma(1.0)), "top_n_sigma"),
        (text().sampling(plain().presence_penalty(0.5)), "penalty_window"),
        (text().sampling(plain().order(vec![exsa_core::sampler::TransformKind::Temperature])), "order"),
        (text().n(2), "n"),
        (text().best_of(2), "n"),
        (text().prompt_logprobs(1), "prompt_logprobs"),
        (text().banned_string("x"), "banned_strings"),
        (text().adapter("x", 0.5), "lora"),
        (text().adapter("x", 1.0).adapter("y", 1.0), "lora"),
        (text().overflow(exsa_core::Overflow::Shift { keep: 0 }), "overflow"),
        (text().constraint(Constraint::lark("start: \"a\"")), "constraint"),
        (text().constraint(Constraint::json_object().after_reasoning("x")), "constraint"),
    ];
    for kind in BY_IDS {
        let mock = start(kind);
        let remote = connect(&mock.url, kind);
        for (request, name) in &cases {
            let mut request = request.clone();
            if request.sampling == SamplingParams::default() {
                request.sampling = plain();
            }
            match remote.submit(request.clone()) {
                Err(SubmitError::Unsupported { operation, reason }) => {
                    assert_eq!(operation, *name, "{kind:?}: {reason}");
                }
                other => panic!("{kind:?} {name}: {other:?}"),
            }
            assert!(remote.check(&request).is_err());
        }
        assert!(mock.received().is_empty());
        assert_eq!(remote.stats().submitted, 0);
    }
}

#[test]
fn values_that_no_engine_takes_are_refused_as_by_the_engine() {
    let local = engine();
    let mock = start(Kind::Vllm);
    let remote = connect(&mock.url, Kind::Vllm);
    for request in [
        Request::text("").max_tokens(4),
        Request::text("A").max_tokens(0),
        Request::text("A").temperature(f32::NAN),
        Request::text("A").weight(-1.0),
        Request::text("A").stop(""),
        Request::text("A").stop_token(9999),
        Request::tokens([1, 9999]),
        Request::text("A".repeat(600)),
        Request::text("A").sampling(SamplingParams::default().top_logprobs(99)),
    ] {
        let (ours, theirs) =
            (local.submit(request.clone()).unwrap_err(), remote.submit(request).unwrap_err());
        assert_eq!(std::mem::discriminant(&ours), std::mem::discriminant(&theirs), "{ours} / {theirs}");
    }
}

#[test]
fn priorities_salts_seeds_and_aborts_are_sent_in_each_engines_terms() {
    for (kind, urgent, batch, salt) in [
        (Kind::Vllm, "-1", "1", Some("cache_salt")),
        (Kind::VllmGenerate, "-1", "1", Some("cache_salt")),
        (Kind::Sglang, "1", "-1", Some("extra_key")),
        (Kind::TensorRtLlm, "1.0", "0.0", None),
    ] {
        let mock = start(kind);
        let options = RemoteOptions::new(&mock.url).priorities(true);
        let remote = RemoteEngine::connect(with_tokenizer(options)).unwrap();
        let request = Request::text("A").max_tokens(2).sampling(sampling(77));
        for priority in [Priority::Interactive, Priority::Batch] {
            remote.submit(request.clone().priority(priority)).unwrap().complete().unwrap();
        }
        let salted = remote.submit(request.clone().cache_salt("pepper"));
        match (salt, salted) {
            (Some(_), Ok(stream)) => drop(stream.complete().unwrap()),
            (None, Err(SubmitError::Unsupported { operation: "cache_salt", .. })) => {}
            (_, other) => panic!("{kind:?}: {other:?}"),
        }
        let sent: Vec<_> = mock.received().into_iter().map(|it| it.body).collect();
        assert_eq!(
            (sent[0]["priority"].to_string(), sent[1]["priority"].to_string()),
            (urgent.into(), batch.into())
        );
        if let Some(salt) = salt {
            assert_eq!(sent[2][salt], "pepper");
        }
        if salt == Some("cache_salt") {
            drop(remote.submit(request.clone().adapter("alice", 1.0)).unwrap().complete().unwrap());
            assert_eq!(mock.received().last().unwrap().body["model"], "alice");
        }
        let huge = remote.submit(request.seed(u64::MAX)).unwrap_err();
        assert!(matches!(huge, SubmitError::Option { option: "seed", .. }), "{huge:?}");
    }
    // The abort, after a stop string was found here.
    for (kind, path) in
        [(Kind::VllmGenerate, "/inference/v1/abort_requests"), (Kind::Sglang, "/abort_request")]
    {
        let mock = start(kind);
        let remote = connect(&mock.url, kind);
        let (whole, text, _) = tokens(&*engine(), Request::text("A").max_tokens(60).sampling(sampling(3)));
        assert!(whole.len() > 5);
        let first: String = text.chars().take(1).collect();
        let request = Request::text("A").max_tokens(60).sampling(sampling(3)).stop(first);
        let reason = complete(&remote, &request).reason;
        assert_eq!(reason, FinishReason::StopString(0));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let sent = mock.received();
            if let Some(abort) = sent.iter().find(|it| it.path == path) {
                let id = sent[0].body.get("rid").or_else(|| sent[0].body.get("request_id")).unwrap();
                assert!(abort.body.to_string().contains(&id.to_string()), "{:?}", abort.body);
                break;
            }
            assert!(std::time::Instant::now() < until, "no abort");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
