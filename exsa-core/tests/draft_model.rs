//! A draft model for a target: the same answers, in fewer passes if its drafts are accepted, unaffected by
//! its failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::{
    Capabilities, LoadOptions, LoadProgress, Model, ModelSource, Output, Session, SessionOptions,
};
use exsa_core::batch::Batch;
use exsa_core::clock::ManualClock;
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::Fcfs;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::speculate::{
    DraftModel, DraftModelSource, DraftSource, Proposer, Speculation, SpeculationMode,
};
use exsa_core::stats::EngineStats;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineLoop, EngineOptions, Request, RequestId, SeqId, TokenId};
use std::sync::Arc;
use std::time::Duration;

/// A draft model with faults.
#[derive(Clone)]
struct Faulty {
    model: ScriptedModel,
    info: ModelInfo,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Each fifth pass fails.
    Sometimes,
    Always,
    /// The tenth pass panics.
    Panic,
    NoTruncate,
}

impl Faulty {
    fn new(model: ScriptedModel, fault: Fault) -> Self {
        Self { info: model.info().clone(), model, fault }
    }
}

impl Model for Faulty {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.model.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let session = self.model.session(options)?;
        let mut capabilities = session.capabilities().clone();
        capabilities.truncate = self.fault != Fault::NoTruncate;
        Ok(Box::new(FaultySession { session, capabilities, fault: self.fault, passes: 0 }))
    }
}

struct FaultySession {
    session: Box<dyn Session>,
    capabilities: Capabilities,
    fault: Fault,
    passes: u32,
}

impl Session for FaultySession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.passes += 1;
        match self.fault {
            Fault::Always => Err(StepError::Backend("always".into())),
            Fault::Sometimes if self.passes.is_multiple_of(5) => Err(StepError::Backend("sometimes".into())),
            Fault::Panic if self.passes == 10 => panic!("the tenth pass"),
            Fault::Panic if self.passes > 10 => unreachable!("a session is not used after a panic"),
            _ => self.session.forward(batch),
        }
    }

    fn release(&mut self, seq: SeqId) {
        self.session.release(seq);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.session.truncate(seq, len)
    }
}

/// Proposes nothing, so that the model drafts.
#[derive(Debug)]
struct Silent;

impl Proposer for Silent {
    fn propose(&mut self, _: RequestId, _: &[TokenId], _: usize, _: &mut Vec<TokenId>) {}
}

fn target() -> ScriptedModel {
    ScriptedModel::ngram(11)
}

/// Answers of `streams` streams with prompts of `prompt` tokens.
fn run(
    streams: u64,
    prompt: usize,
    draft: Option<(Faulty, SessionOptions)>,
) -> (Vec<Vec<TokenId>>, EngineStats) {
    let clock = ManualClock::new();
    let model = target().cost(clock.clone(), Duration::from_millis(28), Duration::from_millis(2));
    let session = SessionOptions::new().sequences(streams as usize);
    let options = EngineOptions::default().session(session).speculation(SpeculationMode::Off);
    let mut engine =
        EngineLoop::new(model.clone().shared(), options, Box::new(Fcfs::new()), Arc::new(clock)).unwrap();
    if let Some((draft, session)) = draft {
        let draft = DraftModel::new(Arc::new(draft), &model, &session).unwrap();
        engine.speculate(Some(Speculation::new(Silent).draft_model(draft)));
    }
    let open: Vec<_> = (0..streams)
        .map(|stream| {
            let prompt: Vec<TokenId> =
                (0..prompt as u64).map(|i| ((stream + 3) * (i + 7) % 256) as TokenId).collect();
            let params = SamplingParams::default()
                .temperature(if stream % 3 == 0 { 0.0 } else { 1.0 })
                .repetition_penalty(if stream % 2 == 0 { 1.0 } else { 1.3 })
                .seed(stream);
            let mut request = Request::tokens(prompt).sampling(params).max_tokens(120);
            request.ignore_eos = true;
            engine.submit(request).unwrap()
        })
        .collect();
    while engine.step() {}
    let complete = open.into_iter().map(|stream| stream.complete().unwrap());
    let answers = complete.map(|answer| answer.tokens.iter().filter_map(|token| token.id).collect());
    (answers.collect(), engine.stats())
}

fn session(sequences: usize) -> SessionOptions {
    SessionOptions::new().sequences(sequences)
}

#[test]
fn the_same_model_draws_the_same_tokens() {
    for streams in [1, 6] {
        let (expected, plain) = run(streams, 30, None);
        let draft = Faulty::new(target(), Fault::None);
        let (answers, stats) = run(streams, 30, Some((draft, session(6))));
        assert_eq!(answers, expected);
        let drafts = stats.scheduler.drafts;
        let of_model = drafts.by_source[DraftSource::DraftModel.index()];
        assert_eq!(of_model.drafted, drafts.drafted());
        // Drafts after the end of an answer are not verified.
        assert!(of_model.accepted * 100 > of_model.drafted * 95, "{drafts:?}");
        assert!(stats.steps * 3 < plain.steps, "{} steps, {} without drafts", stats.steps, plain.steps);
    }
}

#[test]
fn another_model_and_faults_change_no_answer() {
    let (expected, plain) = run(5, 30, None);
    for (model, fault) in [
        (ScriptedModel::ngram(12), Fault::None),
        (target(), Fault::Sometimes),
        (target(), Fault::Always),
        (target(), Fault::Panic),
    ] {
        let (answers, stats) = run(5, 30, Some((Faulty::new(model, fault), session(5))));
        assert_eq!(answers, expected, "{fault:?}");
        let drafts = stats.scheduler.drafts;
        match fault {
            Fault::Always => assert!(drafts.is_empty(), "{drafts:?}"),
            Fault::None => assert!(drafts.runs < 5 * 10, "a wrong model stops: {drafts:?}"),
            _ => assert!(drafts.accepted() > 10 && stats.steps < plain.steps, "{fault:?}: {drafts:?}"),
        }
    }
}

#[test]
fn long_prompts_and_small_sessions_change_no_answer() {
    let (expected, plain) = run(4, 700, None);
    let small = Faulty::new(target().kv(1600, 16), Fault::None);
    let short = Faulty::new(target().context(750), Fault::None);
    for (draft, session) in [
        (Faulty::new(target(), Fault::None), session(4)),
        (Faulty::new(target(), Fault::None), session(2)),
        (Faulty::new(target(), Fault::None), session(4).batch_tokens(128)),
        (small, session(4)),
        (short, session(4)),
    ] {
        let (answers, stats) = run(4, 700, Some((draft, session.clone())));
        assert_eq!(answers, expected, "{session:?}");
        assert!(stats.scheduler.drafts.accepted() > 0 && stats.steps < plain.steps, "{session:?}");
    }
}

#[test]
fn other_vocabularies_and_sessions_are_refused_in_words() {
    let mut larger = Faulty::new(target(), Fault::None);
    larger.info.n_vocab += 1;
    larger.info.name = "larger".into();
    let refusal =
        |draft: Faulty| DraftModel::new(Arc::new(draft), &target(), &session(1)).unwrap_err().to_string();
    let error = refusal(larger);
    assert!(
        error.contains("'larger'") && error.contains("it has 259 tokens, but the target has 258"),
        "{error}"
    );
    let error = refusal(Faulty::new(target(), Fault::NoTruncate));
    assert!(error.contains("cannot truncate"), "{error}");
}

/// A draft model that is loaded together with its target, with one engine for both.
#[test]
fn a_source_is_loaded_beside_its_target() {
    let load = LoadOptions::new();
    let source = |model: ScriptedModel| {
        DraftModelSource::new(Arc::new(ScriptedBackend::new(model)), ModelSource::file("draft.gguf"))
    };
    let start = |draft: DraftModelSource, options: EngineOptions| {
        draft.start(target().shared(), &load, options, &mut LoadProgress::none())
    };
    let request = || Request::text("once upon a time").max_tokens(100).seed(3).ignore_eos(true);
    let plain = Engine::start(target().shared(), EngineOptions::default().speculation(SpeculationMode::Off));
    let expected = plain.unwrap().submit(request()).unwrap().complete().unwrap().text;
    let engine = start(source(target()).drafts_max(3).adaptive(false), EngineOptions::default()).unwrap();
    let answer = engine.submit(request()).unwrap().complete().unwrap();
    assert_eq!(answer.text, expected);
    let of_model = answer.usage.drafts.by_source[DraftSource::DraftModel.index()];
    assert!(of_model.drafted > 0, "{:?}", answer.usage.drafts);
    assert_eq!(of_model.accepted, of_model.drafted, "its drafts are the target's tokens");

    let refusal = |draft, options| start(draft, options).unwrap_err().to_string();
    let off = EngineOptions::default().speculation(SpeculationMode::Off);
    assert!(refusal(source(target()), off).contains("requires auto or on"));
    let none = refusal(source(target()).drafts_max(0), EngineOptions::default());
    assert!(none.contains("at least 1 is required"), "{none}");
    let fixed =
        DraftModelSource::new(Arc::new(ScriptedBackend::new(target())), ModelSource::file("draft.gguf"));
    let error = fixed.start(
        target().without_truncate().shared(),
        &load,
        EngineOptions::default(),
        &mut LoadProgress::none(),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot truncate"), "{error}");
}
