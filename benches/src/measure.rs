//! Measures one case on one engine.

use crate::case::Case;
use crate::driver;
use crate::error::BenchError;
use crate::progress::say;
use crate::prompts::Prompts;
use crate::trace::Trace;
use exsa_core::EngineLoop;

/// Tokens that streams generate in a warm-up run.
const WARMUP_TOKENS: usize = 4;

/// What the repetitions of a case gave. Rates by repetition, latencies of all of them together.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Prompt tokens per second.
    pub prefill: Vec<f64>,
    /// Tokens generated per second while all streams decode; empty where they never do.
    pub decode: Vec<f64>,
    /// Decode steps per second in the same time.
    pub decode_steps: Vec<f64>,
    /// Tokens of prompts and answers per second of the whole generation run.
    pub total: Vec<f64>,
    /// Times to the first token, in milliseconds.
    pub first_tokens_ms: Vec<f64>,
    /// Times between tokens, in milliseconds.
    pub gaps_ms: Vec<f64>,
}

/// Runs `case` on the idle `engine`: `warmup` times without, and `repetitions` times with measuring.
pub fn measure(
    engine: &mut EngineLoop,
    prompts: &Prompts,
    case: &Case,
    lengths: &[usize],
    (warmup, repetitions): (usize, usize),
) -> Result<Measured, BenchError> {
    let mut runs = 0..;
    let mut run = |generate| {
        let drawn = prompts.draw(lengths, runs.next().unwrap_or(u64::MAX));
        driver::run(engine, drawn, generate)
    };
    for _ in 0..warmup {
        run(case.generate.clamp(1, WARMUP_TOKENS))?;
    }
    let mut measured = Measured::default();
    for repetition in 1..=repetitions {
        let prefill = run(1)?;
        let generation = if case.generate > 0 { Some(run(case.generate)?) } else { None };
        measured.add(lengths, &prefill, generation.as_ref());
        say(format_args!("  {repetition}/{repetitions}: {}", measured.last()));
    }
    Ok(measured)
}

impl Measured {
    fn add(&mut self, lengths: &[usize], prefill: &Trace, generation: Option<&Trace>) {
        let prompt_tokens: usize = lengths.iter().sum();
        self.prefill.push(prompt_tokens as f64 / prefill.prefilled().as_secs_f64());
        let felt = generation.unwrap_or(prefill);
        self.first_tokens_ms.extend(felt.first_tokens_ms());
        self.gaps_ms.extend(felt.gaps_ms());
        if let Some(generation) = generation {
            let tokens = prompt_tokens + generation.tokens();
            self.total.push(tokens as f64 / generation.end().as_secs_f64());
            if let Some(phase) = generation.decode_phase() {
                self.decode.push(phase.tokens_per_second());
                self.decode_steps.push(phase.steps_per_second());
            }
        }
    }

    /// The last repetition for people.
    fn last(&self) -> String {
        let prefill = self.prefill.last().copied().unwrap_or_default();
        match self.decode.last() {
            Some(decode) => format!("prefill {prefill:.1}, decode {decode:.1} tokens/s"),
            None => format!("prefill {prefill:.1} tokens/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_follow_from_the_two_runs() {
        let seconds = |times: &[u64]| times.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let prefill = Trace { streams: vec![seconds(&[1]), seconds(&[2])] };
        let generation = Trace { streams: vec![seconds(&[1, 3, 4]), seconds(&[3, 4, 5])] };
        let mut measured = Measured::default();
        measured.add(&[30, 10], &prefill, Some(&generation));
        assert_eq!((measured.prefill[0], measured.decode[0], measured.decode_steps[0]), (20.0, 2.0, 1.0));
        assert!((measured.total[0] - 46.0 / 5.0).abs() < 1e-9);
        assert_eq!(measured.first_tokens_ms, [1000.0, 3000.0]);
        assert_eq!(measured.gaps_ms, [2000.0, 1000.0, 1000.0, 1000.0]);
        let mut measured = Measured::default();
        measured.add(&[30, 10], &prefill, None);
        assert!(measured.decode.is_empty() && measured.total.is_empty() && measured.gaps_ms.is_empty());
        assert_eq!(measured.first_tokens_ms, [1000.0, 2000.0]);
    }
}
