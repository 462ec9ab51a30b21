//! What happens when the backend fails: errors for a sequence, for a pass, NaN, and panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::{Capabilities, Model, Session, SessionOptions};
use exsa_core::batch::{Batch, Logits};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::ScriptedModel;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Engine, EngineOptions, FinishReason, Generator, Request, RequestError, SeqId, Shutdown, SubmitError,
    TokenId,
};
use std::io::{Read, Write};
use std::sync::Arc;

/// What goes wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// Every pass with this token blames its sequence.
    Sequence(TokenId),
    /// The pass of this number fails as a whole.
    Pass(usize),
    /// Every pass with this token gives a row of NaN for its sequence.
    NotANumber(TokenId),
    /// The pass of this number panics.
    Panic(usize),
    /// The pass of this number gives no rows.
    NoRows(usize),
}

/// A scripted model with a fault.
struct Faulty {
    model: ScriptedModel,
    fault: Fault,
}

impl Model for Faulty {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.model.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let inner = self.model.session(options)?;
        Ok(Box::new(FaultySession { inner, fault: self.fault, passes: 0, logits: Vec::new() }))
    }
}

struct FaultySession {
    inner: Box<dyn Session>,
    fault: Fault,
    passes: usize,
    logits: Vec<f32>,
}

impl Session for FaultySession {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, StepError> {
        self.passes += 1;
        let holder =
            |token| batch.iter().find(|(_, tokens)| tokens.contains(&token)).map(|(span, _)| span.seq);
        match self.fault {
            Fault::Sequence(token) if let Some(seq) = holder(token) => {
                // Half the work is done before the fault shows: what is past the spans' positions is undefined.
                self.inner.forward(batch)?;
                Err(StepError::Sequence { seq, problem: "cursed".into() })
            }
            Fault::Pass(n) if self.passes == n => {
                self.inner.forward(batch)?;
                Err(StepError::Backend("lost the device".into()))
            }
            Fault::Panic(n) if self.passes == n => panic!("assertion in the backend"),
            Fault::NoRows(n) if self.passes == n => Ok(Logits::new(&[], 258)),
            Fault::NotANumber(token) if let Some(seq) = holder(token) => {
                let logits = self.inner.forward(batch)?;
                let n_vocab = logits.n_vocab();
                self.logits = (0..logits.rows()).flat_map(|row| logits.row(row).unwrap()).copied().collect();
                let mut row = 0;
                for span in batch.spans() {
                    if span.seq == seq && span.rows > 0 {
                        self.logits[row * n_vocab + 5] = f32::NAN;
                    }
                    row += span.rows;
                }
                Ok(Logits::new(&self.logits, n_vocab))
            }
            _ => self.inner.forward(batch),
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.inner.fork(from, to, len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.inner.truncate(seq, len)
    }

    fn release(&mut self, seq: SeqId) {
        self.inner.release(seq);
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        self.inner.save(seq, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.inner.restore(seq, from)
    }
}

fn engine(model: ScriptedModel, fault: Fault) -> Engine {
    Engine::start(Arc::new(Faulty { model, fault }), EngineOptions::default()).unwrap()
}

fn request(prompt: &str) -> Request {
    Request::text(prompt).sampling(SamplingParams::greedy()).ignore_eos(true).max_tokens(30)
}

/// Runs twenty requests of which one holds `!`; the others must be as without the fault.
fn only_the_bad_one_fails(model: ScriptedModel, fault: Fault) -> RequestError {
    let sound = Engine::start(model.clone().shared(), EngineOptions::default()).unwrap();
    let engine = engine(model, fault);
    let prompts: Vec<_> = (0..20).map(|i| if i == 7 { "bad!".into() } else { format!("good {i}") }).collect();
    let streams: Vec<_> = prompts.iter().map(|prompt| engine.submit(request(prompt)).unwrap()).collect();
    let mut error = None;
    for (prompt, stream) in prompts.iter().zip(streams) {
        match stream.complete() {
            Ok(answer) => {
                let expected = sound.submit(request(prompt)).unwrap().complete().unwrap();
                assert_eq!(answer.tokens, expected.tokens, "{prompt}");
            }
            Err(e) => {
                assert_eq!(prompt, "bad!");
                error = Some(e);
            }
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.finished), (1, 20));
    assert_eq!(engine.submit(request("after")).unwrap().complete().unwrap().tokens.len(), 30);
    error.expect("the bad one fails")
}

/// A prompt's bytes are its tokens, and greedy answers of this model hold no `!`.
const BAD: TokenId = b'!' as TokenId;

fn model() -> ScriptedModel {
    ScriptedModel::echo("abcdefghijklmnopqrstuvwxyz0123456789")
}

#[test]
fn a_failing_sequence_leaves_the_others_running() {
    let error = only_the_bad_one_fails(model(), Fault::Sequence(BAD));
    assert!(error.to_string().contains("cursed"), "{error}");
}

#[test]
fn the_same_where_the_session_cannot_truncate() {
    only_the_bad_one_fails(model().without_truncate(), Fault::Sequence(BAD));
}

#[test]
fn nan_logits_fail_their_sequence_alone() {
    let error = only_the_bad_one_fails(model(), Fault::NotANumber(BAD));
    assert!(matches!(error, RequestError::Sample(_)), "{error}");
    assert!(error.to_string().contains("not a number"), "{error}");
}

#[test]
fn a_failed_pass_ends_its_batch_and_the_engine_goes_on() {
    for fault in [Fault::Pass(3), Fault::NoRows(3)] {
        let engine = engine(model(), fault);
        let streams: Vec<_> = (0..4).map(|_| engine.submit(request("x")).unwrap()).collect();
        let failed = streams.into_iter().filter_map(|stream| stream.complete().err()).count();
        assert!(failed > 0);
        assert_eq!(engine.submit(request("x")).unwrap().complete().unwrap().tokens.len(), 30);
        assert_eq!(engine.stats().kv_tokens_used, 0);
    }
}

#[test]
fn a_panic_ends_the_requests_and_not_the_process() {
    let engine = engine(model(), Fault::Panic(5));
    let streams: Vec<_> = (0..40).map(|_| engine.submit(request("x")).unwrap()).collect();
    for stream in streams {
        let error = stream.complete().unwrap_err();
        assert_eq!(error, RequestError::Panicked("assertion in the backend".into()));
    }
    assert!(matches!(engine.submit(request("x")), Err(SubmitError::ShuttingDown)));
    engine.shut_down(Shutdown::Drain);
}

#[test]
fn an_interrupted_pass_loses_nothing() {
    let options = EngineOptions::default();
    let interrupt = options.session.interrupt.clone();
    let engine = Engine::start(ScriptedModel::ngram(4).shared(), options).unwrap();
    let expected = engine.submit(request("x").max_tokens(500)).unwrap().complete().unwrap();
    let stream = engine.submit(request("x").max_tokens(500)).unwrap();
    for _ in 0..200 {
        interrupt.raise();
        std::thread::yield_now();
    }
    let answer = stream.complete().unwrap();
    assert_eq!((answer.tokens, answer.reason), (expected.tokens, FinishReason::MaxTokens));
}
