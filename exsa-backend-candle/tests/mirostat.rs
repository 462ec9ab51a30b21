//! Mirostat on a real model: the text's surprise approaches the target.
#![allow(clippy::unwrap_used, reason = "tests")]

use exsa_backend_candle::CandleBackend;
use exsa_conformance::real_model;
use exsa_core::backend::SessionOptions;
use exsa_core::sampler::{
    Accepted, Candidates, Mirostat, SamplerContext, SamplingError, SamplingParams, Step, Transform,
    TransformFactory,
};
use exsa_core::{Engine, EngineOptions, Request};
use std::sync::{Arc, Mutex};

/// Records the surprise of each token under the distribution that it was drawn from, in nats.
#[derive(Clone, Debug, Default)]
struct Surprises(Arc<Mutex<Vec<f64>>>);

impl Transform for Surprises {
    fn apply(&mut self, _candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {}

    fn accept(&mut self, accepted: &Accepted) {
        self.0.lock().unwrap().extend(accepted.logprob.map(|logprob| -f64::from(logprob)));
    }

    fn needs_logprob(&self) -> bool {
        true
    }
}

impl TransformFactory for Surprises {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(self.clone()))
    }
}

/// Mean surprise of `tokens` tokens, in nats.
fn surprise(engine: &Engine, params: SamplingParams, tokens: usize) -> f64 {
    let surprises = Surprises::default();
    let params = params.temperature(1.0).top_k(None).top_p(1.0).min_p(0.0).seed(5);
    let request = Request::text("The history of the town begins").max_tokens(tokens).ignore_eos(true);
    let request = request.sampling(params).transform(Arc::new(surprises.clone()));
    let answer = engine.submit(request).unwrap().complete().unwrap();
    let surprises = surprises.0.lock().unwrap();
    assert_eq!((answer.tokens.len(), surprises.len()), (tokens, tokens));
    surprises.iter().sum::<f64>() / tokens as f64
}

/// Runs both versions over `tokens` tokens. The target is 2 nats, or nine tenths of the surprise of the
/// model's own distribution if that is less than 2 nats: mirostat only removes tokens, so it cannot reach
/// more.
fn reaches_its_target(tokens: usize, tolerance: f64) {
    let Some(model) = real_model::load(&CandleBackend::new()) else { return };
    let session = SessionOptions::new().sequences(1).context_tokens(tokens + 64);
    let engine = Engine::start(model.unwrap(), EngineOptions::default().session(session)).unwrap();
    let open = surprise(&engine, SamplingParams::default(), tokens);
    let target = (0.9 * open).min(2.0);
    for version in [Mirostat::V1, Mirostat::V2] {
        let tau = (target * std::f64::consts::LOG2_E) as f32;
        let params = SamplingParams::default().mirostat(version).mirostat_tau(tau);
        let got = surprise(&engine, params, tokens);
        println!("{version:?}: {got:.3} nats over {tokens} tokens, target {target:.3}, without {open:.3}");
        assert!((got - target).abs() < tolerance * target, "{version:?}: {got} nats, target {target}");
    }
}

#[test]
fn mirostat_approaches_its_target_within_a_few_tokens() {
    reaches_its_target(160, 0.25);
}

#[test]
#[ignore = "takes minutes"]
fn mirostat_reaches_its_target() {
    reaches_its_target(2000, 0.05);
}
