//! A conversation that continues after a restart: the KV of its prompt is read from a folder instead of
//! recomputed.

use clap::Parser;
use exsa_cache::{CacheOptions, PromptCache};
use exsa_core::backend::Model;
use exsa_core::{Engine, PromptCacheOptions, Request, SamplingParams, Shutdown, Usage};
use exsa_examples::ModelArgs;
use std::path::PathBuf;
use std::sync::Arc;

const SENTENCE: &str =
    "One day, a girl named Lily and her brown dog found a small key under the old tree by the river. ";

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder; by default a temporary one
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Approximate prompt tokens, at most the model's context minus the answer
    #[arg(long, default_value_t = 400)]
    tokens: usize,
    /// Restarts
    #[arg(long, default_value_t = 2)]
    restarts: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let model = args.model.load()?;
    let temporary = std::env::temp_dir().join(format!("exsa-example-{}", std::process::id()));
    let folder = args.folder.clone().unwrap_or(temporary.clone());
    let mut first = None;
    for start in 0..=args.restarts {
        let (usage, text) = ask(&args, &model, &folder)?;
        let seconds = usage.time_to_first_token.unwrap_or_default().as_secs_f64();
        let share = seconds / *first.get_or_insert(seconds);
        let (cached, prompt) = (usage.cached_tokens, usage.prompt_tokens);
        println!(
            "start {start}: {cached} of {prompt} tokens cached, first token after {seconds:.3} s ({share:.3})"
        );
        println!("  {}", text.trim());
    }
    if args.folder.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}

/// Opens the folder, starts an engine, sends a request, and shuts both down.
fn ask(args: &Args, model: &Arc<dyn Model>, folder: &PathBuf) -> exsa_examples::Result<(Usage, String)> {
    let cache = Arc::new(PromptCache::open(CacheOptions::new(folder))?);
    let options = args.model.engine_options().prompt_cache(PromptCacheOptions::new(cache.clone()));
    let engine = Engine::start(model.clone(), options)?;
    // Warm-up request, which is not measured.
    engine.submit(Request::text("Hello").max_tokens(1))?.complete()?;
    let sentence = engine.prompt_tokens(&Request::text(SENTENCE))?.len();
    let prompt = SENTENCE.repeat(args.tokens.div_ceil(sentence));
    let request = Request::text(prompt).max_tokens(12).sampling(SamplingParams::greedy());
    let answer = engine.submit(request)?.complete()?;
    // Pending records are written here.
    engine.shut_down(Shutdown::Drain);
    drop((engine, cache));
    Ok((answer.usage, answer.text))
}
