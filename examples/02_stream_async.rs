//! The same as an asynchronous stream, here on tokio; any other runtime will do.

use clap::Parser;
use exsa_core::{Event, Generator, Request};
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
    let mut stream = engine.submit(Request::text(&args.prompt).max_tokens(args.max_tokens))?;
    print!("{}", args.prompt);
    // A `TokenStream` is an `Iterator` too, whose `next` would block.
    while let Some(event) = StreamExt::next(&mut stream).await {
        match event {
            Event::Token(token) => print!("{}", token.text),
            Event::Finished(end) => println!("{}\n\n{:?}", end.text, end.reason),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
