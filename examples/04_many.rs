//! Thirty-two prompts at once: the engine computes them together, token by token.

use clap::Parser;
use exsa_core::{Request, SamplingParams};
use exsa_examples::ModelArgs;
use std::time::Instant;

const HEROES: [&str; 8] =
    ["cat", "dragon", "girl named Lily", "boy named Tom", "frog", "king", "robot", "bear"];
const PLACES: [&str; 4] = ["in the forest", "by the sea", "in a castle", "on the moon"];

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of each answer at most
    #[arg(long, default_value_t = 48)]
    max_tokens: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let prompts: Vec<String> = HEROES
        .iter()
        .flat_map(|hero| PLACES.iter().map(move |place| format!("Once there was a {hero} {place}.")))
        .collect();

    let start = Instant::now();
    // All are submitted before the first is read: each stream fills on its own.
    let streams: Vec<_> = prompts
        .iter()
        .zip(1..)
        .map(|(prompt, seed)| {
            let sampling = SamplingParams::default().seed(seed);
            engine.submit(Request::text(prompt).max_tokens(args.max_tokens).sampling(sampling))
        })
        .collect::<Result<_, _>>()?;
    let mut tokens = 0;
    for (prompt, stream) in prompts.iter().zip(streams) {
        let answer = stream.complete()?;
        tokens += answer.usage.completion_tokens;
        println!("{prompt}{}\n", answer.text.replace('\n', " "));
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{} answers, {tokens} tokens, {:.1} tokens/s", prompts.len(), tokens as f64 / seconds);
    Ok(())
}
