//! Checks that answers go on when an engine is killed in mid-stream: a pool of two engines of one model.
//!
//!   check_failover URL URL --tokenizer FILE.gguf --kill COMMAND [--distribution]
//!
//! The shell runs COMMAND with the number of the engine, 0 or 1, that answers at the moment: it kills that
//! engine and starts it again in the background. Each answer must be the same as one without a crash; with
//! `--distribution`, for engines whose continuations have other draws, greedy ones only.

use exsa_backend_remote::{RemoteEngine, RemoteOptions};
use exsa_core::backend::{Fingerprint, ModelSource};
use exsa_core::{Continued, Event, Generator, Request, SamplingParams};
use exsa_pool::{Member, Pool, PoolOptions};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Tokens that are read before the engine is killed.
const READ: usize = 6;

fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let distribution =
        args.iter().position(|arg| arg == "--distribution").map(|at| args.remove(at)).is_some();
    let [a, b, _, file, _, kill] = args.as_slice() else { return Err("see the head of this program".into()) };
    let connect = |url: &String| {
        let options = RemoteOptions::new(url)
            .tokenizer(ModelSource::file(file))
            .positional_seeds(!distribution)
            .fingerprint(Some(Fingerprint(1)));
        RemoteEngine::connect(options).map(Arc::new)
    };
    let engines = [connect(a)?, connect(b)?];
    let pool = Pool::new(PoolOptions::new())?;
    for (name, engine) in ["first", "second"].into_iter().zip(&engines) {
        pool.add(Member::new(name, engine.clone()));
    }
    for (name, request) in requests(distribution) {
        let whole = engines[0].submit(request.clone())?.complete()?;
        let before = engines.each_ref().map(|engine| engine.stats().tokens_generated);
        let mut stream = pool.submit(request)?;
        let (mut tokens, mut text, mut killed, mut last) = (0, String::new(), None, None);
        for event in &mut stream {
            match event {
                Event::Token(token) => {
                    text.push_str(&token.text);
                    tokens += 1;
                }
                Event::Finished(finished) => last = Some(finished),
                _ => {}
            }
            if tokens == READ && killed.is_none() {
                let busy = engines.iter().zip(before).position(|(it, n)| it.stats().tokens_generated > n);
                let number = busy.ok_or("no engine answers")?;
                let status = Command::new("sh").args(["-c", kill, "sh", &number.to_string()]).status()?;
                if !status.success() {
                    return Err(format!("the command that kills: {status}").into());
                }
                killed = Some(number);
            }
        }
        let (number, last) = (killed.ok_or("an answer too short to be cut")?, last.ok_or("no end")?);
        text.push_str(&last.text);
        let found = (&text, &last.reason, last.usage.completion_tokens);
        let expected = (&whole.text, &whole.reason, whole.usage.completion_tokens);
        if found != expected {
            return Err(format!("{name}: {found:?} in place of {expected:?}").into());
        }
        let continued = if distribution { Continued::SameDistribution } else { Continued::Identical };
        if last.continued != Some(continued) {
            return Err(format!("{name}: the answer was not cut: {:?}", last.continued).into());
        }
        println!("ok       {name}: {continued:?} after the kill of engine {number}: {text:?}");
        wait(&engines)?;
    }
    Ok(())
}

/// Waits until both engines answer again.
fn wait(engines: &[Arc<RemoteEngine>]) -> Result<(), Failure> {
    let start = Instant::now();
    let request = || Request::text("A").max_tokens(1).seed(1);
    for engine in engines {
        while engine.submit(request())?.complete().is_err() {
            if start.elapsed() > Duration::from_secs(120) {
                return Err("an engine does not come back".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

fn requests(distribution: bool) -> Vec<(&'static str, Request)> {
    let request =
        |sampling| Request::text("Once upon a time").max_tokens(120).sampling(sampling).ignore_eos(true);
    let drawn = |seed| SamplingParams::default().temperature(1.0).seed(seed);
    let mut requests = vec![("greedy", request(SamplingParams::greedy()))];
    if !distribution {
        requests.extend([
            ("seeded", request(drawn(1))),
            ("penalties", request(drawn(2).repetition_penalty(1.2).presence_penalty(0.3))),
            ("filters", request(drawn(3).top_k(0).top_p(0.9).min_p(0.02))),
            ("stop strings", request(drawn(4)).stop("zzz").stop("qqq")),
        ]);
    }
    requests
}
