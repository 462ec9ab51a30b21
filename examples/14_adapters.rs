//! One model with several LoRA adapters: requests with different adapters and without any share each step.

use clap::Parser;
use exsa_core::backend::ModelSource;
use exsa_core::{Request, SamplingParams};
use exsa_examples::{Failure, ModelArgs};
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// An adapter of the model: a GGUF file or a PEFT folder; by default the built-in model's own
    #[arg(long, value_name = "NAME=PATH", value_parser = adapter)]
    adapter: Vec<(String, PathBuf)>,
    #[arg(long, default_value = "Once upon a time")]
    prompt: String,
    /// Maximum tokens per answer
    #[arg(long, default_value_t = 48)]
    max_tokens: usize,
}

fn adapter(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is expected")?;
    Ok((name.to_owned(), path.into()))
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    for (name, path) in &args.adapter {
        engine.load_adapter(name, &ModelSource::file(path))?;
    }
    if args.adapter.is_empty() {
        if args.model.model.is_some() {
            return Err(Failure::new("an adapter of this model is needed: --adapter NAME=PATH"));
        }
        engine.load_adapter("alice", &ModelSource::Embedded(exsa_tiny::LORA_ALICE))?;
    }
    let loaded = engine.adapters();
    for adapter in &loaded {
        println!("{}: rank {}, {} KiB", adapter.name, adapter.rank, adapter.bytes >> 10);
    }

    // The model alone, each adapter at full and at half strength, and all of them together.
    let request =
        || Request::text(&args.prompt).max_tokens(args.max_tokens).sampling(SamplingParams::greedy());
    let mut requests = vec![("no adapter".to_owned(), request())];
    for adapter in &loaded {
        for scale in [1.0, 0.5] {
            requests.push((format!("{} at {scale}", adapter.name), request().adapter(&*adapter.name, scale)));
        }
    }
    if loaded.len() > 1 {
        let all = loaded.iter().fold(request(), |request, adapter| request.adapter(&*adapter.name, 1.0));
        requests.push(("all".to_owned(), all));
    }
    let streams: Vec<_> = requests
        .into_iter()
        .map(|(label, request)| Ok((label, engine.submit(request)?)))
        .collect::<exsa_examples::Result<_>>()?;
    // The names are free immediately; running requests keep the adapters.
    for adapter in &loaded {
        engine.unload_adapter(&adapter.name)?;
    }
    for (label, stream) in streams {
        println!("\n--- {label}\n{}{}", args.prompt, stream.complete()?.text);
    }
    println!("\n{} steps", engine.stats().steps);
    Ok(())
}
