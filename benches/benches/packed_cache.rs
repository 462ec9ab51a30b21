//! Starts of a process with and without the packed cache, in interleaved rounds, each in a process of its
//! own: time to load, time from the start of the process to the first token, tokens per second, and resident
//! memory.
//!
//! | case | weights |
//! |---|---|
//! | `packed` | packed while loading, without a cache |
//! | `shared` | the mapped packed file |
//! | `huge` | copied from the packed file to large pages |
//! | `checked` | the mapped packed file, with all checksums checked while loading |
//!
//! `EXSA_BENCH_MODEL` names a GGUF file, which is needed, `EXSA_BENCH_PACKED` a folder for its packed file,
//! the system's folder for temporary files without it; `EXSA_BENCH_ROUNDS` and `EXSA_BENCH_THREADS` set
//! rounds (7) and threads (2).
#![allow(missing_docs)]

use exsa_backend_candle::CandleBackend;
use exsa_benches::percentile::{median, range};
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, ModelSource, PackedCache, PackedCheck, SessionOptions,
    ThreadOptions, WeightPages,
};
use exsa_core::{Engine, EngineOptions, Event, Request};
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

const CASES: [&str; 4] = ["packed", "shared", "huge", "checked"];

/// Figures of a start, in the order of a child's output.
const FIGURES: [&str; 6] =
    ["load, ms", "first token, ms", "tokens/s", "resident, MiB", "of files, MiB", "own, MiB"];

/// Tokens of an answer.
const TOKENS: usize = 64;

/// Names the case of a child.
const CHILD: &str = "EXSA_BENCH_PACKED_CASE";

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn cache(case: &str) -> Option<PackedCache> {
    let folder = std::env::var_os("EXSA_BENCH_PACKED").map_or_else(std::env::temp_dir, PathBuf::from);
    let cache = PackedCache::in_folder(folder);
    match case {
        "shared" => Some(cache),
        "huge" => Some(cache.pages(WeightPages::Huge)),
        "checked" => Some(cache.check(PackedCheck::Load)),
        _ => None,
    }
}

/// A field of `/proc/self/status` in MiB; 0 on other systems.
fn status(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: Option<f64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// One start; prints its figures.
fn start(case: &str, model: PathBuf) -> Result<(), Failure> {
    let begin = Instant::now();
    let threads = ThreadOptions::compute(number("EXSA_BENCH_THREADS", 2));
    let options = LoadOptions::new().threads(threads).packed_cache(cache(case));
    let model = CandleBackend::new().load(&ModelSource::file(model), &options, &mut LoadProgress::none())?;
    let loaded = begin.elapsed();
    let session = SessionOptions::new().threads(threads).context_tokens(1024).sequences(1);
    let engine = Engine::start(model, EngineOptions::default().session(session))?;
    let request = Request::text("Once upon a time").seed(1).max_tokens(TOKENS).ignore_eos(true);
    let mut times = Vec::with_capacity(TOKENS);
    for event in engine.submit(request)? {
        match event {
            Event::Token(_) => times.push(begin.elapsed().as_secs_f64()),
            Event::Finished(end) => _ = end.reason.into_result()?,
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Err("no token came".into()) };
    let figures = [
        1000.0 * loaded.as_secs_f64(),
        1000.0 * first,
        (times.len() - 1) as f64 / (last - first),
        status("VmRSS"),
        status("RssFile"),
        status("RssAnon"),
    ];
    println!("{}", figures.map(|figure| figure.to_string()).join(" "));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let model = std::env::var_os("EXSA_BENCH_MODEL").map(PathBuf::from);
    let Some(model) = model else {
        println!("skipped: EXSA_BENCH_MODEL names no model");
        return Ok(());
    };
    if let Ok(case) = std::env::var(CHILD) {
        return start(&case, model);
    }
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = if is_bench { number("EXSA_BENCH_ROUNDS", 7) } else { 1 };
    let run = |case: &str| -> Result<Vec<f64>, Failure> {
        let output = Command::new(std::env::current_exe()?).env(CHILD, case).output()?;
        let text = String::from_utf8(output.stdout)?;
        let figures: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
        let figures = figures?;
        if figures.len() == FIGURES.len() {
            return Ok(figures);
        }
        Err(format!("{case}: {}", String::from_utf8_lossy(&output.stderr)).into())
    };
    let first = run("shared")?;
    println!("first start, which may write the file: load {:.0} ms", first[0]);
    let mut all = CASES.map(|_| FIGURES.map(|_| Vec::new()));
    for round in 0..rounds {
        for turn in 0..CASES.len() {
            let which = (round + turn) % CASES.len();
            let figures = run(CASES[which])?;
            all[which].iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
        }
    }
    println!("{rounds} rounds, medians and ranges");
    for (case, figures) in CASES.iter().zip(&all) {
        for (name, values) in FIGURES.iter().zip(figures) {
            let median = median(values).unwrap_or(f64::NAN);
            println!("{case:8} {name:16} {median:10.1} {:.1?}", range(values).unwrap_or_default());
        }
    }
    Ok(())
}
