//! The sampling of a batch as a share of a model's step.

use crate::{HISTORY, SEQUENCES, rows};
use exsa_benches::bench_model;
use exsa_benches::driver::Run;
use exsa_benches::error::BenchError;
use exsa_benches::percentile::median;
use exsa_benches::prompts::Prompts;
use exsa_benches::random::Random;
use exsa_benches::verdict;
use exsa_core::backend::{ModelSource, SessionOptions};
use exsa_core::clock::SystemClock;
use exsa_core::queue::Fcfs;
use exsa_core::sampler::{SampleScratch, SamplerContext, SamplingParams};
use exsa_core::{EngineLoop, EngineOptions};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const VOCABULARY: usize = 128_256;
const ROUNDS: usize = 40;
const PROMPT: usize = 8;

/// Largest share of a step of a model of a billion parameters.
const SHARE_MAX: f64 = 0.05;

/// Prints the share that sampling takes of a step of the model that `EXSA_BENCH_MODEL` names: one of a
/// billion parameters, for the aim is for such a model.
pub(crate) fn run() {
    let Some(path) = bench_model::named() else {
        println!(
            "{SEQUENCES} sequences, share of a step: skipped: EXSA_BENCH_MODEL names no GGUF of 1B parameters"
        );
        return;
    };
    let (step, model) = match step(path) {
        Ok(step) => step,
        Err(error) => {
            println!("{SEQUENCES} sequences, share of a step: {error}");
            return;
        }
    };
    let open = SamplingParams::default().top_k(None).top_p(1.0).min_p(0.0);
    for (name, params) in [("default chain", SamplingParams::default()), ("temperature alone", open)] {
        let seconds = sampling(&params);
        let share = seconds / step;
        let value =
            format!("{:.2} ms of a step of {:.1} ms, {:.1} %", seconds * 1e3, step * 1e3, share * 1e2);
        let name = format!("{SEQUENCES} sequences of {VOCABULARY}, {name}, {model}");
        println!("{}", verdict::line(&name, &value, "less than 5 %", share < SHARE_MAX));
    }
}

/// Median seconds to sample a token of each sequence.
fn sampling(params: &SamplingParams) -> f64 {
    let rows = rows(VOCABULARY);
    let mut random = Random::new(7);
    let history: Vec<_> = (0..HISTORY).map(|_| random.below(VOCABULARY) as u32).collect();
    let context = SamplerContext::new(VOCABULARY);
    let samplers = (0..SEQUENCES as u64).map(|seed| params.clone().seed(seed).build(&context));
    let mut samplers: Vec<_> = samplers.flatten().collect();
    let mut scratch = SampleScratch::default();
    let rounds = (0..ROUNDS as u64).map(|position| {
        let begun = Instant::now();
        for (sampler, row) in samplers.iter_mut().zip(rows.iter().cycle()) {
            let _ = black_box(sampler.sample(row, &history, position, &mut scratch));
        }
        begun.elapsed().as_secs_f64()
    });
    median(&rounds.collect::<Vec<_>>()).unwrap_or_default()
}

/// Median seconds of a step in which all sequences decode, with greedy sampling, and the model's name.
fn step(path: PathBuf) -> Result<(f64, String), BenchError> {
    let (model, name) = bench_model::load(ModelSource::file(path))?;
    let generate = ROUNDS + 4;
    let session = SessionOptions::new().sequences(SEQUENCES).context_tokens(PROMPT + generate + 16);
    let options = EngineOptions::default().session(session);
    let (queue, clock) = (Box::new(Fcfs::new()), Arc::new(SystemClock::new()));
    let engine = EngineLoop::new(model.clone(), options, queue, clock);
    let mut engine = engine.map_err(|source| BenchError::Load { what: "a session".into(), source })?;
    let prompts = Prompts::new(&*model, 1)?.draw(&[PROMPT; SEQUENCES], 0);
    // Tokens that streams generate while others' prompts are computed come on top.
    let mut run = Run::submit(&engine, prompts, 2 * generate)?;
    run.fill(&mut engine)?;
    let slice = run.slice(&mut engine, ROUNDS / 2)?;
    run.cancel(&mut engine);
    let steps: Vec<f64> = slice.steps.iter().map(std::time::Duration::as_secs_f64).collect();
    Ok((median(&steps).unwrap_or(f64::INFINITY), name))
}
