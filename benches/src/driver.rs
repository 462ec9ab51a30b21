//! Drives an engine step by step through one run.

use crate::error::BenchError;
use crate::trace::Trace;
use exsa_core::finish::FinishReason;
use exsa_core::{EngineLoop, Event, Request, SamplingParams, TokenId, TokenStream};
use std::time::{Duration, Instant};

/// Steps within which cancelled streams are gone.
const CANCEL_STEPS: usize = 1000;

/// Streams that were submitted together and are on their way.
///
/// The engine is stepped here rather than on a thread of its own: a reader that had to be woken would compete
/// with the backend's threads, and would see the tokens later than they were there. And between two parts of
/// a run it stands still, so that others can be measured in turn with it.
pub struct Run {
    start: Instant,
    generate: usize,
    readers: Vec<Reader>,
}

/// A part of a run in which all streams decode and nothing else is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Tokens generated, over all streams.
    pub tokens: usize,
    /// How long each step took; each reads the weights once.
    pub steps: Vec<Duration>,
}

impl Slice {
    /// Tokens in a second, over all streams.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds()
    }

    /// Steps in a second.
    pub fn steps_per_second(&self) -> f64 {
        self.steps.len() as f64 / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.steps.iter().sum::<Duration>().max(Duration::from_nanos(1)).as_secs_f64()
    }
}

impl Run {
    /// Submits all `prompts` at once; each shall generate `generate` tokens.
    pub fn submit(
        engine: &EngineLoop,
        prompts: Vec<Vec<TokenId>>,
        generate: usize,
    ) -> Result<Self, BenchError> {
        Self::submit_requests(engine, prompts.into_iter().map(Self::request).collect(), generate)
    }

    /// The request for a prompt: greedy, to its last token.
    pub fn request(prompt: Vec<TokenId>) -> Request {
        Request::tokens(prompt).sampling(SamplingParams::greedy()).ignore_eos(true)
    }

    /// Submits all `requests` at once; each shall generate `generate` tokens, and so must not end before.
    pub fn submit_requests(
        engine: &EngineLoop,
        requests: Vec<Request>,
        generate: usize,
    ) -> Result<Self, BenchError> {
        let start = Instant::now();
        let mut readers = Vec::with_capacity(requests.len());
        for (stream, request) in requests.into_iter().enumerate() {
            let request = request.max_tokens(generate);
            let source = engine.submit(request).map_err(|source| BenchError::Submit { stream, source })?;
            readers.push(Reader { stream, source, times: Vec::with_capacity(generate), ended: false });
        }
        Ok(Self { start, generate, readers })
    }

    /// Steps `engine` until every stream has its first token.
    pub fn fill(&mut self, engine: &mut EngineLoop) -> Result<(), BenchError> {
        while self.readers.iter().any(|reader| reader.times.is_empty()) {
            self.step(engine)?;
        }
        Ok(())
    }

    /// Steps `engine` until every stream has `tokens` more. None may end before.
    pub fn slice(&mut self, engine: &mut EngineLoop, tokens: usize) -> Result<Slice, BenchError> {
        let (before, least) = (self.tokens(), self.least() + tokens);
        let mut steps = Vec::with_capacity(tokens);
        while self.least() < least {
            if let Some(reader) = self.readers.iter().find(|reader| reader.ended) {
                let (stream, found) = (reader.stream, reader.times.len());
                let reason = "it has to go on while others are measured".into();
                return Err(BenchError::Length { stream, found, expected: self.generate, reason });
            }
            let start = Instant::now();
            self.step(engine)?;
            steps.push(start.elapsed());
        }
        Ok(Slice { tokens: self.tokens() - before, steps })
    }

    /// Steps `engine` until all streams have ended, each with exactly its tokens.
    pub fn finish(mut self, engine: &mut EngineLoop) -> Result<Trace, BenchError> {
        while !self.readers.iter().all(|reader| reader.ended) {
            self.step(engine)?;
        }
        Ok(self.trace())
    }

    /// Gives the streams up and steps `engine` until it is idle.
    pub fn cancel(self, engine: &mut EngineLoop) {
        drop(self.readers);
        for _ in 0..CANCEL_STEPS {
            if !engine.step() && engine.is_empty() {
                break;
            }
        }
    }

    /// The events that have come so far.
    pub fn trace(&self) -> Trace {
        Trace { streams: self.readers.iter().map(|reader| reader.times.clone()).collect() }
    }

    fn step(&mut self, engine: &mut EngineLoop) -> Result<(), BenchError> {
        let busy = engine.step();
        let now = self.start.elapsed();
        for reader in self.readers.iter_mut().filter(|reader| !reader.ended) {
            reader.read(now, self.generate)?;
        }
        let streams = self.readers.iter().filter(|reader| !reader.ended).count();
        if busy || streams == 0 { Ok(()) } else { Err(BenchError::Stalled { streams }) }
    }

    fn tokens(&self) -> usize {
        self.readers.iter().map(|reader| reader.times.len()).sum()
    }

    /// Tokens of the stream that has fewest.
    fn least(&self) -> usize {
        self.readers.iter().map(|reader| reader.times.len()).min().unwrap_or(usize::MAX)
    }
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
        while let Some(event) = self.source.try_next() {
            match event {
                Event::Token(_) => self.times.push(now),
                Event::Finished(finished) => {
                    self.ended = true;
                    self.check(finished.reason, expected)?;
                }
                _ => {}
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

    fn run(
        engine: &mut EngineLoop,
        prompts: Vec<Vec<TokenId>>,
        generate: usize,
    ) -> Result<Trace, BenchError> {
        Run::submit(engine, prompts, generate)?.finish(engine)
    }

    #[test]
    fn every_stream_gets_exactly_its_tokens_even_where_the_model_would_end() {
        // This model ends its answer at once.
        let mut engine = engine(ScriptedModel::echo(""));
        let prompts = vec![vec![1; 300], vec![2; 20], vec![3]];
        let trace = run(&mut engine, prompts, 5).unwrap();
        assert!(trace.streams.iter().all(|times| times.len() == 5 && times.is_sorted()));
        assert!(engine.is_empty());
    }

    #[test]
    fn a_slice_is_decodes_of_all_streams_and_nothing_else() {
        let mut engine = engine(ScriptedModel::ngram(1));
        let mut run = Run::submit(&engine, vec![vec![1; 300], vec![2; 20], vec![3]], 1000).unwrap();
        run.fill(&mut engine).unwrap();
        for _ in 0..3 {
            let slice = run.slice(&mut engine, 7).unwrap();
            assert_eq!((slice.tokens, slice.steps.len()), (21, 7));
            assert!((slice.tokens_per_second() / slice.steps_per_second() - 3.0).abs() < 1e-9);
        }
        assert!(run.trace().streams.iter().all(|times| times.len() >= 22));
        run.cancel(&mut engine);
        assert!(engine.is_empty());
    }

    #[test]
    fn a_slice_in_which_a_stream_would_end_is_an_error() {
        let mut engine = engine(ScriptedModel::ngram(1));
        let mut run = Run::submit(&engine, vec![vec![1; 3], vec![2; 3]], 4).unwrap();
        run.fill(&mut engine).unwrap();
        assert!(matches!(run.slice(&mut engine, 9), Err(BenchError::Length { expected: 4, .. })));
    }

    #[test]
    fn a_stream_that_ends_early_or_is_refused_is_an_error() {
        let error = run(&mut engine(ScriptedModel::ngram(1).context(8)), vec![vec![1; 4]], 9).unwrap_err();
        assert!(matches!(error, BenchError::Length { stream: 0, found: 4, expected: 9, .. }), "{error}");
        let error = run(&mut engine(ScriptedModel::ngram(1)), vec![vec![1], vec![9999]], 1).unwrap_err();
        assert!(matches!(error, BenchError::Submit { stream: 1, .. }), "{error}");
    }
}
