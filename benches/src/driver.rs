//! Drives an engine step by step through one run.

use crate::error::BenchError;
use crate::trace::Trace;
use exsa_core::finish::FinishReason;
use exsa_core::{EngineLoop, Event, Request, SamplingParams, TokenId, TokenStream};
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Submits all `prompts` at once, lets each generate `generate` tokens, and notes when they come.
///
/// The engine is stepped here rather than on a thread of its own: a reader that had to be woken would compete with the
/// backend's threads, and would see the tokens later than they were there.
pub fn run(
    engine: &mut EngineLoop,
    prompts: Vec<Vec<TokenId>>,
    generate: usize,
) -> Result<Trace, BenchError> {
    let start = Instant::now();
    let mut readers = Vec::with_capacity(prompts.len());
    for (stream, prompt) in prompts.into_iter().enumerate() {
        let request =
            Request::tokens(prompt).max_tokens(generate).sampling(SamplingParams::greedy()).ignore_eos(true);
        let source = engine.submit(request).map_err(|source| BenchError::Submit { stream, source })?;
        readers.push(Reader { stream, source, times: Vec::with_capacity(generate), ended: false });
    }
    let mut unfinished = readers.len();
    while unfinished > 0 {
        let busy = engine.step();
        let now = start.elapsed();
        for reader in readers.iter_mut().filter(|reader| !reader.ended) {
            reader.read(now, generate)?;
            unfinished -= usize::from(reader.ended);
        }
        if !busy && unfinished > 0 {
            return Err(BenchError::Stalled { streams: unfinished });
        }
    }
    Ok(Trace { streams: readers.into_iter().map(|reader| reader.times).collect() })
}

struct Reader {
    stream: usize,
    source: TokenStream,
    times: Vec<Duration>,
    ended: bool,
}

impl Reader {
    /// Takes what has come, at the time `now`.
    fn read(&mut self, now: Duration, expected: usize) -> Result<(), BenchError> {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = Pin::new(&mut self.source).poll_next(&mut context) {
            match event {
                Event::Token(_) => self.times.push(now),
                Event::Finished(finished) => {
                    self.ended = true;
                    self.check(finished.reason, expected)?;
                }
            }
        }
        Ok(())
    }

    fn check(&self, reason: FinishReason, expected: usize) -> Result<(), BenchError> {
        let (stream, found) = (self.stream, self.times.len());
        match reason {
            FinishReason::MaxTokens if found == expected => Ok(()),
            FinishReason::Failed(source) => Err(BenchError::Request { stream, source }),
            reason => Err(BenchError::Length { stream, found, expected, reason: format!("{reason:?}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::EngineOptions;
    use exsa_core::clock::SystemClock;
    use exsa_core::queue::Fcfs;
    use exsa_core::scripted::ScriptedModel;
    use std::sync::Arc;

    fn engine(model: ScriptedModel) -> EngineLoop {
        let (options, queue) = (EngineOptions::default(), Box::new(Fcfs::new()));
        EngineLoop::new(model.shared(), options, queue, Arc::new(SystemClock::new())).unwrap()
    }

    #[test]
    fn every_stream_gets_exactly_its_tokens_even_where_the_model_would_end() {
        // This model ends its answer at once.
        let mut engine = engine(ScriptedModel::echo(""));
        let prompts = vec![vec![1; 300], vec![2; 20], vec![3]];
        let trace = run(&mut engine, prompts, 5).unwrap();
        assert!(trace.streams.iter().all(|times| times.len() == 5 && times.is_sorted()));
        assert!(trace.decode_phase().is_some());
        assert!(engine.is_empty());
    }

    #[test]
    fn a_stream_that_ends_early_or_is_refused_is_an_error() {
        let error = run(&mut engine(ScriptedModel::ngram(1).context(8)), vec![vec![1; 4]], 9).unwrap_err();
        assert!(matches!(error, BenchError::Length { stream: 0, found: 4, expected: 9, .. }), "{error}");
        let error = run(&mut engine(ScriptedModel::ngram(1)), vec![vec![1], vec![9999]], 1).unwrap_err();
        assert!(matches!(error, BenchError::Submit { stream: 1, .. }), "{error}");
    }
}
