//! Our chains and llama.cpp's on the same rows, call by call in turn.

use crate::llama_cpp::Chain;
use crate::llama_cpp::Sampler::{self, Draw, Greedy, MinP, Penalties, Temperature, TopK, TopP};
use crate::{HISTORY, ROWS, rows};
use exsa_benches::random::Random;
use exsa_benches::verdict;
use exsa_core::sampler::{SampleScratch, SamplerContext, SamplingParams};
use std::hint::black_box;
use std::time::Instant;

/// Calls of each chain that are measured.
const ROUNDS: usize = 300;

fn chains() -> [(&'static str, SamplingParams, Vec<Sampler>); 5] {
    let base = || SamplingParams::default().min_p(0.0);
    let open = || base().top_k(None).top_p(1.0);
    let penalties = Penalties { last_n: 64, repetition: 1.1, frequency: 0.2 };
    let penalized = base().repetition_penalty(1.1).frequency_penalty(0.2);
    [
        ("greedy", SamplingParams::greedy(), vec![Greedy]),
        ("top-k 40, top-p, temperature", base(), vec![TopK(40), TopP(0.95), Temperature(0.8), Draw]),
        ("min-p, temperature", open().min_p(0.05), vec![MinP(0.05), Temperature(0.8), Draw]),
        ("penalties and these", penalized, vec![penalties, TopK(40), TopP(0.95), Temperature(0.8), Draw]),
        ("temperature alone", open(), vec![Temperature(0.8), Draw]),
    ]
}

/// How many times as fast ours are to be.
const RATIO_MIN: f64 = 2.0;

/// Prints the medians in microseconds, the ratio, and whether it is what it should be. A median of single
/// calls is that of calls during which nothing else ran.
pub(crate) fn run() {
    println!("ours and llama.cpp's chains, µs per token, medians of {ROUNDS} calls in turn");
    for n_vocab in [32_000, 128_256, 256_000] {
        let rows = rows(n_vocab);
        let mut random = Random::new(7);
        let history: Vec<_> = (0..HISTORY).map(|_| random.below(n_vocab) as u32).collect();
        for (name, params, samplers) in chains() {
            let Ok(mut ours) = params.build(&SamplerContext::new(n_vocab)) else { continue };
            let mut theirs = Chain::new(&samplers, n_vocab, &history);
            let (mut scratch, mut times) = (SampleScratch::default(), [Vec::new(), Vec::new()]);
            for round in 0..ROUNDS {
                let row = &rows[round % ROWS];
                let begun = Instant::now();
                let _ = black_box(ours.sample(row, &history, round as u64, &mut scratch));
                times[0].push(begun.elapsed());
                let begun = Instant::now();
                black_box(theirs.sample(row));
                times[1].push(begun.elapsed());
            }
            let [ours, theirs] = times.map(|mut times| {
                times.sort_unstable();
                times[ROUNDS / 2].as_secs_f64() * 1e6
            });
            let (of, times) = (format!("{n_vocab}, {name}"), format!("{ours:.1} and {theirs:.1} µs"));
            println!("{}", verdict::at_least(&of, &times, theirs / ours, RATIO_MIN));
        }
    }
}
