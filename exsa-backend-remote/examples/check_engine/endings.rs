//! Checks of the end of a request before its answer's end: the engine stops to work on it.

use crate::{Failure, Outcome, ensure, request};
use exsa_backend_remote::RemoteEngine;
use exsa_core::stream::TokenStream;
use exsa_core::{Event, FinishReason, Generator, Request};
use std::time::{Duration, Instant};

/// Events that are read before a request is ended, by which the speed is known.
const READ: u32 = 8;

/// A request whose answer takes long, and its tokens.
fn long(engine: &RemoteEngine) -> (Request, u32) {
    let context = engine.model().n_ctx;
    let tokens = if context == 0 { 400 } else { (context / 2).min(1500) };
    (request(tokens).ignore_eos(engine.model().n_vocab > 0), tokens as u32)
}

/// A request that was ended after a few tokens.
struct Ended {
    reason: FinishReason,
    /// Time from the call that ends it to the end of the stream.
    stream: Duration,
    /// Time from that call until the engine was idle, where it reports its load.
    idle: Option<Duration>,
    /// Time of the whole answer, by the speed of its first tokens.
    whole: Duration,
}

impl Ended {
    /// Whether an answer is over before its end could be seen.
    fn too_fast(&self) -> bool {
        self.whole < Duration::from_secs(1)
    }
}

fn end(
    engine: &RemoteEngine,
    url: &str,
    (request, tokens): (Request, u32),
    end: fn(&mut TokenStream),
) -> Result<Ended, Failure> {
    let mut stream = engine.submit(request)?;
    let mut first = None;
    for _ in 0..=READ {
        match stream.next().ok_or("no end")? {
            Event::Finished(finished) => return Err(format!("ended before: {:?}", finished.reason).into()),
            _ => _ = first.get_or_insert_with(Instant::now),
        }
    }
    let whole = first.map(|first| first.elapsed()).unwrap_or_default() * (tokens / READ);
    let before = running(url);
    let asked = Instant::now();
    end(&mut stream);
    let Some(Event::Finished(finished)) = stream.last() else { return Err("no end".into()) };
    let stream = asked.elapsed();
    let mut ended = Ended { reason: finished.reason, stream, idle: None, whole };
    if before.is_some() {
        ensure(before > Some(0.0) || ended.too_fast(), "the engine reports no request in mid-stream")?;
        while running(url) != Some(0.0) {
            ensure(stream + whole > asked.elapsed(), "the engine works on the whole answer")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        ended.idle = Some(asked.elapsed());
    }
    Ok(ended)
}

pub(crate) fn cancel(engine: &RemoteEngine, url: &str) -> Outcome {
    let ended = end(engine, url, long(engine), |stream| stream.cancel())?;
    if ended.too_fast() {
        return Ok(format!("{:?}; too fast to see the engine stop", ended.reason));
    }
    ensure(ended.reason == FinishReason::Cancelled, format!("{:?}", ended.reason))?;
    ensure(ended.stream < Duration::from_millis(500), format!("{:?}", ended.stream))?;
    match ended.idle {
        Some(idle) => {
            ensure(idle < ended.whole / 2, format!("idle after {idle:.1?} of {:.1?}", ended.whole))?;
            Ok(format!("{:.1?}; the engine idle after {idle:.1?} of {:.1?}", ended.stream, ended.whole))
        }
        None => Ok(format!("{:.1?}; the engine does not report its load", ended.stream)),
    }
}

pub(crate) fn deadline(engine: &RemoteEngine, url: &str) -> Outcome {
    let (request, tokens) = long(engine);
    let whole = end(engine, url, (request.clone(), tokens), |stream| stream.cancel())?;
    if whole.too_fast() {
        return Ok("too fast to see the engine stop".to_owned());
    }
    // Within the answer, whatever the speed.
    let limit = whole.whole / 4 + Duration::from_millis(500);
    let mut limited = request;
    limited.timeout = Some(limit);
    let start = Instant::now();
    let ended = end(engine, url, (limited, tokens), |_| ())?;
    let took = start.elapsed() - ended.idle.unwrap_or_default() + ended.stream;
    // The speed was taken while the machine was busy.
    if ended.reason == FinishReason::MaxTokens && took <= limit {
        return Ok(format!("the answer was over within the limit of {limit:.1?}"));
    }
    ensure(ended.reason == FinishReason::Deadline, format!("{:?}", ended.reason))?;
    let late = took.saturating_sub(limit);
    ensure(late < Duration::from_secs(1), format!("{late:.1?} after the limit"))?;
    let idle = match ended.idle {
        Some(idle) => format!("idle {:.1?} later", idle.saturating_sub(ended.stream)),
        None => "does not report its load".to_owned(),
    };
    Ok(format!("{late:.1?} after the limit of {limit:.1?}; the engine {idle}"))
}

/// A prompt beyond the context is refused with the reason.
pub(crate) fn too_long(engine: &RemoteEngine) -> Outcome {
    let words = engine.model().n_ctx.max(10_000) + 10;
    match engine.submit(Request::text("frog ".repeat(words)).max_tokens(4)).map(TokenStream::complete) {
        Err(error) => Ok(format!("refused here: {error}")),
        Ok(Ok(answer)) => Err(format!("an answer to {} tokens", answer.usage.prompt_tokens).into()),
        Ok(Err(error)) => {
            ensure(!error.is_lost_engine(), format!("taken for a lost engine: {error}"))?;
            Ok(error.to_string().chars().take(160).collect())
        }
    }
}

/// Requests that an engine works on: by `/slots` of llama-server and Exsa, or by metrics of vLLM and Dynamo.
fn running(url: &str) -> Option<f64> {
    let get = |path: &str| ureq::get(format!("{url}{path}")).call().ok()?.body_mut().read_to_string().ok();
    let slots = get("/slots").and_then(|body| serde_json::from_str::<Vec<serde_json::Value>>(&body).ok());
    if let Some(slots) = slots {
        return Some(slots.iter().filter(|slot| slot["is_processing"] == true).count() as f64);
    }
    let metrics = get("/metrics")?;
    ["dynamo_frontend_inflight_requests{", "vllm:num_requests_running{"].iter().find_map(|name| {
        let lines: Vec<_> = metrics.lines().filter(|line| line.starts_with(name)).collect();
        let value = |line: &&str| line.rsplit(' ').next()?.parse::<f64>().ok();
        (!lines.is_empty()).then(|| lines.iter().filter_map(value).sum())
    })
}
