//! A heavy user sends 24 requests, a light user two after them, and an interactive user one. Compares their
//! waiting times with first come, first served and with fair queues and priority classes.

use clap::Parser;
use exsa_core::queue::{FairQueue, Fcfs, QueueOrder};
use exsa_core::{Engine, Priority, Request, TokenStream};
use exsa_examples::{Failure, ModelArgs};
use std::time::Duration;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens per answer
    #[arg(long, default_value_t = 32)]
    max_tokens: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let model = args.model.load()?;
    let mut options = args.model.engine_options();
    options.session.sequences_max = 4;
    let fair = || Box::new(FairQueue::new(options.fair));
    let queues: [(&str, Box<dyn QueueOrder>); 2] =
        [("first come, first served", Box::new(Fcfs::new())), ("fair", fair())];
    for (name, queue) in queues {
        let engine = Engine::start_with(model.clone(), options.clone(), queue)?;
        println!("{name}:");
        let submit = |user: &str, n: usize, priority| -> exsa_examples::Result<Vec<_>> {
            let request = |i| {
                let text = format!("{user} told story number {i}: Once upon a time");
                Request::text(text)
                    .max_tokens(args.max_tokens)
                    .ignore_eos(true)
                    .user_id(user)
                    .priority(priority)
            };
            Ok((0..n).map(|i| engine.submit(request(i))).collect::<Result<_, _>>()?)
        };
        let heavy = submit("heavy", 24, Priority::Normal)?;
        let light = submit("light", 2, Priority::Normal)?;
        let urgent = submit("urgent", 1, Priority::Interactive)?;
        if let Some(place) = light.last().and_then(|stream| stream.queue_position(Duration::from_secs(5))) {
            println!("  the last of light's requests has {} before it", place.ahead);
        }
        for (user, streams) in [("heavy", heavy), ("light", light), ("urgent", urgent)] {
            println!("  {user:6} waited {:4.0} ms for the first token on average", first_token(streams)?);
        }
    }
    Ok(())
}

/// Mean time to first token in milliseconds.
fn first_token(streams: Vec<TokenStream>) -> exsa_examples::Result<f64> {
    let (n, mut sum) = (streams.len(), Duration::ZERO);
    for stream in streams {
        let usage = stream.complete()?.usage;
        sum += usage.time_to_first_token.ok_or_else(|| Failure::new("no token came"))?;
    }
    Ok(1000.0 * sum.as_secs_f64() / n as f64)
}
