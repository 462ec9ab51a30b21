//! Drives an engine with a manual clock.

use exsa_core::clock::ManualClock;
use exsa_core::finish::Usage;
use exsa_core::queue::FairQueue;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::ScriptedModel;
use exsa_core::stats::EngineStats;
use exsa_core::{EngineLoop, EngineOptions, Event, FinishReason, Request, TokenId, TokenStream};
use std::sync::Arc;
use std::time::Duration;

/// An engine, its clock, and the requests that were submitted to it.
pub struct Driver {
    pub clock: ManualClock,
    pub engine: EngineLoop,
    streams: Vec<TokenStream>,
    pub answers: Vec<Answer>,
}

/// Result of a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub tokens: Vec<TokenId>,
    /// When each token was seen.
    pub times: Vec<Duration>,
    pub reason: Option<FinishReason>,
    pub usage: Usage,
}

/// A model whose passes take 5 ms plus 1 ms per token.
pub fn costly(model: ScriptedModel, clock: &ManualClock) -> ScriptedModel {
    model.cost(clock.clone(), Duration::from_millis(5), Duration::from_millis(1))
}

impl Driver {
    /// An engine on `model`, whose passes may take time of `clock`.
    pub fn new(model: ScriptedModel, clock: ManualClock, options: EngineOptions) -> Self {
        let queue = Box::new(FairQueue::new(options.fair));
        let engine = EngineLoop::new(model.shared(), options, queue, Arc::new(clock.clone())).unwrap();
        Self { clock, engine, streams: Vec::new(), answers: Vec::new() }
    }

    /// The request's number in `answers`.
    pub fn submit(&mut self, request: Request) -> usize {
        self.streams.push(self.engine.submit(request).unwrap());
        self.answers.push(Answer::default());
        self.answers.len() - 1
    }

    /// One step; all streams are read, and invariants are checked.
    pub fn step(&mut self) -> bool {
        let runs = self.engine.step();
        self.engine.scheduler().check().unwrap();
        let now = exsa_core::clock::Clock::now(&self.clock);
        for (stream, answer) in self.streams.iter_mut().zip(&mut self.answers) {
            while let Some(event) = stream.try_next() {
                match event {
                    Event::Token(token) => {
                        answer.tokens.extend(token.id);
                        answer.times.push(now);
                    }
                    Event::Finished(finished) => {
                        answer.reason = Some(finished.reason);
                        answer.usage = finished.usage;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        runs
    }

    /// Steps until every request has ended.
    pub fn finish(&mut self) {
        // Takes in what was submitted.
        self.step();
        let mut idle = 0;
        while !self.engine.is_empty() {
            idle = if self.step() { 0 } else { idle + 1 };
            assert!(idle < 3, "nothing goes on, but requests are here");
            if idle > 0 {
                self.clock.advance(self.engine.until_wakeup().unwrap_or_default());
            }
        }
        self.step();
    }

    /// Submits one request and answers it alone.
    pub fn run(&mut self, request: Request) -> Answer {
        let i = self.submit(request);
        self.finish();
        self.answers[i].clone()
    }

    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

/// `n` tokens that depend on `seed`.
pub fn tokens(seed: u64, n: usize) -> Vec<TokenId> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as TokenId % 256
    };
    (0..n).map(|_| next()).collect()
}

/// A prompt and `n` tokens of answer, always the same.
pub fn greedy(prompt: Vec<TokenId>, n: usize) -> Request {
    Request::tokens(prompt).max_tokens(n).ignore_eos(true).sampling(SamplingParams::greedy())
}
