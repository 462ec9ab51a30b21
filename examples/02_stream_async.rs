//! The same as an asynchronous stream, here on tokio; any other runtime will do.

use clap::Parser;
use exsa_core::Request;
use exsa_examples::ModelArgs;
use std::io::Write;
use tokio_stream::StreamExt;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to go on from
    #[arg(long, default_value = "One day, a little frog")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> exsa_examples::Result {
    let args = Args::parse();
    // Loading computes for a while: a server would do it on a thread for blocking work.
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
