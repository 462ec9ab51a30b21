//! Stateful host transforms: one per answer, informed of each token exactly once, despite preemption.

use super::driver::{Driver, costly, tokens};
use exsa_core::clock::ManualClock;
use exsa_core::sampler::{
    Accepted, Candidates, Mirostat, SampleScratch, SamplerContext, SamplingError, SamplingParams, Step,
    Transform, TransformFactory,
};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::{EngineOptions, Mode, Request, SubmitError, TokenId};
use std::sync::Arc;

/// Bans each generated token from then on. Tokens of the prompt are allowed.
#[derive(Debug, Default)]
struct Once(Vec<TokenId>);

impl Transform for Once {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        for &token in &self.0 {
            candidates.change(token, |_| f32::NEG_INFINITY);
        }
    }

    fn accept(&mut self, accepted: &Accepted) {
        self.0.push(accepted.token);
    }

    fn rollback(&mut self, n: usize) {
        self.0.truncate(self.0.len() - n);
    }
}

#[derive(Debug)]
struct OnceFactory;

impl TransformFactory for OnceFactory {
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        match context.tokenizer() {
            Some(tokenizer) if tokenizer.n_vocab() == context.n_vocab() => Ok(Box::new(Once::default())),
            _ => Err(SamplingError::transform("no tokenizer")),
        }
    }
}

fn requests(sampling: &SamplingParams) -> Vec<Request> {
    let shared: Arc<dyn TransformFactory> = Arc::new(OnceFactory);
    (0..12)
        .map(|seed| {
            let sampling = sampling.clone().seed(seed);
            let prompt = tokens(seed, 20 + seed as usize * 3);
            let request = Request::tokens(prompt).max_tokens(80).ignore_eos(true).sampling(sampling);
            request.transform(shared.clone())
        })
        .collect()
}

/// The answer by sampler and model alone.
fn alone(model: &ScriptedModel, sampling: &SamplingParams, seed: u64) -> Vec<TokenId> {
    let params = sampling.clone().seed(seed).logit_bias([(ByteTokenizer::EOS, f32::NEG_INFINITY)]);
    let tokenizer = ByteTokenizer::new();
    let context = SamplerContext::new(ByteTokenizer::N_VOCAB).with_tokenizer(&tokenizer);
    let mut sampler = params.build_with(&context, &[Arc::new(OnceFactory)]).unwrap();
    let (mut scratch, mut row) = (SampleScratch::default(), vec![0.0; ByteTokenizer::N_VOCAB]);
    let mut all = tokens(seed, 20 + seed as usize * 3);
    let prompt = all.len();
    for _ in 0..80 {
        model.logits(&all, &mut row);
        let token = sampler.sample(&row, &all, all.len() as u64, &mut scratch).unwrap().token;
        sampler.accept(token);
        all.push(token);
    }
    all.split_off(prompt)
}

/// KV for about four of twelve answers.
fn preempted(sampling: &SamplingParams) {
    let model = ScriptedModel::ngram(5).kv(448, 8);
    let clock = ManualClock::new();
    let options = EngineOptions::default().mode(Mode::Throughput);
    let mut driver = Driver::new(costly(model.clone(), &clock), clock, options);
    requests(sampling).into_iter().for_each(|request| {
        driver.submit(request);
    });
    driver.finish();
    assert!(driver.stats().scheduler.preemptions > 0);
    for (seed, answer) in (0..).zip(&driver.answers) {
        assert_eq!(answer.tokens, alone(&model, sampling, seed), "request {seed}");
        let mut unique = answer.tokens.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 80, "request {seed}");
    }
}

#[test]
fn preemption_leaves_a_transforms_state_alone() {
    preempted(&SamplingParams::default().temperature(1.5));
}

#[test]
fn preemption_leaves_feedback_alone() {
    let base = SamplingParams::default().temperature(1.5).mirostat_tau(3.0);
    preempted(&base.clone().mirostat(Mirostat::V1));
    preempted(&base.clone().mirostat(Mirostat::V2));
    preempted(&base.adaptive_target(0.2));
}

#[derive(Debug)]
struct Refusing;

impl TransformFactory for Refusing {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Err(SamplingError::transform("not for this model"))
    }
}

#[test]
fn a_transform_that_cannot_be_built_refuses_the_request() {
    let clock = ManualClock::new();
    let driver = Driver::new(ScriptedModel::ngram(5), clock, EngineOptions::default());
    let request = Request::text("x").transform(Arc::new(OnceFactory)).transform(Arc::new(Refusing));
    match driver.engine.submit(request) {
        Err(SubmitError::Sampling(SamplingError::Transform { reason })) => {
            assert_eq!(reason, "not for this model");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}
