//! Thirty-two prompts at once, with one or several answers each: the engine computes them in one batch.

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
    /// Maximum tokens per answer
    #[arg(long, default_value_t = 48)]
    max_tokens: usize,
    /// Answers per prompt; each prompt is computed once
    #[arg(long, default_value_t = 1)]
    answers: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let prompts: Vec<String> = HEROES
        .iter()
        .flat_map(|hero| PLACES.iter().map(move |place| format!("Once there was a {hero} {place}.")))
        .collect();

    let start = Instant::now();
    // All are submitted before the first is read; each stream buffers its events.
    let streams: Vec<_> = prompts
        .iter()
        .zip(1..)
        .map(|(prompt, seed)| {
            let sampling = SamplingParams::default().seed(seed);
            let request = Request::text(prompt).max_tokens(args.max_tokens).sampling(sampling);
            engine.submit(request.n(args.answers))
        })
        .collect::<Result<_, _>>()?;
    let mut tokens = 0;
    for (prompt, stream) in prompts.iter().zip(streams) {
        let answers = stream.complete_all()?;
        // Usage covers the whole request.
        tokens += answers.first().map_or(0, |answer| answer.usage.completion_tokens);
        for answer in answers {
            println!("{prompt}{}\n", answer.text.replace('\n', " "));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let answers = prompts.len() * args.answers;
    eprintln!("{answers} answers, {tokens} tokens, {:.1} tokens/s", tokens as f64 / seconds);
    Ok(())
}
