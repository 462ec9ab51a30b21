//! The part of an answer that was sent to its consumer so far.

use exsa_core::sampler::SamplerState;
use exsa_core::stream::{AnswerFinished, AnswerLogprob, Finished, StreamHandle, StreamSender};
use exsa_core::{Continuation, Continued, Event, FinishReason, Resume, TokenId, Usage};
use std::sync::Arc;
use std::time::Duration;

/// A submission of a part to a member.
pub(crate) struct Attempt {
    pub(crate) number: u64,
    /// The part of the request: [`Part::id`](crate::job::Part).
    pub(crate) part: u64,
    pub(crate) member: u64,
    /// The index of the answer, if the answers are computed separately.
    pub(crate) answer: Option<usize>,
    /// `None` until the member has accepted it.
    pub(crate) handle: Option<Arc<StreamHandle>>,
    /// Whether an event arrived, so that other attempts are not needed.
    pub(crate) began: bool,
    pub(crate) submitted: Duration,
}

/// The sent part of one answer.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<TokenId>,
    state: SamplerState,
    logprob: Option<AnswerLogprob>,
    pub(crate) ended: bool,
}

pub(crate) struct Progress {
    /// `None` once the request has ended.
    pub(crate) stream: Option<StreamSender>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) attempts: Vec<Attempt>,
    /// Number of its parts that wait in the queue.
    pub(crate) waiting: usize,
    /// Prompt tokens whose log-probabilities were sent.
    prompt_sent: usize,
    /// Completion tokens of answers that have ended.
    completed: usize,
    /// Whether the answers are computed separately.
    split: bool,
    /// Terms of the member that sent the first token.
    pub(crate) origin: Option<Continuation>,
    pub(crate) continued: Option<Continued>,
    pub(crate) crashes: u32,
    /// The member on which the request was lost last.
    pub(crate) lost: Option<u64>,
    /// Time since which every tried member was unavailable.
    pub(crate) unavailable_since: Option<Duration>,
    /// Whether text arrived without token ids, so that the answer cannot be resumed.
    pub(crate) unknown: bool,
    pub(crate) cancelled: bool,
    /// Whether the consumer drained the stream while an attempt had no handle yet.
    pub(crate) drained: bool,
    pub(crate) dispatched: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
}

impl Progress {
    pub(crate) fn new(stream: StreamSender, answers: usize, base: &Resume) -> Self {
        let mut answers: Vec<_> = (0..answers).map(|_| Answer::default()).collect();
        if let Some(first) = answers.first_mut() {
            first.tokens.clone_from(&base.tokens);
            first.state = base.sampler_state.clone().unwrap_or_default();
            first.logprob = base.logprob;
        }
        Self {
            stream: Some(stream),
            answers,
            attempts: Vec::new(),
            waiting: 0,
            prompt_sent: 0,
            completed: 0,
            split: false,
            origin: None,
            continued: None,
            crashes: 0,
            lost: None,
            unavailable_since: None,
            unknown: false,
            cancelled: false,
            drained: false,
            dispatched: None,
            first_token: None,
        }
    }

    /// Returns whether a token was sent.
    pub(crate) fn has_tokens(&self) -> bool {
        self.unknown || self.answers.iter().any(|answer| !answer.tokens.is_empty() || answer.ended)
    }

    /// Returns the sent part of answer `index` as a [`Resume`].
    pub(crate) fn resume(&self, index: usize) -> Resume {
        let Some(answer) = self.answers.get(index) else { return Resume::default() };
        let state = Some(answer.state.clone()).filter(|state| !state.is_empty());
        let logprob = answer.logprob.filter(|logprob| logprob.tokens == answer.tokens.len());
        Resume::new(answer.tokens.clone()).sampler_state(state).logprob(logprob)
    }

    /// From now on, computes open answers separately. Returns their indices.
    pub(crate) fn split(&mut self) -> Vec<usize> {
        self.split = true;
        (0..self.answers.len()).filter(|index| !self.answers[*index].ended).collect()
    }

    /// Records a group of events, and sets the index of their answer. Returns the number of tokens.
    pub(crate) fn record(&mut self, events: &mut Vec<Event>, answer: Option<usize>, now: Duration) -> usize {
        let mut ids = 0;
        let mut has_text = false;
        events.retain_mut(|event| match event {
            Event::Token(token) | Event::Reasoning(token) => {
                token.index = answer.unwrap_or(token.index);
                has_text |= !token.text.is_empty();
                if let (Some(id), Some(answer)) = (token.id, self.answers.get_mut(token.index)) {
                    ids += 1;
                    answer.tokens.push(id);
                    if !token.observed.is_empty() {
                        answer.state.push(&token.observed);
                    }
                    if let Some(logprob) = token.logprob {
                        let total = answer.logprob.get_or_insert_default();
                        total.sum += f64::from(logprob);
                        total.tokens += 1;
                    }
                }
                true
            }
            Event::ToolCall(delta) => {
                delta.index = answer.unwrap_or(delta.index);
                true
            }
            Event::MalformedToolCall(malformed) => {
                malformed.index = answer.unwrap_or(malformed.index);
                true
            }
            Event::AnswerFinished(end) => {
                end.index = answer.unwrap_or(end.index);
                self.completed += self.completion(end.index, &end.reason);
                if let Some(answer) = self.answers.get_mut(end.index) {
                    answer.ended = true;
                }
                true
            }
            Event::Prompt(part) => {
                let known = self.prompt_sent.saturating_sub(part.start).min(part.tokens.len());
                part.tokens.drain(..known);
                part.start += known;
                self.prompt_sent = self.prompt_sent.max(part.start + part.tokens.len());
                !part.tokens.is_empty()
            }
            _ => true,
        });
        self.unknown |= has_text && ids == 0;
        if ids > 0 || has_text {
            self.first_token.get_or_insert(now);
        }
        ids
    }

    /// Returns the completion tokens of an answer, including the token that ended it.
    fn completion(&self, index: usize, reason: &FinishReason) -> usize {
        let sent = self.answers.get(index).map_or(0, |answer| answer.tokens.len());
        sent + usize::from(matches!(reason, FinishReason::EndOfGeneration | FinishReason::StopToken(_)))
    }

    /// Handles the end of an attempt for `answer`, or for all answers, with the events before it. Returns the
    /// end of the request if nothing is open.
    pub(crate) fn end(
        &mut self,
        mut events: Vec<Event>,
        mut finished: Finished,
        answer: Option<usize>,
        times: &Times,
    ) -> Option<Last> {
        finished.index = answer.unwrap_or(finished.index);
        self.completed += if self.split { finished.usage.completion_tokens } else { 0 };
        if let (Some(index), true) = (answer, self.split) {
            if let Some(answer) = self.answers.get_mut(index) {
                answer.ended = true;
            }
            if self.answers.iter().any(|answer| !answer.ended) {
                let Finished { index, text, reason, seed, sampler_state, logprob, .. } = finished;
                let end = AnswerFinished::new(index, reason).text(text).seed(seed);
                events.push(Event::AnswerFinished(end.sampler_state(sampler_state).logprob(logprob)));
                if let Some(stream) = &self.stream {
                    stream.send(&mut events);
                }
                return None;
            }
        }
        let stream = self.stream.take()?;
        if self.split {
            finished.usage.completion_tokens = self.completed;
        }
        times.set(&mut finished.usage, self.dispatched, self.first_token);
        finished.continued = self.continued.or(finished.continued);
        Some(Last { stream, events, finished })
    }

    /// Ends the request for the pool's own reasons.
    pub(crate) fn fail(&mut self, reason: FinishReason, times: &Times) -> Option<Last> {
        let stream = self.stream.take()?;
        let open = self.answers.iter().filter(|answer| !answer.ended);
        let completion = self.completed + open.map(|answer| answer.tokens.len()).sum::<usize>();
        let mut usage = Usage::new(0, completion);
        times.set(&mut usage, self.dispatched, self.first_token);
        let index = self.answers.iter().position(|answer| !answer.ended).unwrap_or(0);
        let finished = Finished::new(reason).index(index).usage(usage).continued(self.continued);
        Some(Last { stream, events: Vec::new(), finished })
    }
}

/// The end of a request. It is sent after the member is released and counted, so that both are visible to a
/// consumer that reads it.
pub(crate) struct Last {
    stream: StreamSender,
    events: Vec<Event>,
    finished: Finished,
}

impl Last {
    pub(crate) fn send(self) {
        self.stream.finish_with(self.events, self.finished);
    }
}

/// Times of a request from its submission to the pool.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) submitted: Duration,
    pub(crate) elapsed: Duration,
    pub(crate) resumed: bool,
    pub(crate) now: Duration,
}

impl Times {
    fn set(&self, usage: &mut Usage, dispatched: Option<Duration>, first_token: Option<Duration>) {
        let since = |at: Duration| at.saturating_sub(self.submitted);
        let waited = dispatched.map(since);
        usage.queue_time = match (waited, usage.queue_time) {
            (Some(waited), Some(more)) => Some(waited.saturating_add(more)),
            (waited, more) => waited.or(more),
        };
        usage.time_to_first_token =
            first_token.filter(|_| !self.resumed).map(|at| since(at).saturating_add(self.elapsed));
        usage.total_time = since(self.now).saturating_add(self.elapsed);
    }
}
