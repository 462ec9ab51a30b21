//! The protocol: messages survive the way, and bytes that are none are refused without harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use exsa_core::backend::Capabilities;
use exsa_core::model_info::ModelInfo;
use exsa_core::stream::{
    AnswerFinished, AnswerLogprob, Finished, MalformedToolCall, PromptLogprobs, PromptToken, Token,
    ToolCallDelta,
};
use exsa_core::{EngineInfo, Event, FinishReason, Request, RequestError, Usage};
use exsa_worker::frame::{
    Bounded, EVENTS_MAX, FRAME_MAX, FrameError, FrameReader, FromWorker, StreamRules, ToWorker, WireEvent,
    decode, encode,
};
use proptest::prelude::*;
use std::io::Read;

fn token() -> impl Strategy<Value = Token> {
    let value = prop_oneof![any::<f32>(), Just(f32::INFINITY), Just(f32::NEG_INFINITY)];
    let value = value.prop_filter("not a number is not itself", |value| !value.is_nan());
    let top = proptest::collection::vec((0..256_u32, value.clone()), 0..3);
    let observed = proptest::collection::vec(value.clone(), 0..3);
    (0..4_usize, any::<Option<u8>>(), ".{0,8}", proptest::option::of(value), top, observed).prop_map(
        |(index, id, text, logprob, top, observed)| {
            let token = Token::new(id.map(u32::from), text).index(index).logprob(logprob);
            token.top_logprobs(top).observed(observed)
        },
    )
}

fn reason() -> impl Strategy<Value = FinishReason> {
    prop_oneof![
        Just(FinishReason::EndOfGeneration),
        Just(FinishReason::StopString(0)),
        (0..256_u32).prop_map(FinishReason::StopToken),
        Just(FinishReason::Cancelled),
        ".{0,8}".prop_map(|text| FinishReason::Failed(RequestError::Panicked(text))),
        ".{0,8}".prop_map(|text| FinishReason::Failed(RequestError::Lost(text))),
    ]
}

fn logprob() -> impl Strategy<Value = Option<AnswerLogprob>> {
    let sum = prop_oneof![-1e9..0.0_f64, Just(f64::NEG_INFINITY)];
    proptest::option::of((sum, 0..99_usize).prop_map(|(sum, tokens)| AnswerLogprob::new(sum, tokens)))
}

fn event() -> impl Strategy<Value = Event> {
    let text = || ".{0,8}";
    prop_oneof![
        token().prop_map(Event::Token),
        token().prop_map(Event::Reasoning),
        (0..4_usize, 0..9_usize, text(), text()).prop_map(|(index, call, name, arguments)| {
            Event::ToolCall(ToolCallDelta::new(call).index(index).id("id").name(name).arguments(arguments))
        }),
        (0..4_usize, proptest::option::of(0..9_usize), text()).prop_map(|(index, call, text)| {
            Event::MalformedToolCall(MalformedToolCall::new(text).index(index).call(call))
        }),
        (0..64_usize, proptest::collection::vec((0..256_u32, proptest::option::of(-9.0..0.0_f32)), 0..9))
            .prop_map(|(start, tokens)| {
                let tokens: Vec<_> =
                    tokens.into_iter().map(|(id, logprob)| PromptToken::new(id, logprob)).collect();
                Event::Prompt(PromptLogprobs::new(start, tokens))
            }),
        (0..4_usize, reason(), text(), logprob()).prop_map(|(index, reason, text, logprob)| {
            Event::AnswerFinished(AnswerFinished::new(index, reason).text(text).seed(7).logprob(logprob))
        }),
    ]
}

fn finished() -> impl Strategy<Value = Event> {
    (0..4_usize, reason(), ".{0,8}", logprob()).prop_map(|(index, reason, text, logprob)| {
        let finished = Finished::new(reason).index(index).text(text).usage(Usage::new(3, 4));
        Event::Finished(finished.logprob(logprob))
    })
}

fn rules() -> StreamRules {
    let mut model = ModelInfo::default();
    model.n_vocab = 256;
    let info = EngineInfo::new(model, Capabilities::new(16, 128));
    StreamRules::new(&Request::text("").n(4).stop("x"), &info)
}

fn messages() -> impl Strategy<Value = ToWorker> {
    let text = || ".{0,40}";
    prop_oneof![
        (any::<u64>(), text()).prop_map(|(id, request)| ToWorker::Submit { id, request }),
        (any::<u64>(), text()).prop_map(|(id, request)| ToWorker::Embed { id, request }),
        any::<u64>().prop_map(|id| ToWorker::Cancel { id }),
        any::<u64>().prop_map(|id| ToWorker::Drained { id }),
        any::<bool>().prop_map(|abort| ToWorker::Stop { abort }),
        text().prop_map(ToWorker::Setup),
    ]
}

/// Gives its bytes in pieces.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(self.0.len()).min(to.len());
        to[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    #[test]
    fn events_survive_the_way(mut events in proptest::collection::vec(event(), 0..6), end in proptest::option::of(finished())) {
        let ends = end.is_some();
        events.extend(end);
        prop_assume!(!events.is_empty());
        let wire = events.iter().cloned().map(|event| WireEvent::new(event).unwrap()).collect();
        let mut bytes = Vec::new();
        encode(&FromWorker::Events { id: 5, events: Bounded(wire) }, &mut bytes).unwrap();
        let message = FrameReader::new(&bytes[..]).read().unwrap();
        let Some(FromWorker::Events { id: 5, events: wire }) = message else { panic!("{message:?}") };
        prop_assert_eq!(rules().check(wire.0).unwrap(), (events, ends));
    }

    #[test]
    fn frames_are_read_in_any_pieces(messages in proptest::collection::vec(messages(), 0..8), piece in 1..70_usize) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes).unwrap());
        let mut reader = FrameReader::new(Pieces(&bytes, piece));
        for message in &messages {
            let read = reader.read::<ToWorker>().unwrap();
            prop_assert_eq!(read.as_ref(), Some(message));
        }
        prop_assert!(reader.read::<ToWorker>().unwrap().is_none());
    }

    #[test]
    fn a_cut_frame_is_no_message(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).unwrap();
        let cut = cut.index(bytes.len());
        let read = FrameReader::new(&bytes[..cut]).read::<ToWorker>();
        if cut == 0 {
            prop_assert!(matches!(read, Ok(None)));
        } else {
            let truncated = matches!(read, Err(FrameError::Truncated));
            prop_assert!(truncated, "{:?}", read);
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<ToWorker>(&bytes);
        if let Ok(FromWorker::Events { events, .. }) = decode(&bytes) {
            let _ = rules().check(events.0);
        }
        let mut reader = FrameReader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.read::<FromWorker>() {}
    }
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    let claims = (FRAME_MAX as u32 + 1).to_le_bytes();
    let error = FrameReader::new(&claims[..]).read::<ToWorker>().unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    // A length that is allowed, and bytes that do not come.
    let claims = (FRAME_MAX as u32).to_le_bytes();
    let error = FrameReader::new(&claims[..]).read::<ToWorker>().unwrap_err();
    assert!(matches!(error, FrameError::Truncated), "{error}");
    // A list that claims more items than are allowed, or than there are bytes.
    for claim in [EVENTS_MAX as u64 + 1, u64::MAX] {
        let mut body =
            postcard::to_stdvec(&FromWorker::Events { id: 1, events: Bounded(Vec::new()) }).unwrap();
        body.pop();
        body.extend(postcard::to_stdvec(&claim).unwrap());
        decode::<FromWorker>(&body).unwrap_err();
    }
    let mut frames = Vec::new();
    let long = ToWorker::Setup("x".repeat(FRAME_MAX + 1));
    assert!(matches!(encode(&long, &mut frames), Err(FrameError::TooLong { .. })));
    assert!(frames.is_empty());
}

#[test]
fn bytes_after_a_message_are_refused() {
    let mut body = postcard::to_stdvec(&ToWorker::Cancel { id: 1 }).unwrap();
    decode::<ToWorker>(&body).unwrap();
    body.push(0);
    let error = decode::<ToWorker>(&body).unwrap_err();
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
}

#[test]
fn events_outside_their_request_are_refused() {
    let refused = |events: Vec<Event>, what: &str| {
        let wire = events.into_iter().map(|event| WireEvent::new(event).unwrap()).collect();
        let error = rules().check(wire).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    let end = |reason| Event::Finished(Finished::new(reason));
    refused(vec![Event::Token(Token::new(256, "x"))], "vocabulary of 256");
    refused(vec![Event::Token(Token::new(1, "x").top_logprobs([(300, 0.0)]))], "vocabulary of 256");
    refused(vec![Event::Token(Token::new(1, "x").index(4))], "answer 4 of a request for 4");
    refused(vec![Event::ToolCall(ToolCallDelta::new(usize::MAX))], "tool call");
    refused(
        vec![Event::Prompt(PromptLogprobs::new(128, [PromptToken::new(1, None)]))],
        "the context has 128",
    );
    refused(vec![end(FinishReason::StopString(1))], "stop string 1 of 1");
    refused(vec![end(FinishReason::BannedString(0))], "banned string 0 of 0");
    refused(vec![end(FinishReason::StopToken(999))], "vocabulary of 256");
    refused(vec![end(FinishReason::Cancelled), Event::Token(Token::new(1, "x"))], "after the last");
    refused(vec![], "without events");
}
