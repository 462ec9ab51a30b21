//! The same as an async stream, here on tokio; any other runtime works too.

use clap::Parser;
use exsa_core::Request;
use exsa_examples::ModelArgs;
use std::io::Write;
use tokio_stream::StreamExt;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt to continue
    #[arg(long, default_value = "One day, a little frog")]
    prompt: String,
    /// Maximum tokens to generate
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> exsa_examples::Result {
    let args = Args::parse();
    // Loading blocks for a while: a server would use a blocking thread.
    let engine = args.model.start()?;
    let request = Request::text(&args.prompt).max_tokens(args.max_tokens);
    let mut answer = engine.submit(request)?.into_text_stream();
    print!("{}", args.prompt);
    while let Some(piece) = answer.next().await {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!("\n\n{:?}", answer.finished().map(|finished| &finished.reason));
    Ok(())
}
