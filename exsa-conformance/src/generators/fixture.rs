//! A generator under test.

use crate::check::Check;
use crate::failure::{CaseResult, Failure, Outcome};
use exsa_core::stream::Finished;
use exsa_core::{Event, Generator, Request, SamplingParams, SubmitError, TokenId, TokenStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A generator under test, and its guarantees.
#[derive(Clone)]
pub struct GeneratorFixture {
    pub(crate) generator: Arc<dyn Generator>,
    pub(crate) identical: bool,
    pub(crate) ids: bool,
    pub(crate) patience: Duration,
}

impl std::fmt::Debug for GeneratorFixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GeneratorFixture").field("identical", &self.identical).finish_non_exhaustive()
    }
}

impl GeneratorFixture {
    /// A fixture for a generator that reports token ids, and whose answers may differ by rounding.
    pub fn new(generator: impl Generator + 'static) -> Self {
        Self::shared(Arc::new(generator))
    }

    /// Like [`new`](Self::new).
    pub fn shared(generator: Arc<dyn Generator>) -> Self {
        Self { generator, identical: false, ids: true, patience: Duration::from_secs(60) }
    }

    /// Declares that the same request with the same seed has the same answer, under any load.
    #[must_use]
    pub fn identical(mut self) -> Self {
        self.identical = true;
        self
    }

    /// Declares that tokens have no ids.
    #[must_use]
    pub fn without_ids(mut self) -> Self {
        self.ids = false;
        self
    }

    /// Sets the time after which a request is considered stuck.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A request whose answer has `tokens` tokens.
    pub(crate) fn request(&self, prompt: &str, tokens: usize) -> Request {
        Request::text(prompt).sampling(SamplingParams::greedy().seed(1)).ignore_eos(true).max_tokens(tokens)
    }

    /// Like [`request`](Self::request), with random sampling.
    pub(crate) fn drawn(&self, prompt: &str, tokens: usize, seed: u64) -> Request {
        self.request(prompt, tokens).sampling(SamplingParams::default().temperature(0.9).seed(seed))
    }

    /// Reads a stream to its end.
    pub(crate) fn read(&self, mut stream: TokenStream, check: &Check) -> Result<Answer, Failure> {
        let start = Instant::now();
        let mut answer = Answer { events: Vec::new(), finished: None };
        while answer.finished.is_none() {
            let left = self.patience.saturating_sub(start.elapsed());
            match stream.next_timeout(left) {
                Some(Event::Finished(finished)) => answer.finished = Some(finished),
                Some(event) => answer.events.push(event),
                None => {
                    return Err(check.fail("the request ends", format!("no end after {:?}", start.elapsed())));
                }
            }
        }
        check.holds(stream.next().is_none(), "nothing follows the end", "another event")?;
        Ok(answer)
    }

    /// Submits a request and reads its answer.
    pub(crate) fn answer(&self, request: Request, check: &Check) -> Result<Answer, Failure> {
        let stream = check.works(self.generator.submit(request))?;
        self.read(stream, check)
    }

    /// Submits a request, or skips the case if the generator does not support one of its options.
    pub(crate) fn supported(
        &self,
        request: Request,
        check: &Check,
    ) -> Result<Result<TokenStream, Outcome>, Failure> {
        match self.generator.submit(request) {
            Err(SubmitError::Unsupported { operation, reason }) => {
                Ok(Err(Outcome::Skipped(format!("{operation}: {reason}"))))
            }
            other => check.works(other).map(Ok),
        }
    }
}

/// A fixture, or the outcome of a case without one.
pub(crate) fn skipped(outcome: Outcome) -> CaseResult {
    Ok(outcome)
}

/// All events of a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) events: Vec<Event>,
    pub(crate) finished: Option<Finished>,
}

impl Answer {
    pub(crate) fn finished(&self) -> Finished {
        self.finished.clone().unwrap_or_else(|| Finished::new(exsa_core::FinishReason::Cancelled))
    }

    /// Ids of the tokens of answer `index`.
    pub(crate) fn ids(&self, index: usize) -> Vec<TokenId> {
        self.tokens(index).filter_map(|token| token.id).collect()
    }

    fn tokens(&self, index: usize) -> impl Iterator<Item = &exsa_core::stream::Token> {
        self.events.iter().filter_map(move |event| match event {
            Event::Token(token) | Event::Reasoning(token) if token.index == index => Some(token),
            _ => None,
        })
    }

    /// Text of answer `index`.
    pub(crate) fn text(&self, index: usize) -> String {
        let mut text: String = self.tokens(index).map(|token| token.text.as_str()).collect();
        for event in &self.events {
            if let Event::AnswerFinished(end) = event
                && end.index == index
            {
                text.push_str(&end.text);
            }
        }
        if self.finished().index == index {
            text.push_str(&self.finished().text);
        }
        text
    }
}
