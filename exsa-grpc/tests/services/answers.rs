//! Answers equal those of the engine.

use crate::{Served, asked};
use exsa_core::Request;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_grpc::proto::decoding_parameters::{StringChoices, StructuredOutput};
use exsa_grpc::proto::finish_info::{FinishReason, StopReason};
use exsa_grpc::proto::generate_request::Prompt;
use exsa_grpc::proto::{
    CandidateTokens, DecodingParameters, GenerateRequest, GenerateResponse, KvCacheParameters,
    RandomSampling, ResponseOptions, SequenceOutput, StoppingCriteria, candidate_tokens,
};

fn outputs(response: &GenerateResponse) -> &SequenceOutput {
    response.outputs.as_ref().unwrap()
}

fn finish(response: &GenerateResponse) -> (FinishReason, Option<StopReason>) {
    let info = outputs(response).finish_info.as_ref().unwrap();
    (info.finish_reason(), info.stop_reason.clone())
}

/// A request with sampling by these settings.
fn drawn(prompt: &str, max: u32, temperature: f32, seed: i64) -> GenerateRequest {
    let sampling = RandomSampling {
        top_k: Some(0),
        top_p: Some(0.9),
        min_p: Some(0.0),
        seed: Some(seed),
        ..RandomSampling::default()
    };
    GenerateRequest { temperature: Some(temperature), sampling: Some(sampling), ..asked(prompt, max) }
}

#[tokio::test]
async fn token_ids_go_in_and_out() {
    let served = Served::new(ScriptedModel::echo("One two.")).await;
    let answer = served.generate(asked("abc", 100)).await.unwrap();
    let output = outputs(&answer);
    assert_eq!(output.text, "One two.");
    // The token that ends the answer is none of it.
    let ids: Vec<u32> = "One two.".bytes().map(u32::from).collect();
    assert_eq!((&output.token_ids, output.num_tokens), (&ids, 8));
    assert_eq!(finish(&answer), (FinishReason::Stop, Some(StopReason::EosTokenId(ByteTokenizer::EOS))));
    let info = output.finish_info.as_ref().unwrap();
    assert_eq!((info.num_output_tokens, info.num_cached_tokens), (8, Some(0)));
    assert_eq!(answer.prompt_info.unwrap().num_prompt_tokens, 3);
}

#[tokio::test]
async fn a_stream_has_the_parts_of_the_whole_answer() {
    let served = Served::new(ScriptedModel::ngram(3)).await;
    for seed in 0..4 {
        let request = drawn("Once", 40, 1.2, seed);
        let whole = served.generate(request.clone()).await.unwrap();
        let parts = served.stream(request).await.unwrap();
        assert!(parts[0].prompt_info.is_some() && parts[1..].iter().all(|part| part.prompt_info.is_none()));
        let text: String = parts.iter().map(|part| outputs(part).text.clone()).collect();
        let ids: Vec<u32> = parts.iter().flat_map(|part| outputs(part).token_ids.clone()).collect();
        assert_eq!((&text, &ids), (&outputs(&whole).text, &outputs(&whole).token_ids));
        let (last, before) = parts.split_last().unwrap();
        assert!(before.iter().all(|part| outputs(part).finish_info.is_none()));
        assert_eq!(finish(last), finish(&whole));
    }
}

#[tokio::test]
async fn settings_are_those_of_the_engine() {
    let served = Served::new(ScriptedModel::ngram(5)).await;
    let penalties = DecodingParameters {
        presence_penalty: 0.7,
        frequency_penalty: 0.3,
        logit_bias: [(97, 2.0), (98, -1.5)].into(),
        ..DecodingParameters::default()
    };
    let request = GenerateRequest { decoding: Some(penalties), ..drawn("Once upon", 50, 0.9, 11) };
    let answer = served.generate(request).await.unwrap();
    let mut own = Request::text("Once upon").max_tokens(50).temperature(0.9).seed(11);
    own.sampling = own.sampling.top_k(0).top_p(0.9).min_p(0.0).presence_penalty(0.7).frequency_penalty(0.3);
    own.sampling = own.sampling.penalty_window(None).penalize_prompt(false);
    own.sampling.logit_bias = vec![(97, 2.0), (98, -1.5)];
    let own = served.engine.submit(own).unwrap().complete_async().await.unwrap();
    assert_eq!(outputs(&answer).text, own.text);
    // Without them, it is another.
    assert_ne!(served.generate(drawn("Once upon", 50, 0.9, 11)).await.unwrap().outputs, answer.outputs);
}

#[tokio::test]
async fn text_is_tokenized_and_truncated() {
    let served = Served::new(ScriptedModel::ngram(1)).await;
    let mut request = drawn("", 10, 1.0, 1);
    request.prompt = Some(Prompt::Text("abcdef".into()));
    request.response = Some(ResponseOptions { prompt_token_ids: true, ..ResponseOptions::default() });
    let whole = served.generate(request.clone()).await.unwrap();
    assert_eq!(whole.prompt_info.as_ref().unwrap().token_ids, [97, 98, 99, 100, 101, 102]);
    assert!(outputs(&whole).token_ids.is_empty(), "they were not asked for");
    request.truncate_prompt_tokens = 2;
    let short = served.generate(request.clone()).await.unwrap();
    assert_eq!(short.prompt_info.unwrap().token_ids, [101, 102]);
    request.prompt = Some(Prompt::Text("ef".into()));
    request.truncate_prompt_tokens = 0;
    assert_eq!(served.generate(request).await.unwrap().outputs, short.outputs);
}

#[tokio::test]
async fn an_answer_without_a_limit_has_the_protocols_20_tokens() {
    let served = Served::new(ScriptedModel::ngram(2)).await;
    let mut request = asked("x", 0);
    request.stopping.as_mut().unwrap().ignore_eos = true;
    let answer = served.generate(request).await.unwrap();
    assert_eq!(outputs(&answer).num_tokens, 20);
    assert_eq!(finish(&answer), (FinishReason::Length, None));
}

#[tokio::test]
async fn stop_strings_and_tokens_end_an_answer() {
    let served = Served::new(ScriptedModel::echo("one two three")).await;
    let mut request = asked("x", 50);
    let stopping = StoppingCriteria {
        max_new_tokens: 50,
        stop_strings: vec!["zzz".into(), " two".into()],
        ..StoppingCriteria::default()
    };
    request.stopping = Some(stopping.clone());
    let answer = served.generate(request.clone()).await.unwrap();
    assert_eq!(outputs(&answer).text, "one");
    assert_eq!(finish(&answer), (FinishReason::Stop, Some(StopReason::StopString(" two".into()))));
    request.stopping = Some(StoppingCriteria { include_stop_strings: true, ..stopping.clone() });
    assert_eq!(outputs(&served.generate(request.clone()).await.unwrap()).text, "one two");
    let parts = served.stream(request.clone()).await.unwrap();
    assert_eq!(parts.iter().map(|part| outputs(part).text.clone()).collect::<String>(), "one two");
    let by_token =
        StoppingCriteria { stop_strings: Vec::new(), stop_token_ids: vec![u32::from(b't')], ..stopping };
    request.stopping = Some(by_token);
    let answer = served.generate(request).await.unwrap();
    assert_eq!(outputs(&answer).text, "one ");
    assert_eq!(finish(&answer), (FinishReason::Stop, Some(StopReason::StopTokenId(u32::from(b't')))));
}

#[tokio::test]
async fn log_probabilities_have_ranks_and_candidates() {
    let served = Served::new(ScriptedModel::ngram(4)).await;
    let top = |n| Some(CandidateTokens { select: Some(candidate_tokens::Select::TopN(n)) });
    let request = GenerateRequest {
        temperature: Some(0.0),
        response: Some(ResponseOptions {
            output_token_ids: true,
            output_logprobs: true,
            output_candidates: top(3),
            prompt_logprobs: true,
            prompt_candidates: top(2),
            ..ResponseOptions::default()
        }),
        ..asked("abcd", 8)
    };
    let answer = served.generate(request).await.unwrap();
    let output = outputs(&answer);
    let tokens = output.token_ids.len();
    assert_eq!([output.logprobs.len(), output.ranks.len(), output.candidate_tokens.len()], [tokens; 3]);
    for (at, candidates) in output.candidate_tokens.iter().enumerate() {
        // The greedy token is the first candidate.
        assert_eq!((candidates.tokens.len(), output.ranks[at]), (3, 1));
        let first = &candidates.tokens[0];
        assert_eq!((first.id, first.logprob, first.rank), (output.token_ids[at], output.logprobs[at], 1));
        assert!(candidates.tokens.is_sorted_by(|a, b| a.logprob >= b.logprob && a.rank < b.rank));
    }
    let prompt = answer.prompt_info.unwrap();
    assert_eq!((prompt.num_prompt_tokens, prompt.logprobs.len(), prompt.ranks.len()), (4, 4, 4));
    assert_eq!(prompt.logprobs[0], 0.0, "nothing precedes the first token");
    assert!(prompt.logprobs[1..].iter().all(|logprob| *logprob < 0.0));
    assert!(prompt.candidate_tokens[1..].iter().all(|candidates| candidates.tokens.len() == 2));
}

#[tokio::test]
async fn structured_outputs_hold() {
    let served = Served::new(ScriptedModel::ngram(6)).await;
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"#;
    let choices = StringChoices { choices: vec!["red".into(), "green".into()] };
    for output in [
        StructuredOutput::Json(schema.into()),
        StructuredOutput::JsonObject(true),
        StructuredOutput::Regex("[0-9]{3}-[0-9]{2}".into()),
        StructuredOutput::Choice(choices),
        StructuredOutput::Grammar("root ::= \"yes\" | \"no\"".into()),
    ] {
        let decoding = DecodingParameters { structured_output: Some(output.clone()), ..Default::default() };
        let request = GenerateRequest { decoding: Some(decoding), ..drawn("x", 200, 1.0, 7) };
        let answer = served.generate(request).await.unwrap();
        let text = &*outputs(&answer).text;
        if finish(&answer).0 == FinishReason::Length {
            // The text goes on as the grammar allows; numbers and texts have no end of their own.
            assert!(
                matches!(output, StructuredOutput::Json(_) | StructuredOutput::JsonObject(_)),
                "{output:?}: {text}"
            );
            assert!(text.starts_with('{'), "{text}");
            continue;
        }
        match output {
            StructuredOutput::Json(_) => {
                let value: serde_json::Value = serde_json::from_str(text).unwrap();
                assert!(value["n"].is_number(), "{text}");
            }
            StructuredOutput::JsonObject(_) => {
                assert!(serde_json::from_str::<serde_json::Value>(text).unwrap().is_object(), "{text}");
            }
            StructuredOutput::Regex(_) => {
                let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                let (a, b) = text.split_once('-').unwrap();
                assert!(a.len() == 3 && b.len() == 2 && digits(a) && digits(b), "{text}");
            }
            StructuredOutput::Choice(_) => assert!(["red", "green"].contains(&text), "{text}"),
            _ => assert!(["yes", "no"].contains(&text), "{text}"),
        }
    }
}

#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let served = Served::new(ScriptedModel::ngram(8)).await;
    let mut request = drawn("Once", 15, 1.3, 100);
    request.sampling.as_mut().unwrap().num_sequences = 3;
    let parts = served.stream(request).await.unwrap();
    for index in 0..3 {
        let own: Vec<_> = parts.iter().filter(|part| outputs(part).index == index).collect();
        let text: String = own.iter().map(|part| outputs(part).text.clone()).collect();
        let alone = served.generate(drawn("Once", 15, 1.3, 100 + i64::from(index))).await.unwrap();
        assert_eq!(text, outputs(&alone).text);
        let ends: Vec<_> = own.iter().filter_map(|part| outputs(part).finish_info.as_ref()).collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].num_output_tokens, outputs(&alone).num_tokens);
    }
}

#[tokio::test]
async fn a_cache_is_used_unless_it_is_bypassed() {
    let served = Served::new(ScriptedModel::echo("ok").kv(4096, 4)).await;
    let cached = async |kv: KvCacheParameters| {
        let request = GenerateRequest { kv: Some(kv), ..asked("a prompt of several blocks", 4) };
        let answer = served.generate(request).await.unwrap();
        outputs(&answer).finish_info.as_ref().unwrap().num_cached_tokens.unwrap()
    };
    let shared = KvCacheParameters::default;
    assert_eq!(cached(shared()).await, 0);
    assert!(cached(shared()).await >= 16);
    assert_eq!(cached(KvCacheParameters { bypass_prefix_cache: true, ..shared() }).await, 0);
    let salted = || KvCacheParameters { cache_salt: "a".into(), ..shared() };
    assert_eq!(cached(salted()).await, 0);
    assert!(cached(salted()).await >= 16);
}
