//! Three worker processes behind one queue: one is killed while its streams run, and their readers see
//! neither a gap nor a repetition.

use clap::Parser;
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::gguf::Gguf;
use exsa_core::{Engine, Generator, Request, TokenStream};
use exsa_examples::{ModelArgs, Result, TINY};
use exsa_worker::{Setup, WorkerOptions, WorkerPool, WorkerPoolOptions};
use std::error::Error;
use std::time::Duration;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Number of worker processes
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Tokens per answer
    #[arg(long, default_value_t = 200)]
    max_tokens: usize,
}

/// Runs in the worker, inside its sandbox.
fn engine(setup: Setup) -> std::result::Result<Engine, Box<dyn Error + Send + Sync>> {
    let backend: Box<dyn InferenceBackend> =
        exsa_examples::backend(&setup.backend).map_err(|e| format!("{e:?}"))?;
    let source = setup.model.clone().map_or(ModelSource::Embedded(TINY), ModelSource::file);
    let mut progress = setup.progress();
    let model = backend.load(&source, &LoadOptions::default(), &mut LoadProgress::new(&mut progress))?;
    Ok(Engine::start(model, setup.engine)?)
}

fn main() -> Result {
    // The workers are this program, started again.
    exsa_worker::run_if_worker(engine);

    let args = Args::parse();
    let mut worker = WorkerOptions::new().backend(&args.model.backend).engine(args.model.engine_options());
    worker = match &args.model.model {
        Some(file) => worker.model(file),
        // The tokenizer is read from the file inside the program.
        None => {
            let gguf = Gguf::read(&mut std::io::Cursor::new(TINY))?;
            worker.tokenizer(exsa_core::tokenizer::load(gguf.metadata())?)
        }
    };
    let pool = WorkerPool::start(WorkerPoolOptions::new(worker).workers(args.workers))?;
    pool.wait_ready(Duration::from_secs(120))?;
    for status in pool.status() {
        let sandbox = status.sandbox.map_or_else(String::new, |level| level.to_string());
        println!("worker {}: process {}, sandbox: {sandbox}", status.number, status.pid.unwrap_or(0));
    }

    let ask = || -> Result<Vec<_>> {
        let request = |seed| Request::text("Once upon a time").seed(seed).max_tokens(args.max_tokens);
        Ok((0..4)
            .map(|seed| pool.submit(request(seed).ignore_eos(true)))
            .collect::<std::result::Result<_, _>>()?)
    };
    let texts = |streams: Vec<TokenStream>| -> Result<Vec<_>> {
        streams.into_iter().map(|stream| Ok(stream.complete()?.text)).collect()
    };
    let undisturbed = texts(ask()?)?;
    let streams = ask()?;
    std::thread::sleep(Duration::from_millis(50));
    if let Some(pid) = pool.workers()[0].status().pid {
        println!("killing process {pid}");
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    }
    let disturbed = texts(streams)?;
    println!("{}", disturbed.first().map_or("", String::as_str));
    println!("the same answers as without the kill: {}", disturbed == undisturbed);
    pool.wait_ready(Duration::from_secs(120))?;
    println!("the process that replaces it: {:?}", pool.workers()[0].status().pid);
    Ok(())
}
