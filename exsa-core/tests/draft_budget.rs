//! The budget of drafts: as many as pay off at the measured cost of rows, or none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drafts;
mod reference;

use drafts::{Answers, Kind, Oracle};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::{Clock, ManualClock};
use exsa_core::queue::Fcfs;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{Speculation, SpeculationMode};
use exsa_core::stats::{DraftStats, EngineStats};
use exsa_core::{EngineLoop, EngineOptions, Request, TokenId, TokenStream};
use reference::Reference;
use std::sync::Arc;
use std::time::Duration;

/// Passes of a 1B model on a CPU: reading the weights, and a row.
const READ: Duration = Duration::from_micros(28_000);
const ROW: Duration = Duration::from_micros(2_300);

struct Run {
    stats: EngineStats,
    elapsed: Duration,
    usage: Vec<DraftStats>,
}

impl Run {
    fn drafts(&self) -> DraftStats {
        self.stats.scheduler.drafts
    }
}

/// `streams` answers of `n` tokens by passes of this cost, with drafts of this kind or none. Checks that each
/// answer is that of a run alone.
fn run(streams: u64, n: usize, (pass, row): (Duration, Duration), kind: Option<Kind>, erratic: bool) -> Run {
    let clock = ManualClock::new();
    let mut model = ScriptedModel::ngram(7).cost(clock.clone(), pass, row);
    if erratic {
        model = model.erratic_cost();
    }
    let session = SessionOptions::new().sequences(streams as usize);
    let options =
        EngineOptions::default().session(session).stream_events_max(n + 2).speculation(SpeculationMode::Off);
    let mut engine =
        EngineLoop::new(model.clone().shared(), options, Box::new(Fcfs::new()), Arc::new(clock.clone()))
            .unwrap();
    let answers = Answers::default();
    let mut expected = Vec::new();
    let mut open: Vec<TokenStream> = Vec::new();
    for stream in 0..streams {
        let prompt: Vec<TokenId> = (0..20).map(|i| ((stream + 1) * 31 + i) as TokenId % 256).collect();
        let never_ends = [(ByteTokenizer::BOS, f32::NEG_INFINITY), (ByteTokenizer::EOS, f32::NEG_INFINITY)];
        let params = SamplingParams::default().seed(stream).logit_bias(never_ends);
        let reference = Reference::new(&model, &prompt, &params);
        let answer = Reference { tokens_max: Some(n), ..reference }.answer().tokens;
        answers.add([prompt.as_slice(), &answer].concat());
        open.push(engine.submit(Request::tokens(prompt).sampling(params).max_tokens(n)).unwrap());
        expected.push(answer);
    }
    if let Some(kind) = kind {
        engine.speculate(Some(Speculation::new(Oracle::new(kind, 1, &answers))));
    }
    while engine.step() {}
    let mut usage = Vec::new();
    for (stream, expected) in open.into_iter().zip(expected) {
        let answer = stream.complete().unwrap();
        let tokens: Vec<TokenId> = answer.tokens.iter().filter_map(|token| token.id).collect();
        assert_eq!(tokens, expected);
        usage.push(*answer.usage.drafts);
    }
    Run { stats: engine.stats(), elapsed: clock.now(), usage }
}

#[test]
fn right_drafts_fill_cheap_rows() {
    let plain = run(1, 400, (READ, ROW), None, false);
    let drafted = run(1, 400, (READ, ROW), Some(Kind::Right), false);
    let gain = plain.elapsed.as_secs_f64() / drafted.elapsed.as_secs_f64();
    assert!(gain > 4.0, "{gain}: {:?}", drafted.drafts());
    let stats = drafted.drafts();
    assert_eq!(stats.drafted(), stats.accepted());
    assert!(stats.by_position[7].drafted > 100, "{stats:?}");
    assert_eq!(drafted.usage, [stats], "a request's own usage has the same counts");
}

#[test]
fn wrong_drafts_stop_and_are_probed_every_64_tokens() {
    for streams in [1, 8] {
        let n = 640;
        let plain = run(streams, n, (READ, ROW), None, false);
        let drafted = run(streams, n, (READ, ROW), Some(Kind::Wrong), false);
        for stats in &drafted.usage {
            assert_eq!(stats.accepted(), 0);
            // Four runs until the stop, then one token each time.
            let probes = n as u64 / 64;
            assert!(stats.runs <= 5 + probes, "{stats:?}");
            // Of eight streams, a probe may not pay.
            assert!(streams > 1 || stats.runs + 2 >= probes, "{stats:?}");
        }
        let loss = drafted.elapsed.as_secs_f64() / plain.elapsed.as_secs_f64();
        assert!(loss < 1.02, "{streams} streams: {loss}");
    }
}

#[test]
fn under_load_there_are_no_drafts() {
    // Passes that are bound by computing: all of the cost is that of rows.
    let bound = (Duration::from_micros(10), Duration::from_millis(5));
    let plain = run(16, 200, bound, None, false);
    for kind in [Kind::Mixed, Kind::Right] {
        let drafted = run(16, 200, bound, Some(kind), false);
        let share = drafted.drafts().drafted() as f64 / (16.0 * 200.0);
        assert!(share < 0.05, "{kind:?}: {share}");
        assert!(drafted.elapsed.as_secs_f64() < 1.02 * plain.elapsed.as_secs_f64(), "{kind:?}");
    }
}

#[test]
fn some_right_drafts_pay_for_one_stream_and_for_eight() {
    for (streams, least) in [(1, 1.2), (8, 1.05)] {
        let plain = run(streams, 300, (READ, ROW), None, false);
        let drafted = run(streams, 300, (READ, ROW), Some(Kind::Mixed), false);
        let gain = plain.elapsed.as_secs_f64() / drafted.elapsed.as_secs_f64();
        println!("{streams} streams: {gain:.2}, {:?}", drafted.drafts().by_position);
        assert!(gain > least, "{streams} streams: {gain}");
    }
}

#[test]
fn erratic_costs_change_no_answer_and_the_budget_is_reproducible() {
    for kind in Kind::ALL {
        let [a, b] = [(); 2].map(|()| run(4, 150, (READ, ROW), Some(kind), true));
        assert_eq!((a.stats, a.elapsed), (b.stats, b.elapsed), "{kind:?}");
        assert!(a.drafts().drafted() > 0, "{kind:?}");
    }
}
