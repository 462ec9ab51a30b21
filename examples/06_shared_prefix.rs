//! Many requests with a common prefix: it is computed once, while all of them wait for it, and cached for
//! later requests.

use clap::Parser;
use exsa_core::{Engine, PrefixCacheOptions, Request, SamplingParams};
use exsa_examples::ModelArgs;
use std::time::Instant;

const BEGINNING: &str = "Once upon a time, there was a little girl named Lily. She lived in a small house near the forest with \
her mother, her father and a brown dog called Max. Every day after breakfast, Lily and Max went out to play. They ran over the \
hill, they jumped into the leaves, and they looked for pretty stones by the river. One day, they found a big red box under the \
old tree. It was closed, and there was a small key on top of it. Lily took the key and looked at Max. ";
const ENDS: [&str; 8] = ["Lily", "Max", "The box", "The key", "Then", "But", "Inside the box", "A bird"];

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Maximum tokens per answer
    #[arg(long, default_value_t = 16)]
    max_tokens: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let model = args.model.load()?;
    for prefix_cache in [PrefixCacheOptions::disabled(), PrefixCacheOptions::default()] {
        let options = args.model.engine_options().prefix_cache(prefix_cache);
        let engine = Engine::start(model.clone(), options)?;
        println!("prefix cache {}:", if prefix_cache.enabled { "on" } else { "off" });
        // The second round finds the complete prompts of the first in the cache.
        for round in 1..=2 {
            ask_all(&engine, round, args.max_tokens)?;
        }
        let stats = engine.stats();
        println!(
            "  {} tokens computed; {:.0} % of the prompts' tokens were there\n",
            stats.tokens_computed,
            100.0 * stats.hit_rate().unwrap_or(0.0)
        );
    }
    Ok(())
}

fn ask_all(engine: &Engine, round: usize, max_tokens: usize) -> exsa_examples::Result {
    let start = Instant::now();
    let streams: Vec<_> = ENDS
        .iter()
        .map(|end| {
            let request = Request::text(format!("{BEGINNING}{end}")).max_tokens(max_tokens);
            engine.submit(request.sampling(SamplingParams::greedy()))
        })
        .collect::<Result<_, _>>()?;
    let (mut prompts, mut cached) = (0, 0);
    for stream in streams {
        let usage = stream.complete()?.usage;
        prompts += usage.prompt_tokens;
        cached += usage.cached_tokens;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("  round {round}: {seconds:.2} s, {cached} of {prompts} prompt tokens cached");
    Ok(())
}
