//! Two models in one program: load both, switch between them while streams run, list them with their memory,
//! and unload one.

use clap::Parser;
use exsa_core::backend::ModelSource;
use exsa_core::registry::{ModelConfig, Registry, RegistryEvent, RegistryOptions};
use exsa_core::{Generator, Request};
use exsa_examples::{ModelArgs, Result, TINY};
use std::sync::Arc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A second GGUF file; by default the built-in story model
    #[arg(long, value_name = "FILE")]
    other: Option<std::path::PathBuf>,
    /// Tokens per answer
    #[arg(long, default_value_t = 24)]
    max_tokens: usize,
}

fn main() -> Result {
    let args = Args::parse();
    let registry = Registry::new(RegistryOptions::new().memory_bytes(16 << 30))?;
    let mut events = registry.subscribe();
    for (name, file) in [("first", &args.model.model), ("second", &args.other)] {
        let source = file.as_ref().map_or(ModelSource::Embedded(TINY), ModelSource::file);
        let backend = Arc::from(exsa_examples::backend(&args.model.backend)?);
        registry.add(ModelConfig::new(name, backend, source).engine(args.model.engine_options()))?;
    }
    // Both models load concurrently.
    for load in [registry.load("first"), registry.load("second")] {
        load.wait()?;
    }
    registry.set_active("first")?;

    let request = || Request::text("Once upon a time").max_tokens(args.max_tokens).seed(1);
    let running = registry.submit(request())?;
    registry.set_active("second")?;
    // The running answer stays with its model; the next request goes to the other one.
    println!("first:  {}", running.complete()?.text.trim());
    println!("second: {}", registry.submit(request())?.complete()?.text.trim());
    list(&registry);

    registry.unload("first", None).wait()?;
    list(&registry);
    let refused = registry.submit(request().model("first"));
    println!("first:  {}", refused.err().map_or("an answer".into(), |error| error.to_string()));

    drop(registry);
    for event in events.by_ref() {
        if let RegistryEvent::State { model, state } = event {
            println!("event: {model} is {}", state.name());
        }
    }
    Ok(())
}

fn list(registry: &Registry) {
    for model in registry.list() {
        let mark = if model.active { '*' } else { ' ' };
        let memory = model.memory.map_or(0, |memory| memory.total()) >> 20;
        println!("{mark} {:8} {:10} {memory:5} MiB", model.name, model.state.name());
    }
    println!("  {} MiB in all", registry.memory().used >> 20);
}
