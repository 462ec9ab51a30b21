//! Validates a worker's events against the request that they belong to.

use super::FrameError;
use super::event::{WireEvent, WireTop};
use exsa_core::stream::Event;
use exsa_core::{EngineInfo, FinishReason, Request};

/// Maximum index of a tool call within an answer.
const CALLS_MAX: u64 = 1 << 20;

/// Limits of the events of one stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamRules {
    answers: u64,
    n_vocab: u64,
    stops: usize,
    banned: usize,
    positions: u64,
}

impl StreamRules {
    /// Limits for a request to an engine.
    pub fn new(request: &Request, info: &EngineInfo) -> Self {
        Self {
            answers: request.n as u64,
            n_vocab: info.model.n_vocab as u64,
            stops: request.stop.len(),
            banned: request.banned_strings.len(),
            positions: info.capabilities.context_tokens_max as u64,
        }
    }

    /// Validates a group of events. Returns the events, and whether the last one ends the stream.
    ///
    /// # Errors
    ///
    /// [`FrameError::Content`] with the first event that breaks a rule.
    pub fn check(&self, events: Vec<WireEvent>) -> Result<(Vec<Event>, bool), FrameError> {
        if events.is_empty() {
            return Err(FrameError::Content("a group without events".into()));
        }
        let last = events.len() - 1;
        let mut checked = Vec::with_capacity(events.len());
        let mut ended = false;
        for (i, event) in events.into_iter().enumerate() {
            self.check_plain(&event)?;
            let event = event.into_event()?;
            match &event {
                Event::Finished(end) => {
                    if i != last {
                        return Err(FrameError::Content("an event after the last".into()));
                    }
                    self.check_end(end.index, &end.reason)?;
                    ended = true;
                }
                Event::AnswerFinished(end) => self.check_end(end.index, &end.reason)?,
                _ => {}
            }
            checked.push(event);
        }
        Ok((checked, ended))
    }

    fn check_plain(&self, event: &WireEvent) -> Result<(), FrameError> {
        match event {
            WireEvent::Token(token) | WireEvent::Reasoning(token) => {
                self.check_index(token.index)?;
                self.check_ids(token.id.into_iter().map(u64::from).chain(ids(&token.top.0)))
            }
            WireEvent::ToolCall(delta) => {
                self.check_index(delta.index)?;
                check_call(delta.call)
            }
            WireEvent::MalformedToolCall(malformed) => {
                self.check_index(malformed.index)?;
                malformed.call.map_or(Ok(()), check_call)
            }
            WireEvent::Prompt(part) => {
                let end = part.start.saturating_add(part.tokens.0.len() as u64);
                if end > self.positions {
                    let limit = self.positions;
                    let problem = format!("a prompt up to position {end}, but the context has {limit}");
                    return Err(FrameError::Content(problem));
                }
                let tokens = part.tokens.0.iter();
                self.check_ids(tokens.flat_map(|token| ids(&token.top.0).chain([u64::from(token.id)])))
            }
            WireEvent::AnswerFinished(_) | WireEvent::Finished(_) => Ok(()),
        }
    }

    fn check_index(&self, index: u64) -> Result<(), FrameError> {
        if index < self.answers {
            return Ok(());
        }
        Err(FrameError::Content(format!("answer {index} of a request for {}", self.answers)))
    }

    fn check_ids(&self, mut ids: impl Iterator<Item = u64>) -> Result<(), FrameError> {
        match ids.find(|id| *id >= self.n_vocab) {
            None => Ok(()),
            Some(id) => Err(FrameError::Content(format!(
                "token id {id} is outside the vocabulary of {}",
                self.n_vocab
            ))),
        }
    }

    fn check_end(&self, index: usize, reason: &FinishReason) -> Result<(), FrameError> {
        self.check_index(index as u64)?;
        let problem = match reason {
            FinishReason::StopString(i) if *i >= self.stops => format!("stop string {i} of {}", self.stops),
            FinishReason::BannedString(i) if *i >= self.banned => {
                format!("banned string {i} of {}", self.banned)
            }
            FinishReason::StopToken(id) => return self.check_ids([u64::from(*id)].into_iter()),
            _ => return Ok(()),
        };
        Err(FrameError::Content(problem))
    }
}

fn check_call(call: u64) -> Result<(), FrameError> {
    if call <= CALLS_MAX {
        return Ok(());
    }
    Err(FrameError::Content(format!("tool call {call}, but at most {CALLS_MAX} are allowed")))
}

fn ids(top: &[WireTop]) -> impl Iterator<Item = u64> {
    top.iter().filter_map(|top| top.id).map(u64::from)
}
