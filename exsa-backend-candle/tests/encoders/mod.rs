//! Encoders: vectors and scores against `tools/make_encoders.py`, what their sessions can do, and files that
//! are refused.

use crate::support::{data, edit_of};
use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, Pooling, SessionOptions, ThreadOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{LoadError, StepError};
use exsa_core::gguf::Value;
use exsa_core::{EmbedRequest, Engine, EngineOptions, Request, RerankRequest, SeqId, SubmitError};
use std::sync::Arc;

const MODELS: [&str; 8] = [
    "bert",
    "bert-direct",
    "nomic-bert",
    "jina-bert-v2",
    "jina-bert-v2-code",
    "modern-bert",
    "modern-bert-silu",
    "gemma-embedding",
];

/// Largest difference of a vector from the one in double precision, whose values are about 1.
const TOLERANCE: f32 = 1e-4;

fn load(name: &str) -> Arc<dyn Model> {
    crate::support::load(data(&format!("encoders/{name}.gguf")))
}

fn edit(name: &str) -> Edit {
    edit_of(&format!("encoders/{name}"))
}

fn options(pooling: Pooling) -> SessionOptions {
    SessionOptions::new().pooling(pooling).threads(ThreadOptions::compute(2))
}

/// A text, and its vectors by the pooling's name.
struct Case {
    text: Vec<u32>,
    vectors: Vec<(Pooling, Vec<f32>)>,
}

fn cases(name: &str) -> Vec<Case> {
    let file = std::fs::read_to_string(data(&format!("encoders/{name}.txt"))).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in file.lines() {
        let mut words = line.split(' ');
        let pooling = match words.next().unwrap() {
            "text" => {
                let text = words.map(|word| word.parse().unwrap()).collect();
                cases.push(Case { text, vectors: Vec::new() });
                continue;
            }
            "mean" => Pooling::Mean,
            "first" => Pooling::First,
            "last" => Pooling::Last,
            "rank" => Pooling::Rank,
            other => panic!("{other}"),
        };
        let vector = words.map(|word| word.parse().unwrap()).collect();
        cases.last_mut().unwrap().vectors.push((pooling, vector));
    }
    cases
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn vectors_and_scores_are_those_of_the_formulas() {
    for name in MODELS {
        let model = load(name);
        let cases = cases(name);
        let texts: Vec<&[u32]> = cases.iter().map(|case| &*case.text).collect();
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last, Pooling::Rank] {
            let expected: Vec<&[f32]> = cases
                .iter()
                .flat_map(|case| &case.vectors)
                .filter(|(kind, _)| *kind == pooling)
                .map(|(_, vector)| &**vector)
                .collect();
            let session = model.session(&options(pooling));
            if expected.is_empty() {
                let error = session.err().unwrap();
                assert!(matches!(error, LoadError::Option { option: "pooling", .. }), "{error}");
                continue;
            }
            let mut session = session.unwrap();
            assert_eq!(expected.len(), texts.len());
            let together = super::embed(&mut *session, &texts);
            for ((vector, text), expected) in together.iter().zip(&texts).zip(expected) {
                let error = worst(vector, expected);
                assert!(error < TOLERANCE, "{name} {pooling:?}: {error} of {} tokens", text.len());
                // The bits do not depend on the batch.
                assert_eq!(&super::embed(&mut *session, &[text])[0], vector, "{name}");
            }
        }
    }
}

#[test]
fn sessions_tell_what_they_can_do() {
    let model = load("bert");
    let mut session = model.session(&SessionOptions::new()).unwrap();
    let capabilities = session.capabilities().clone();
    assert_eq!(capabilities.embed, Some(Pooling::First));
    assert!(!capabilities.generate && !capabilities.fork && !capabilities.truncate && !capabilities.save);
    assert_eq!((capabilities.context_tokens_max, session.kv_bytes_per_token()), (48, Some(0)));
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[2, 4, 3]).rows(1));
    assert!(matches!(session.forward(&batch), Err(StepError::Unsupported("forward"))));
    // Over the positions that the model has, outside the vocabulary, and in a sequence that is not there.
    for (seq, tokens) in [(0, vec![4; 49]), (0, vec![60]), (16, vec![4])] {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(seq), 0, &tokens));
        assert!(session.embed(&batch).is_err(), "{seq} {tokens:?}");
    }
    assert_eq!(super::embed(&mut *session, &[&[2, 4, 3]]).len(), 1);
    // A text is in one batch.
    let session = model.session(&SessionOptions::new().batch_tokens(20)).unwrap();
    assert_eq!(session.capabilities().context_tokens_max, 20);
}

#[test]
fn engines_embed_and_rank_and_refuse_to_generate() {
    let engine = |name: &str, pooling| {
        Engine::start(load(name), EngineOptions::default().session(options(pooling))).unwrap()
    };
    let ranker = engine("bert", Pooling::Rank);
    let scores = ranker.rerank(RerankRequest::new("cat", ["mat a", "cat"])).unwrap().wait().unwrap();
    assert_eq!(scores.scores.len(), 2);
    let embedder = engine("modern-bert", Pooling::Mean);
    let vectors = embedder.embed(EmbedRequest::texts(["a cat"])).unwrap().wait().unwrap();
    assert_eq!(vectors.embeddings.len(), 1);
    for engine in [&ranker, &embedder] {
        let error = engine.submit(Request::text("cat").max_tokens(1)).err().unwrap();
        assert!(matches!(error, SubmitError::Unsupported { operation: "generate", .. }), "{error}");
        assert!(error.to_string().contains("writes no text"), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_in_words() {
    let refused = |edit: Edit, words: &[&str]| {
        let source = exsa_core::backend::ModelSource::Memory(edit.bytes().into());
        let options = LoadOptions::new().device("cpu");
        let loaded = CandleBackend::new().load(&source, &options, &mut LoadProgress::none());
        let error = loaded.err().unwrap_or_else(|| panic!("loaded in spite of {words:?}")).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}: {words:?}");
    };
    // A table of fewer positions than the context has.
    refused(
        edit("bert").set("bert.context_length", Value::U32(49)),
        &["position_embd.weight", "[32, 48]", "49"],
    );
    refused(edit("bert").without("tokenizer.ggml.token_type_count"), &["token_type_count"]);
    refused(
        edit("bert").set("tokenizer.ggml.token_type_count", Value::U32(0)),
        &["token_type_count", "1 to"],
    );
    refused(edit("bert").set("tokenizer.ggml.token_type_count", Value::U32(3)), &["token_types.weight"]);
    refused(edit("jina-bert-v2").without_tensor("token_types.weight"), &["token_types.weight", "missing"]);
    refused(edit("bert").set("bert.pooling_type", Value::U32(7)), &["bert.pooling_type = 7", "0 to 4"]);
    refused(
        edit("nomic-bert").set("nomic-bert.pooling_type", Value::U32(4)),
        &["cls.output.weight", "missing"],
    );
    refused(
        edit("bert").set("bert.attention.causal", Value::Bool(true)),
        &["attention.causal = true", "false"],
    );
    refused(edit("bert").set("bert.attention.head_count", Value::U32(5)), &["shape"]);
    refused(edit("bert").set("bert.feed_forward_length", Value::U32(47)), &["ffn_", "shape"]);
    refused(
        edit("modern-bert").set("modern-bert.hidden_activation", Value::Str("tanh".into())),
        &["hidden_activation = tanh", "gelu"],
    );
    refused(edit("gemma-embedding").without("gemma-embedding.attention.sliding_window"), &["sliding_window"]);
    refused(
        edit("gemma-embedding").set("gemma-embedding.dense_3_feat_in", Value::U32(39)),
        &["dense_3.weight"],
    );
    refused(edit("bert").set("bert.block_count", Value::U32(3)), &["blk.2.", "missing"]);
    refused(edit("bert").set("bert.block_count", Value::U32(1)), &["blk.1.", "no such tensor"]);
    refused(edit("bert").without_tensor("token_embd_norm.bias"), &["token_embd_norm.bias", "missing"]);
}

#[test]
fn estimates_are_made() {
    let source = exsa_core::backend::ModelSource::file(data("encoders/bert.gguf"));
    let (load, session) = (LoadOptions::new(), SessionOptions::new());
    let estimate = CandleBackend::new().estimate(&source, &load, &session).unwrap();
    assert!(estimate.kv == 0 && estimate.weights > 0 && estimate.scratch > 0, "{estimate:?}");
}
