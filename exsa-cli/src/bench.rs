//! `exsa bench`: prefill and decode speed.

use crate::args::BenchArgs;
use crate::error::CliError;
use crate::model;
use exsa::core::PrefixCacheOptions;
use exsa::{Engine, Event, Request, SamplingParams, TokenId, TokenStream};
use serde::Serialize;
use std::io::Write;
use std::time::{Duration, Instant};

/// Context tokens of each stream beyond prompt and answer.
const SPARE: usize = 64;

/// A row of the table: medians over the rounds.
#[derive(Debug, Serialize)]
struct Row {
    streams: usize,
    prompt_tokens: usize,
    generated_tokens: usize,
    /// Prompt tokens per second over all streams, from the first submission to the first token of the last
    /// stream.
    prompt_per_second: f64,
    /// Generated tokens per second over all streams, after the first token of the last stream.
    generated_per_second: f64,
    /// Mean time to first token of the streams, in seconds.
    first_token_seconds: f64,
}

/// Runs the command.
pub(crate) fn bench(args: &BenchArgs) -> Result<(), CliError> {
    let (prompt, generate) = (args.prompt.get(), args.generate.get());
    let streams_max = args.parallel.iter().map(|streams| streams.get()).max().unwrap_or(1);
    let tokens = prompt.checked_add(generate).and_then(|tokens| tokens.checked_add(SPARE));
    let tokens = tokens.ok_or_else(|| CliError::Usage("prompt and answer are too long".into()))?;
    let mut builder = model::builder(&args.engine)?.sequences(streams_max);
    if args.engine.context.is_none() {
        builder = builder.context_tokens(tokens);
    }
    // Prompts are new in every round, so their cached KV would be useless.
    let builder = builder.options(|options| options.prefix_cache(PrefixCacheOptions::disabled()));
    let engine = model::load(&args.model, builder)?;
    if !args.json {
        eprintln!("{}\n", engine.model().summary());
    }
    let mut prompts = Prompts { state: 1, n_vocab: engine.model().n_vocab };
    // Warm-up: the first pass of an engine touches its memory.
    round(&engine, &mut prompts, 1, prompt.min(32), generate.min(8))?;
    let mut rows = Vec::new();
    for streams in &args.parallel {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds.get() {
            rounds.push(round(&engine, &mut prompts, streams.get(), prompt, generate)?);
        }
        rows.push(medians(&rounds, streams.get(), prompt, generate));
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&rows)?)?);
    }
    writeln!(
        out,
        "{:>8} {:>18} {:>21} {:>16}",
        "streams", "prompt tokens/s", "generated tokens/s", "first token"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>8} {:>18.1} {:>21.1} {:>14.3} s",
            row.streams, row.prompt_per_second, row.generated_per_second, row.first_token_seconds
        )?;
    }
    Ok(())
}

/// Timings of a round.
struct Round {
    /// Time to the first token of the last stream.
    prompts: f64,
    /// Time from there to the end.
    rest: f64,
    /// Tokens generated in `rest`.
    tokens: usize,
    first_token: f64,
}

/// Submits all streams at once and reads each to its end on a separate thread.
fn round(
    engine: &Engine,
    prompts: &mut Prompts,
    streams: usize,
    prompt: usize,
    generate: usize,
) -> Result<Round, CliError> {
    let begun = Instant::now();
    let mut readers = Vec::with_capacity(streams);
    for _ in 0..streams {
        let request = Request::tokens(prompts.next(prompt))
            .sampling(SamplingParams::greedy())
            .ignore_eos(true)
            .max_tokens(generate);
        let stream = engine.submit(request)?;
        readers.push(std::thread::spawn(move || times(stream, begun)));
    }
    let mut times = Vec::with_capacity(streams);
    for reader in readers {
        times.push(reader.join().map_err(|_| CliError::Other("a reader panicked".into()))??);
    }
    let firsts: Vec<_> = times.iter().filter_map(|times| times.first().copied()).collect();
    let last_first = firsts.iter().max().copied().unwrap_or_default();
    let end = times.iter().filter_map(|times| times.last().copied()).max().unwrap_or_default();
    Ok(Round {
        prompts: last_first.as_secs_f64(),
        rest: end.saturating_sub(last_first).as_secs_f64(),
        tokens: times.iter().flatten().filter(|time| **time > last_first).count(),
        first_token: firsts.iter().map(Duration::as_secs_f64).sum::<f64>() / firsts.len().max(1) as f64,
    })
}

/// Arrival times of a stream's tokens.
fn times(stream: TokenStream, begun: Instant) -> Result<Vec<Duration>, CliError> {
    let mut times = Vec::new();
    for event in stream {
        match event {
            Event::Token(token) if token.id.is_some() => times.push(begun.elapsed()),
            Event::Finished(end) => {
                end.reason.into_result()?;
            }
            _ => {}
        }
    }
    Ok(times)
}

fn medians(rounds: &[Round], streams: usize, prompt: usize, generate: usize) -> Row {
    let median = |value: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let per_second = |amount: usize, seconds: f64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
    Row {
        streams,
        prompt_tokens: prompt,
        generated_tokens: generate,
        prompt_per_second: median(&|round| per_second(streams * prompt, round.prompts)),
        generated_per_second: median(&|round| per_second(round.tokens, round.rest)),
        first_token_seconds: median(&|round| round.first_token),
    }
}

/// Prompts of random tokens, all different.
struct Prompts {
    state: u64,
    n_vocab: usize,
}

impl Prompts {
    fn next(&mut self, tokens: usize) -> Vec<TokenId> {
        (0..tokens).map(|_| (self.random() % self.n_vocab.max(1) as u64) as TokenId).collect()
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
