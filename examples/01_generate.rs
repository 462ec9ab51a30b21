//! Streams generated text to standard output.
//!
//! Without arguments the built-in model tells a story.

use clap::Parser;
use exsa_core::{Request, SamplingParams};
use exsa_examples::ModelArgs;
use std::io::Write;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt to continue
    #[arg(long, default_value = "Once upon a time")]
    prompt: String,
    /// Maximum tokens to generate
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Temperature; 0 is greedy
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample from the K most probable tokens; 0 for all
    #[arg(long, default_value_t = 40)]
    top_k: u32,
    /// Sample from the most probable tokens whose probabilities sum to this
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Sample from tokens with at least this probability, relative to the best
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    min_p: f32,
    /// Seed; the same seed gives the same text
    #[arg(long)]
    seed: Option<u64>,
    /// Print only the text
    #[arg(long)]
    quiet: bool,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let sampling = SamplingParams::default()
        .temperature(args.temperature)
        .top_k(args.top_k)
        .top_p(args.top_p)
        .min_p(args.min_p)
        .seed(args.seed);
    if !args.quiet {
        eprintln!("{}\n", engine.model().summary());
    }
    let request = Request::text(&args.prompt).max_tokens(args.max_tokens).sampling(sampling);
    let mut answer = engine.submit(request)?;
    if !args.quiet {
        print!("{}", args.prompt);
    }
    for piece in answer.text() {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();
    if let (false, Some(usage)) = (args.quiet, answer.usage()) {
        let speed = usage.tokens_per_second().unwrap_or(0.0);
        eprintln!("\n{} tokens, {speed:.1} tokens/s", usage.completion_tokens);
    }
    Ok(())
}
