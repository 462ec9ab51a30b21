//! Greedy answers beside those of the same model in this process.

use crate::{Failure, Outcome, complete, ensure};
use exsa_backend_candle::CandleBackend;
use exsa_backend_remote::RemoteEngine;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::{Engine, EngineOptions, Request, SamplingParams};

const PROMPTS: [&str; 4] = [
    "The story of the frog and the princess begins in a dark wood, where",
    "The capital of France is",
    "Water boils when",
    "1, 2, 3, 4,",
];

/// Compares texts, and log-probabilities as far as the texts agree.
pub(crate) fn compare(remote: &RemoteEngine, file: &str) -> Outcome {
    let model = CandleBackend::new().load(
        &ModelSource::file(file),
        &LoadOptions::new(),
        &mut LoadProgress::none(),
    )?;
    let local = Engine::start(model, EngineOptions::default())?;
    let (mut same, mut all, mut equal_texts, mut difference) = (0, 0, 0, 0_f32);
    for prompt in PROMPTS {
        let sampling = SamplingParams::greedy().logprobs(true).top_logprobs(1);
        let request = Request::text(prompt).max_tokens(24).sampling(sampling);
        let ours = local.submit(request.clone())?.complete()?;
        let theirs = complete(remote, request)?;
        equal_texts += usize::from(ours.text == theirs.text);
        let pairs = ours.tokens.iter().zip(&theirs.tokens).take_while(|(a, b)| a.text == b.text);
        for (a, b) in pairs {
            same += 1;
            let (a, b) = (a.logprob.ok_or("no logprob here")?, b.logprob.ok_or("no logprob there")?);
            difference = difference.max((a - b).abs());
        }
        all += ours.tokens.len();
    }
    ensure(same * 2 > all, format!("{same} of {all} tokens are the same"))?;
    ensure(difference < 0.5, format!("log-probabilities differ by {difference}"))?;
    let found =
        format!("{equal_texts} of {} texts equal, {same} of {all} tokens before the first", PROMPTS.len());
    Ok::<_, Failure>(format!("{found} difference, log-probabilities within {difference:.3}"))
}
