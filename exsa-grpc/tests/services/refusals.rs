//! Requests that are refused, with the field and the reason.

use crate::{Served, asked};
use exsa_core::scripted::ScriptedModel;
use exsa_grpc::GrpcOptions;
use exsa_grpc::proto::decoding_parameters::StructuredOutput;
use exsa_grpc::proto::{
    CandidateTokens, DecodingParameters, EngineReasoningGate, GenerateRequest, KvCacheParameters, MediaItem,
    RandomSampling, ResponseOptions, StoppingCriteria, TokenIds, candidate_tokens,
};
use exsa_grpc::tonic::Code;

fn with(change: impl FnOnce(&mut GenerateRequest)) -> GenerateRequest {
    let mut request = asked("abc", 5);
    change(&mut request);
    request
}

fn decoding(decoding: DecodingParameters) -> GenerateRequest {
    with(|request| request.decoding = Some(decoding))
}

fn response(options: ResponseOptions) -> GenerateRequest {
    with(|request| request.response = Some(options))
}

#[tokio::test]
async fn a_wrong_or_unsupported_field_is_named() {
    let served = Served::new(ScriptedModel::echo("hello")).await;
    let all = Some(CandidateTokens { select: Some(candidate_tokens::Select::All(true)) });
    let top_21 = Some(CandidateTokens { select: Some(candidate_tokens::Select::TopN(21)) });
    let regex = || Some(StructuredOutput::Regex("a+".into()));
    let cases = [
        (with(|request| request.prompt = None), "prompt: "),
        (with(|request| request.media.push(MediaItem::default())), "media: "),
        (with(|request| request.lora_name = "a".into()), "lora_name: there is no adapter 'a'"),
        (with(|request| request.request_id = "x".repeat(257)), "request_id: 257 bytes"),
        (with(|request| request.temperature = Some(f32::NAN)), "temperature"),
        (
            with(|request| {
                request.sampling = Some(RandomSampling { top_p: Some(0.0), ..Default::default() })
            }),
            "top_p",
        ),
        (
            with(|request| {
                request.sampling = Some(RandomSampling { min_p: Some(2.0), ..Default::default() })
            }),
            "min_p",
        ),
        (
            with(|request| {
                request.sampling = Some(RandomSampling { num_sequences: 2, ..Default::default() })
            }),
            "sampling.num_sequences: allowed is 1",
        ),
        (
            with(|request| {
                request.stopping =
                    Some(StoppingCriteria { thinking_token_budget: Some(0), ..Default::default() });
            }),
            "stopping.thinking_token_budget: 0",
        ),
        (
            with(|request| {
                let transfer =
                    KvCacheParameters { kv_transfer_params: Some(Default::default()), ..Default::default() };
                request.kv = Some(transfer);
            }),
            "kv: transfers",
        ),
        (
            with(|request| {
                request.decoding =
                    Some(DecodingParameters { structured_output: regex(), ..Default::default() });
                let gate = EngineReasoningGate { reasoning_ended: Some(false), ..Default::default() };
                request.engine_reasoning_gate = Some(gate);
            }),
            "engine_reasoning_gate.reasoning_ended",
        ),
        (
            decoding(DecodingParameters { allowed_token_ids: vec![1], ..Default::default() }),
            "decoding.allowed_token_ids",
        ),
        (
            decoding(DecodingParameters {
                bad_words_token_ids: vec![TokenIds { ids: vec![1, 2] }],
                ..Default::default()
            }),
            "decoding.bad_words_token_ids: a sequence of 2 tokens",
        ),
        (
            decoding(DecodingParameters {
                presence_penalty: 1.0,
                repetition_penalty: 1.1,
                ..Default::default()
            }),
            "decoding.repetition_penalty",
        ),
        (
            decoding(DecodingParameters {
                structured_output: Some(StructuredOutput::Json("{".into())),
                ..Default::default()
            }),
            "",
        ),
        (
            decoding(DecodingParameters {
                structured_output: Some(StructuredOutput::StructuralTag("[]".into())),
                ..Default::default()
            }),
            "decoding.structural_tag",
        ),
        (
            response(ResponseOptions { output_candidates: all, ..Default::default() }),
            "response.output_candidates: allowed is top_n",
        ),
        (
            response(ResponseOptions { prompt_candidates: top_21, ..Default::default() }),
            "response.prompt_candidates.top_n: 21",
        ),
    ];
    for (request, expected) in cases {
        let status = served.generate(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(
            status.message().contains(expected) && !status.message().is_empty(),
            "{expected}: {status:?}"
        );
    }
    assert_eq!(served.engine.stats().tokens_generated, 0);
    // A banned token is none of an answer.
    let bad_words_token_ids = vec![TokenIds { ids: vec![u32::from(b'h')] }];
    let banned = decoding(DecodingParameters { bad_words_token_ids, ..Default::default() });
    let answer = served.generate(banned).await.unwrap().outputs.unwrap();
    assert!(!answer.token_ids.is_empty() && !answer.token_ids.contains(&u32::from(b'h')));
}

#[tokio::test]
async fn the_engines_refusals_have_codes_and_causes() {
    let served = Served::new(ScriptedModel::echo("hello").context(32)).await;
    let cause = |status: &exsa_grpc::tonic::Status| {
        status.metadata().get("exsa-error").unwrap().to_str().unwrap().to_owned()
    };
    let unknown = served.generate(with(|request| request.model = "other".into())).await.unwrap_err();
    assert_eq!((unknown.code(), cause(&unknown).as_str()), (Code::NotFound, "unknown_model"));
    assert!(unknown.message().contains("available: scripted"), "{unknown:?}");
    let mut outside = asked("", 5);
    outside.prompt =
        Some(exsa_grpc::proto::generate_request::Prompt::TokenIds(TokenIds { ids: vec![1, 70_000] }));
    let outside = served.generate(outside).await.unwrap_err();
    assert_eq!((outside.code(), cause(&outside).as_str()), (Code::InvalidArgument, "invalid_token"));
    let long = served.stream(asked(&"x".repeat(40), 5)).await.unwrap_err();
    assert_eq!((long.code(), cause(&long).as_str()), (Code::InvalidArgument, "prompt_too_long"));
    let empty = served.generate(asked("", 5)).await.unwrap_err();
    assert_eq!((empty.code(), cause(&empty).as_str()), (Code::InvalidArgument, "empty_prompt"));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let options = GrpcOptions::new().message_bytes_max(1000);
    let served = Served::with(ScriptedModel::echo("hello"), options).await;
    assert!(served.generate(asked(&"x".repeat(100), 5)).await.is_ok());
    let status = served.generate(asked(&"x".repeat(2000), 5)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(served.generate(asked("abc", 5)).await.is_ok(), "the connection serves on");
}
