//! Measures one case on several backends in turn.

use crate::case::Case;
use crate::driver::{Run, Slice};
use crate::error::BenchError;
use crate::progress::say;
use crate::prompts::Prompts;
use crate::trace::Trace;
use exsa_core::EngineLoop;

/// Tokens that streams generate in a warm-up run.
const WARMUP_TOKENS: usize = 4;

/// One of those who are compared.
pub struct Contender {
    /// Name of the backend.
    pub name: String,
    /// An engine of its own, idle.
    pub engine: EngineLoop,
    /// Prompts for its model.
    pub prompts: Prompts,
    /// Names of adapters that streams use in turn.
    adapters: Vec<String>,
    runs: u64,
}

/// How often what is done.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Runs before measuring.
    pub warmup: usize,
    /// Times that the prompts are computed.
    pub prefill: usize,
    /// Times that tokens are generated.
    pub decode: usize,
    /// Tokens of a batch: what warm-up runs compute at most.
    pub batch: usize,
}

/// Results of the rounds of a case on one backend: rates by round, latencies of all of them together.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Prompt tokens per second.
    pub prefill: Vec<f64>,
    /// Tokens generated per second while all streams decode.
    pub decode: Vec<f64>,
    /// Decode steps per second in the same time.
    pub decode_steps: Vec<f64>,
    /// Tokens of prompts and answers per second of whole runs.
    pub total: Vec<f64>,
    /// Times to the first token, in milliseconds.
    pub first_tokens_ms: Vec<f64>,
    /// Times between tokens, in milliseconds.
    pub gaps_ms: Vec<f64>,
}

impl Contender {
    /// One who has run nothing yet.
    pub fn new(name: String, engine: EngineLoop, prompts: Prompts) -> Self {
        Self { name, engine, prompts, adapters: Vec::new(), runs: 0 }
    }

    /// Lets streams use loaded adapters in turn.
    pub fn adapters(mut self, names: Vec<String>) -> Self {
        self.adapters = names;
        self
    }

    /// Submits prompts that none of its runs had before; those of the others' same run are equal.
    fn submit(&mut self, lengths: &[usize], generate: usize) -> Result<Run, BenchError> {
        let prompts = self.prompts.draw(lengths, self.runs);
        self.runs += 1;
        let mut adapters = self.adapters.iter().cycle();
        let request = |prompt| match adapters.next() {
            Some(adapter) => Run::request(prompt).adapter(adapter, 1.0),
            None => Run::request(prompt),
        };
        let requests = prompts.into_iter().map(request).collect();
        Run::submit_requests(&self.engine, requests, generate)
    }

    fn run(&mut self, lengths: &[usize], generate: usize) -> Result<Trace, BenchError> {
        self.submit(lengths, generate)?.finish(&mut self.engine)
    }
}

/// Runs `case` on each of `contenders` in turn, round by round, and gives what was measured, in their order.
///
/// `generate` is what each stream may generate in all: the case's tokens for every round, and what streams
/// generate while others' prompts are computed.
pub fn measure(
    contenders: &mut [Contender],
    case: &Case,
    lengths: &[usize],
    rounds: Rounds,
    generate: usize,
) -> Result<Vec<Measured>, BenchError> {
    let mut measured = vec![Measured::default(); contenders.len()];
    let short = (rounds.batch / lengths.len().max(1)).max(1);
    let short: Vec<_> = lengths.iter().map(|length| *length.min(&short)).collect();
    for contender in contenders.iter_mut() {
        for _ in 0..rounds.warmup {
            contender.run(&short, case.generate.clamp(1, WARMUP_TOKENS))?;
        }
    }
    if case.is_mixed() && case.generate > 0 {
        in_turn(rounds.decode, contenders.len(), |i| {
            let trace = contenders[i].run(lengths, case.generate)?;
            measured[i].add_whole(lengths, &trace);
            tell(&contenders[i], "prompts and answers", measured[i].total.last());
            Ok(())
        })?;
        return Ok(measured);
    }
    in_turn(rounds.prefill, contenders.len(), |i| {
        let trace = contenders[i].run(lengths, 1)?;
        measured[i].add_prefill(lengths, &trace, case.generate == 0);
        tell(&contenders[i], "prefill", measured[i].prefill.last());
        Ok(())
    })?;
    if case.generate > 0 {
        let mut runs = Vec::with_capacity(contenders.len());
        for (contender, measured) in contenders.iter_mut().zip(&mut measured) {
            let mut run = contender.submit(lengths, generate)?;
            run.fill(&mut contender.engine)?;
            measured.add_fill(lengths, &run.trace());
            runs.push(run);
        }
        in_turn(rounds.decode, contenders.len(), |i| {
            measured[i].add_slice(&runs[i].slice(&mut contenders[i].engine, case.generate)?);
            tell(&contenders[i], "decode", measured[i].decode.last());
            Ok(())
        })?;
        for (contender, run) in contenders.iter_mut().zip(runs) {
            run.cancel(&mut contender.engine);
        }
    }
    Ok(measured)
}

/// Calls `once` for each of `n` in each round, another one first each time, so that nobody always follows the
/// same.
pub fn in_turn(
    rounds: usize,
    n: usize,
    mut once: impl FnMut(usize) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    (0..rounds).try_for_each(|round| (0..n).try_for_each(|i| once((round + i) % n)))
}

fn tell(contender: &Contender, what: &str, rate: Option<&f64>) {
    say(format_args!("  {}: {what} {:.1} tokens/s", contender.name, rate.copied().unwrap_or_default()));
}

impl Measured {
    fn add_prefill(&mut self, lengths: &[usize], run: &Trace, felt: bool) {
        self.prefill.push(lengths.iter().sum::<usize>() as f64 / run.prefilled().as_secs_f64());
        if felt {
            self.first_tokens_ms.extend(run.first_tokens_ms());
        }
    }

    /// A single stream's prompt is computed in just the same way before it decodes; those of several are
    /// mixed with decodes, and tell nothing about prefill.
    fn add_fill(&mut self, lengths: &[usize], run: &Trace) {
        self.first_tokens_ms.extend(run.first_tokens_ms());
        if lengths.len() == 1 {
            self.add_prefill(lengths, run, false);
        }
    }

    fn add_slice(&mut self, slice: &Slice) {
        self.decode.push(slice.tokens_per_second());
        self.decode_steps.push(slice.steps_per_second());
        self.gaps_ms.extend(slice.steps.iter().map(|time| time.as_secs_f64() * 1e3));
    }

    fn add_whole(&mut self, lengths: &[usize], run: &Trace) {
        let tokens = lengths.iter().sum::<usize>() + run.tokens();
        self.total.push(tokens as f64 / run.end().as_secs_f64());
        self.first_tokens_ms.extend(run.first_tokens_ms());
        self.gaps_ms.extend(run.gaps_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_follow_from_the_runs() {
        let seconds = |times: &[u64]| times.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let prefill = Trace { streams: vec![seconds(&[1]), seconds(&[2])] };
        let mut measured = Measured::default();
        measured.add_prefill(&[30, 10], &prefill, true);
        assert_eq!((measured.prefill[0], &measured.first_tokens_ms), (20.0, &vec![1000.0, 2000.0]));
        measured.add_fill(&[30, 10], &prefill);
        assert_eq!(measured.prefill.len(), 1, "two streams fill mixed with decodes");
        measured.add_fill(&[30], &Trace { streams: vec![seconds(&[3])] });
        assert_eq!(measured.prefill, [20.0, 10.0]);

        let mut measured = Measured::default();
        measured.add_slice(&Slice { tokens: 6, steps: seconds(&[1, 2]) });
        assert_eq!((measured.decode[0], measured.decode_steps[0]), (2.0, 2.0 / 3.0));
        assert_eq!(measured.gaps_ms, [1000.0, 2000.0]);

        let mut measured = Measured::default();
        let whole = Trace { streams: vec![seconds(&[1, 3, 4]), seconds(&[3, 4, 5])] };
        measured.add_whole(&[30, 10], &whole);
        assert!((measured.total[0] - 46.0 / 5.0).abs() < 1e-9);
        assert_eq!(measured.first_tokens_ms, [1000.0, 3000.0]);
        assert_eq!(measured.gaps_ms, [2000.0, 1000.0, 1000.0, 1000.0]);
    }

    #[test]
    fn everyone_has_his_turn_in_every_round_and_is_first_in_some() {
        let mut order = Vec::new();
        in_turn(3, 2, |i| {
            order.push(i);
            Ok(())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
    }
}
