//! Text from a model, printed as it comes.
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
    /// Text to go on from
    #[arg(long, default_value = "Once upon a time")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// 0 always takes the most probable token
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f32,
    /// Choose among the K most probable tokens; 0 for all
    #[arg(long, default_value_t = 40)]
    top_k: u32,
    /// Choose among the most probable tokens that make up this probability
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Choose among tokens at least this probable, relative to the best
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    min_p: f32,
    /// The same seed gives the same text
    #[arg(long)]
    seed: Option<u64>,
    /// Only the text, on stdout
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
