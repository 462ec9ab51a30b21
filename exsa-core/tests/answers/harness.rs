//! An engine on a manual clock, and the answers assembled from its events.

use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::queue::{FairOptions, FairQueue};
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::ScriptedModel;
use exsa_core::stream::{Finished, PromptToken, Token};
use exsa_core::{EngineLoop, EngineOptions, Event, FinishReason, Request, TokenId, TokenStream};
use std::sync::Arc;
use std::time::Duration;

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub struct Engine {
    pub engine: EngineLoop,
    pub clock: ManualClock,
}

/// One answer, assembled from its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub tokens: Vec<Token>,
    pub text: String,
    pub reason: Option<FinishReason>,
    pub seed: Option<u64>,
    pub logprob: Option<(f64, usize)>,
}

impl Answer {
    /// Number of generated tokens, including the token that ended the answer, which is not sent.
    pub fn len(&self) -> usize {
        let ended = matches!(self.reason, Some(FinishReason::StopToken(_) | FinishReason::EndOfGeneration));
        self.tokens.len() + usize::from(ended)
    }
}

#[derive(Debug, Default)]
pub struct Got {
    pub answers: Vec<Answer>,
    pub prompt: Vec<PromptToken>,
    pub finished: Option<Finished>,
}

impl Got {
    pub fn answer(&mut self, index: usize) -> &mut Answer {
        if self.answers.len() <= index {
            self.answers.resize(index + 1, Answer::default());
        }
        &mut self.answers[index]
    }

    /// Processes an event, and checks that it is valid at this point.
    pub fn push(&mut self, event: Event) {
        assert!(self.finished.is_none(), "an event after the last");
        match event {
            Event::Token(mut token) => {
                let answer = self.answer(std::mem::take(&mut token.index));
                assert_eq!(answer.reason, None, "a token after the end of its answer");
                answer.text.push_str(&token.text);
                answer.tokens.push(token);
            }
            Event::AnswerFinished(end) => {
                let answer = self.answer(end.index);
                assert_eq!(answer.reason, None, "an answer ends twice");
                answer.text.push_str(&end.text);
                (answer.reason, answer.seed) = (Some(end.reason), end.seed);
                answer.logprob = end.logprob.map(|logprob| (logprob.sum, logprob.tokens));
            }
            Event::Finished(finished) => {
                let answer = self.answer(finished.index);
                assert_eq!(answer.reason, None, "an answer ends twice");
                answer.text.push_str(&finished.text);
                (answer.reason, answer.seed) = (Some(finished.reason.clone()), finished.seed);
                answer.logprob = finished.logprob.map(|logprob| (logprob.sum, logprob.tokens));
                self.finished = Some(finished);
            }
            Event::Prompt(part) => {
                assert_eq!(part.start, self.prompt.len(), "parts of the prompt come in order");
                assert!(self.answers.is_empty(), "the prompt comes before the first token");
                self.prompt.extend(part.tokens);
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&mut self, stream: &mut TokenStream) {
        while let Some(event) = stream.try_next() {
            self.push(event);
        }
    }
}

pub fn options() -> EngineOptions {
    EngineOptions::default().session(SessionOptions::new().sequences(8).batch_tokens(64))
}

impl Engine {
    pub fn new(model: &ScriptedModel, options: EngineOptions) -> Self {
        let clock = ManualClock::new();
        let model = model.clone().cost(clock.clone(), ms(5), ms(1));
        let queue = Box::new(FairQueue::new(FairOptions::default()));
        let engine = EngineLoop::new(model.shared(), options, queue, Arc::new(clock.clone())).unwrap();
        Self { engine, clock }
    }

    pub fn step(&mut self) -> bool {
        let more = self.engine.step();
        self.engine.scheduler().check().unwrap();
        more
    }

    /// Runs all requests concurrently to their ends.
    pub fn run_all(&mut self, requests: Vec<Request>) -> Vec<Got> {
        let mut streams: Vec<_> =
            requests.into_iter().map(|request| self.engine.submit(request).unwrap()).collect();
        let mut got: Vec<_> = streams.iter().map(|_| Got::default()).collect();
        let mut idle = 0;
        while !self.engine.is_empty() {
            idle = if self.step() { 0 } else { idle + 1 };
            assert!(idle < 5, "nothing goes on");
            got.iter_mut().zip(&mut streams).for_each(|(got, stream)| got.read(stream));
            if idle > 0 {
                self.clock.advance(self.engine.until_wakeup().unwrap_or_default());
            }
        }
        got.iter_mut().zip(&mut streams).for_each(|(got, stream)| got.read(stream));
        assert!(got.iter().all(|got| got.finished.is_some()), "every request ends");
        got
    }

    pub fn run(&mut self, request: Request) -> Got {
        self.run_all(vec![request]).remove(0)
    }
}

pub fn prompt(len: usize) -> Vec<TokenId> {
    (0..len).map(|i| 32 + (i * i * 7 + i * 3) as TokenId % 90).collect()
}

/// A request with random sampling, in which every error in the history changes all later tokens.
pub fn drawn(len: usize) -> Request {
    let sampling = SamplingParams::default().temperature(1.1).seed(7).repetition_penalty(1.2);
    Request::tokens(prompt(len)).sampling(sampling).ignore_eos(true).max_tokens(20)
}

pub fn model() -> ScriptedModel {
    ScriptedModel::ngram(5).order(usize::MAX).kv(2048, 8).context(256)
}

/// The answers of `n` requests for one answer each, one after the other, by the rule for seeds.
pub fn singly(model: &ScriptedModel, request: &Request, n: u64) -> Vec<Answer> {
    let seed = request.sampling.seed.unwrap();
    let single = |index| {
        let request = request.clone().n(1).seed(seed.wrapping_add(index));
        let got = Engine::new(model, options()).run(request);
        assert_eq!(got.answers.len(), 1);
        got.answers[0].clone()
    };
    (0..n).map(single).collect()
}
