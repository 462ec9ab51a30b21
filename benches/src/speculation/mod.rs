//! Gain by drafts: the same answers with each proposer of drafts and with none, in interleaved rounds.

mod options;
mod rate;
mod workload;

pub use options::Options;

use crate::backends;
use crate::compare::Ratio;
use crate::error::BenchError;
use crate::percentile::median;
use crate::progress::say;
use crate::throughput::write_line;
use exsa_core::backend::{LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions};
use exsa_core::clock::SystemClock;
use exsa_core::queue::Fcfs;
use exsa_core::speculate::{PromptLookup, Speculation, SpeculationMode, SuffixIndex};
use exsa_core::stats::DraftStats;
use exsa_core::{
    EngineLoop, EngineOptions, Event, PrefixCacheOptions, Prompt, Request, TokenId, TokenStream,
};
use rate::{Answers, KnownAnswers};
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use workload::Workload;

/// Tokens of KV per stream for its prompt and the room that the engine keeps free.
const PROMPT_TOKENS: usize = 512;

/// One JSON line: a proposer, with a number of streams.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The model's file as it was given.
    pub model: String,
    /// Name of the workload.
    pub workload: &'static str,
    /// Streams that run together.
    pub streams: usize,
    /// Name of the proposer.
    pub proposer: String,
    /// Tokens generated per second once all prompts are computed, the median over the rounds.
    pub tokens_per_second: Option<f64>,
    /// How many times as fast as without drafts, in the same rounds.
    pub ratio: Option<Ratio>,
    /// Tokens generated per pass, all streams together.
    pub tokens_per_pass: f64,
    /// Drafts verified.
    pub drafted: u64,
    /// Drafts accepted.
    pub accepted: u64,
    /// Answers other than without drafts: none where the backend is batch-invariant.
    pub different: usize,
    /// Rounds measured.
    pub rounds: usize,
}

/// A proposer, and what was measured of it. All take turns in one engine, since two engines of one model
/// differ by where their memory lies.
struct Contender {
    name: String,
    /// Away while its round runs.
    speculation: Option<Speculation>,
    rates: Vec<f64>,
    tokens: u64,
    passes: u64,
    drafts: DraftStats,
    different: usize,
}

/// Measures every workload that `options` ask for and writes one line of JSON for each proposer.
///
/// # Errors
///
/// If the model cannot be loaded, a session not be made, or a request fails.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    let failed = |source| BenchError::Load { what: options.model.display().to_string(), source };
    let load = LoadOptions::new().threads(ThreadOptions::new(Some(options.threads())));
    let backend = backends::backend(&options.backend)?;
    let source = ModelSource::file(&options.model);
    let model = backend.load(&source, &load, &mut LoadProgress::none()).map_err(failed)?;
    for workload in options.workloads() {
        for streams in &options.streams {
            say(format_args!("{}, {streams} streams", workload.name()));
            measure(options, &model, *workload, usize::from(*streams), out)?;
        }
    }
    Ok(())
}

fn measure(
    options: &Options,
    model: &Arc<dyn Model>,
    workload: Workload,
    streams: usize,
    out: &mut dyn Write,
) -> Result<(), BenchError> {
    let answers = Answers::default();
    let mut proposers = vec![("none".to_owned(), None)];
    proposers.extend(options.rate.iter().map(|rate| {
        let known = KnownAnswers::new(&answers, *rate, model.info().n_vocab);
        (format!("rate {rate}"), Some(Speculation::new(known)))
    }));
    if options.rate.is_empty() {
        proposers.push(("prompt_lookup".into(), Some(Speculation::new(PromptLookup::default()))));
        proposers.push(("suffix_index".into(), Some(Speculation::new(SuffixIndex::default()))));
        proposers.push(("default".into(), Some(Speculation::default())));
    }
    let contender = |(name, speculation): (String, Option<Speculation>)| {
        Contender::new(name, speculation.map(|speculation| speculation.adaptive(!options.all_drafts)))
    };
    let mut contenders: Vec<_> = proposers.into_iter().map(contender).collect();
    let mut engine = engine(options, model, streams)?;
    let requests = workload.requests(options, &**model, streams)?;
    // The answers of the first round, which warms up, are those that a proposer may know.
    let expected = contenders[0].round(&mut engine, &requests)?.0;
    for (request, answer) in requests.iter().zip(&expected) {
        if let Prompt::Tokens(prompt) = &request.prompt {
            answers.add([prompt.as_slice(), answer].concat());
        }
    }
    for contender in &mut contenders[1..] {
        contender.round(&mut engine, &requests)?;
    }
    contenders.iter_mut().for_each(Contender::reset);
    for round in 0..usize::from(options.rounds) {
        for place in 0..contenders.len() {
            // The order turns, so that none always follows the same.
            let at = (round + place) % contenders.len();
            let (given, rate) = contenders[at].round(&mut engine, &requests)?;
            contenders[at].rates.push(rate);
            contenders[at].different += given.iter().zip(&expected).filter(|(a, b)| a != b).count();
        }
    }
    let plain = contenders[0].rates.clone();
    contenders.iter().try_for_each(|contender| {
        let line = Line {
            model: options.model.display().to_string(),
            workload: workload.name(),
            streams,
            proposer: contender.name.clone(),
            tokens_per_second: median(&contender.rates),
            ratio: Ratio::new(&contender.rates, &plain),
            tokens_per_pass: contender.tokens as f64 / contender.passes.max(1) as f64,
            drafted: contender.drafts.drafted(),
            accepted: contender.drafts.accepted(),
            different: contender.different,
            rounds: contender.rates.len(),
        };
        write_line(&line, out)
    })
}

/// An engine without drafts in which all streams fit.
fn engine(options: &Options, model: &Arc<dyn Model>, streams: usize) -> Result<EngineLoop, BenchError> {
    let tokens = (PROMPT_TOKENS + usize::from(options.generate)).min(model.info().n_ctx);
    let session = SessionOptions::new()
        .sequences(streams)
        .context_tokens(tokens)
        .kv_tokens(tokens * streams)
        .threads(ThreadOptions::new(Some(options.threads())));
    let engine_options = EngineOptions::default()
        .session(session)
        .speculation(SpeculationMode::Off)
        .stream_events_max(usize::from(options.generate) + 8)
        .prefix_cache(PrefixCacheOptions::disabled());
    let (queue, clock) = (Box::new(Fcfs::new()), Arc::new(SystemClock::new()));
    EngineLoop::new(model.clone(), engine_options, queue, clock)
        .map_err(|source| BenchError::Load { what: "session".into(), source })
}

impl Contender {
    fn new(name: String, speculation: Option<Speculation>) -> Self {
        let drafts = DraftStats::default();
        Self { name, speculation, rates: Vec::new(), tokens: 0, passes: 0, drafts, different: 0 }
    }

    /// Forgets what was counted so far.
    fn reset(&mut self) {
        (self.tokens, self.passes, self.drafts, self.different) = (0, 0, DraftStats::default(), 0);
    }

    /// Answers `requests` and counts. Returns the answers, and the tokens generated per second once each had
    /// its first.
    fn round(
        &mut self,
        engine: &mut EngineLoop,
        requests: &[Request],
    ) -> Result<(Vec<Vec<TokenId>>, f64), BenchError> {
        engine.speculate(self.speculation.take());
        let result = self.answers(engine, requests);
        self.speculation = engine.speculate(None);
        result
    }

    fn answers(
        &mut self,
        engine: &mut EngineLoop,
        requests: &[Request],
    ) -> Result<(Vec<Vec<TokenId>>, f64), BenchError> {
        let submit = |(stream, request): (usize, &Request)| {
            engine.submit(request.clone()).map_err(|source| BenchError::Submit { stream, source })
        };
        let mut streams = requests.iter().enumerate().map(submit).collect::<Result<Vec<_>, _>>()?;
        let mut answers = vec![Vec::new(); streams.len()];
        let mut open = streams.len();
        while answers.iter().any(Vec::is_empty) && open > 0 {
            self.step(engine, &mut streams, &mut answers, &mut open)?;
        }
        let (start, before) = (Instant::now(), engine.stats());
        while open > 0 {
            self.step(engine, &mut streams, &mut answers, &mut open)?;
        }
        let (elapsed, after) = (start.elapsed(), engine.stats());
        let tokens = after.tokens_generated - before.tokens_generated;
        self.tokens += tokens;
        self.passes += after.steps - before.steps;
        Ok((answers, tokens as f64 / elapsed.as_secs_f64()))
    }

    fn step(
        &mut self,
        engine: &mut EngineLoop,
        streams: &mut [TokenStream],
        answers: &mut [Vec<TokenId>],
        open: &mut usize,
    ) -> Result<(), BenchError> {
        if !engine.step() {
            return Err(BenchError::Stalled { streams: *open });
        }
        for (stream, (events, answer)) in streams.iter_mut().zip(answers).enumerate() {
            while let Some(event) = events.try_next() {
                match event {
                    Event::Token(token) => answer.extend(token.id),
                    Event::Finished(finished) => {
                        if let Some(source) = finished.reason.error().cloned() {
                            return Err(BenchError::Request { stream, source });
                        }
                        self.drafts.merge(&finished.usage.drafts);
                        *open -= 1;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn known_answers_give_the_same_answers_in_fewer_passes() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");
        let arguments =
            ["speculation", "--model", model, "--streams", "2", "--generate", "24", "--rounds", "1"];
        // Whether drafts pay is a matter of measured times.
        let rates = ["--rate", "0,1", "--all-drafts"];
        let options = Options::try_parse_from(arguments.iter().chain(&rates)).unwrap();
        let mut out = Vec::new();
        run(&options, &mut out).unwrap();
        let lines: Vec<serde_json::Value> = out
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let names: Vec<_> = lines.iter().map(|line| line["proposer"].as_str().unwrap()).collect();
        assert_eq!(names, ["none", "rate 0", "rate 1"]);
        assert!(lines.iter().all(|line| line["different"] == 0), "{lines:?}");
        let [per_pass, drafted, accepted] = ["tokens_per_pass", "drafted", "accepted"]
            .map(|name| lines.iter().map(|line| line[name].as_f64().unwrap()).collect::<Vec<_>>());
        assert!(per_pass[2] > 1.5 * per_pass[0] && per_pass[1] <= per_pass[0] * 1.01, "{per_pass:?}");
        assert_eq!((accepted[1], drafted[0]), (0.0, 0.0));
        assert_eq!(accepted[2], drafted[2]);
    }
}
