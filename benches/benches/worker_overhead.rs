//! A worker's stream against that of the engine in this process, in interleaved rounds: time to the first
//! token and time between tokens. Then the memory of several workers of the same model, and the share of it
//! that they have in common.
//!
//! `EXSA_BENCH_MODEL` names a GGUF file, the built-in model without it; `EXSA_BENCH_ROUNDS` and
//! `EXSA_BENCH_THREADS` set rounds (15) and threads (1). `EXSA_BENCH_PACKED` names a folder of packed files,
//! which engine and workers then map. Each round asks both, in alternating order, for the same answer to a
//! prompt of its own.
#![allow(missing_docs)]

use exsa_backend_candle::CandleBackend;
use exsa_benches::percentile::{median, range};
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, PackedCache, SessionOptions,
    ThreadOptions,
};
use exsa_core::{Engine, EngineOptions, Event, Generator, Request};
use exsa_worker::{Setup, Worker, WorkerOptions};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error + Send + Sync>;

/// Tokens of an answer.
const TOKENS: usize = 64;
/// Maximum number of workers whose memory is compared.
const WORKERS: usize = 3;

fn load(path: Option<PathBuf>, packed: Option<PackedCache>) -> Result<Arc<dyn Model>, Failure> {
    let source = path.map_or(ModelSource::Embedded(exsa_tiny::GGUF), ModelSource::file);
    let options = LoadOptions::default().packed_cache(packed);
    Ok(CandleBackend::new().load(&source, &options, &mut LoadProgress::none())?)
}

fn engine(setup: Setup) -> Result<Engine, Failure> {
    Ok(Engine::start(load(setup.model, setup.packed_cache)?, setup.engine)?)
}

/// Milliseconds to the first token, and between tokens in the mean.
fn measure(generator: &dyn Generator, round: usize) -> Result<(f64, f64), Failure> {
    let text = format!("{round}. Once upon a time there was a little dog");
    let request = Request::text(text).seed(1).max_tokens(TOKENS).ignore_eos(true);
    let start = Instant::now();
    let mut times = Vec::with_capacity(TOKENS);
    for event in generator.submit(request)? {
        match event {
            Event::Token(_) => times.push(start.elapsed()),
            Event::Finished(end) => _ = end.reason.into_result()?,
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Err("no token came".into()) };
    let ms = |time: Duration| 1000.0 * time.as_secs_f64();
    Ok((ms(*first), ms(*last - *first) / (times.len() - 1) as f64))
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Failure> {
    exsa_worker::run_if_worker(engine);
    // Without the flag of `cargo bench`, only whether it runs is of interest.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        number("EXSA_BENCH_ROUNDS", 15)
    } else {
        1
    };
    let path = std::env::var_os("EXSA_BENCH_MODEL").map(PathBuf::from);
    let threads = ThreadOptions::compute(number("EXSA_BENCH_THREADS", 1));
    let options = EngineOptions::default().session(SessionOptions::new().threads(threads));
    let packed = std::env::var_os("EXSA_BENCH_PACKED").map(PackedCache::in_folder);
    let model = load(path.clone(), packed.clone())?;
    let summary = model.info().summary();
    let mut settings = WorkerOptions::new().tokenizer(model.tokenizer()).engine(options.clone());
    (settings.model, settings.packed_cache) = (path, packed);
    let own = Engine::start(model, options)?;
    let worker = Worker::start(settings.clone())?;
    worker.wait_ready(Duration::from_secs(120))?;
    let generators: [&dyn Generator; 2] = [&own, &worker];
    // Rounds, then first token and gap, then engine and worker.
    let mut times = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..=rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let (first, gap) = measure(generators[which], round)?;
            // The first round warms both up.
            if round > 0 {
                times[0][which].push(first);
                times[1][which].push(gap);
            }
        }
    }
    println!("{rounds} rounds of {TOKENS} tokens, {}", summary);
    for (name, [engine, worker]) in ["first token", "between tokens"].iter().zip(&times) {
        let differences: Vec<f64> =
            worker.iter().zip(engine).map(|(worker, engine)| worker - engine).collect();
        let ratios: Vec<f64> = worker.iter().zip(engine).map(|(worker, engine)| worker / engine).collect();
        let show = |values: &[f64]| format!("{:.3}", median(values).unwrap_or(f64::NAN));
        println!(
            "{name}: engine {} ms, worker {} ms; difference {} ms, ratio {} of {:.3?}",
            show(engine),
            show(worker),
            show(&differences),
            show(&ratios),
            range(&ratios).unwrap_or_default(),
        );
    }
    // The host's own mapping of the file would take its part of the pages that workers share.
    drop((own, worker));
    memory(&settings)
}

/// Prints the memory of one to three workers, each after an answer.
fn memory(settings: &WorkerOptions) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let worker = Worker::start(settings.clone().number(number))?;
        worker.wait_ready(Duration::from_secs(120))?;
        measure(&worker, number)?;
        workers.push(worker);
        let mut total = [0; FIELDS.len()];
        for pid in workers.iter().filter_map(|worker| worker.status().pid) {
            let Some(fields) = smaps(pid) else {
                println!("memory: this system has no /proc/PID/smaps_rollup");
                return Ok(());
            };
            total.iter_mut().zip(fields).for_each(|(total, field)| *total += field);
        }
        let total = FIELDS.iter().zip(total).map(|(name, kib)| format!("{name} {} MiB", kib >> 10));
        println!("{} workers together: {}", workers.len(), total.collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

/// Resident pages; the same with each page divided by the processes that map it, in all, those of files, and
/// those of the process's own.
const FIELDS: [&str; 4] = ["Rss", "Pss", "Pss_File", "Pss_Anon"];

/// The fields of a process in KiB.
fn smaps(pid: u32) -> Option<[u64; FIELDS.len()]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
    };
    let [a, b, c, d] = FIELDS.map(field);
    Some([a?, b?, c?, d?])
}
