//! Checks what the client makes of a cluster whose worker is killed in mid-stream, behind a frontend that
//! stays.
//!
//!   check_cut URL --kill COMMAND [--migrates]
//!
//! Two streams run at once, a worker each; the shell runs COMMAND once both have begun. Each must either be
//! whole or end with a failure, never as if it were whole; with `--migrates`, both must be whole. A request
//! after that succeeds.

use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions};
use exsa_core::{Event, FinishReason, Generator, Request, SamplingParams};
use std::process::Command;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

const TOKENS: usize = 400;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (url, kill, migrates) = match args.as_slice() {
        [url, _, kill] => (url, kill, false),
        [url, _, kill, _] => (url, kill, true),
        _ => return Err("see the head of this program".into()),
    };
    let engine = RemoteEngine::connect(RemoteOptions::new(url).dialect(Dialect::OpenAi))?;
    let request =
        |tokens| Request::text("Once upon a time").max_tokens(tokens).sampling(SamplingParams::greedy());
    let mut streams = [engine.submit(request(TOKENS))?, engine.submit(request(TOKENS))?];
    for stream in &mut streams {
        if !matches!(stream.next(), Some(Event::Token(_))) {
            return Err("a stream ended before the kill".into());
        }
    }
    let status = Command::new("sh").args(["-c", kill]).status()?;
    if !status.success() {
        return Err(format!("the command that kills: {status}").into());
    }
    let mut cut = 0;
    for stream in streams {
        let Some(Event::Finished(last)) = stream.last() else { return Err("no end".into()) };
        let tokens = last.usage.completion_tokens;
        println!("         {:?} after {tokens} tokens", last.reason);
        match last.reason {
            FinishReason::MaxTokens if tokens == TOKENS => {}
            FinishReason::Failed(_) => cut += 1,
            other => return Err(format!("{other:?} after {tokens} of {TOKENS} tokens").into()),
        }
    }
    if migrates && cut > 0 {
        return Err(format!("{cut} streams were cut").into());
    }
    if !migrates && cut == 0 {
        return Err("no stream was cut: was the worker killed in time?".into());
    }
    let start = Instant::now();
    while let Err(error) = engine.submit(request(5))?.complete() {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("after the kill: {error}").into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("ok       worker killed: {cut} of 2 streams cut; a new answer {:.1?} later", start.elapsed());
    Ok(())
}
