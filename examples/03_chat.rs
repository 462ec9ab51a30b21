//! A chat with history. Ctrl-C stops an answer; at the prompt it ends the program, as does an empty line.

use clap::Parser;
use exsa_core::stream::CancelHandle;
use exsa_core::{Message, Request, SubmitError};
use exsa_examples::ModelArgs;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// System message of the chat
    #[arg(long, default_value = "You tell stories to children.")]
    system: String,
    /// Maximum tokens per answer
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let answering: Arc<Mutex<Option<CancelHandle>>> = Arc::default();
    let on_interrupt = answering.clone();
    ctrlc::set_handler(move || match on_interrupt.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(answer) => answer.cancel(),
        None => std::process::exit(0),
    })?;

    let mut messages = vec![Message::system(args.system)];
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        if line.trim().is_empty() {
            return Ok(());
        }
        messages.push(Message::user(line.trim()));
        let mut stream = loop {
            match engine.submit(Request::chat(messages.clone()).max_tokens(args.max_tokens)) {
                // The conversation has outgrown the context: drop the oldest question and answer.
                Err(SubmitError::PromptTooLong { .. }) if messages.len() > 2 => drop(messages.drain(1..3)),
                other => break other?,
            }
        };
        *answering.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.cancel_handle());
        let mut answer = String::new();
        for piece in stream.text() {
            let piece = piece?;
            print!("{piece}");
            std::io::stdout().flush()?;
            answer.push_str(&piece);
        }
        answering.lock().unwrap_or_else(PoisonError::into_inner).take();
        println!();
        messages.push(Message::assistant(answer));
    }
}
