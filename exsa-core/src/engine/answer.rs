//! One answer of a request outside the scheduler: sampler, end conditions, text, output.

use crate::constraint::{Allowed, ConstraintState};
use crate::engine::banned::{BannedStrings, Read};
use crate::engine::output::Output;
use crate::engine::reasoning_budget::{BudgetAhead, ReasoningBudget};
use crate::finish::{FinishReason, RequestError};
use crate::sampler::{SampleError, SampleScratch, Sampled, Sampler};
use crate::stream::{AnswerFinished, AnswerLogprob, Event, StreamSender, Token};
use crate::text::{Detokenizer, Released, StopMatcher};
use crate::token::{RequestId, TokenId};
use crate::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Duration;

/// An answer that is being generated, with its own sequence and
/// [`SchedRequest`](crate::schedule::SchedRequest).
pub(crate) struct Answer {
    /// The request that it belongs to.
    pub(crate) request: RequestId,
    /// Index among the request's answers.
    pub(crate) index: usize,
    pub(crate) sampler: Sampler,
    pub(crate) seed: u64,
    /// Tokens that end the answer, sorted.
    pub(crate) stop_tokens: Arc<[TokenId]>,
    /// End-of-generation tokens, sorted; empty if ignored.
    pub(crate) end_of_generation: Arc<[TokenId]>,
    pub(crate) detokenizer: Detokenizer,
    pub(crate) stop: StopMatcher,
    pub(crate) output: Output,
    /// Limit on the length of the reasoning.
    pub(crate) budget: Option<ReasoningBudget>,
    /// Number of tool calls after which the answer ends.
    pub(crate) calls_max: usize,
    /// Log-probability so far; `None` if it is not computed.
    pub(crate) logprob: Option<AnswerLogprob>,
    /// Whether log-probabilities are computed only to rank the answers and left out of the events.
    pub(crate) hide_logprobs: bool,
    /// Finish reason if the answer had already ended before submission.
    pub(crate) ended: Option<FinishReason>,
    /// Whether it was ever assigned a sequence, so that it no longer counts as waiting.
    pub(crate) admitted: bool,
    pub(crate) last_token: Option<Duration>,
    /// Number of emitted tokens, including those from before a resume.
    pub(crate) emitted: usize,
    pub(super) banned: Option<BannedStrings>,
    pub(crate) constraint: Option<ConstraintState>,
}

/// Maximum lengths of a sequence, prompt included.
pub(crate) struct Limits {
    /// The request's own limit.
    pub(crate) len_max: usize,
    /// The context length.
    pub(crate) context_max: usize,
}

impl Limits {
    /// No limit.
    pub(crate) const NONE: Self = Self { len_max: usize::MAX, context_max: usize::MAX };
}

/// Effect of a sampled token on its sequence.
pub(crate) enum TokenOutcome {
    /// The sequence continues.
    Continue,
    /// The sequence continues once its stream has room.
    StreamFull,
    /// The sequence has ended.
    End(FinishReason),
    /// The last tokens are rewound (their number is given). The sequence continues, or ends for the given
    /// reason.
    Rewind(usize, Option<FinishReason>),
}

/// The end of an answer.
pub(crate) struct Ended {
    /// Events released at the end, sent together with the last event.
    pub(crate) events: Vec<Event>,
    /// The answer's last event.
    pub(crate) last: AnswerFinished,
    /// All events before, if they were withheld.
    pub(crate) withheld: Option<Vec<Event>>,
}

impl Answer {
    /// The token at `position`, after `history`: sampled from `logits`, or without logits if the constraint
    /// or the end of the reasoning budget forces the token. `None` if logits are needed but missing. An error
    /// is the reason why the answer ends.
    pub(crate) fn draw(
        &mut self,
        logits: Option<&[f32]>,
        history: &[TokenId],
        position: u64,
        scratch: &mut SampleScratch,
    ) -> Result<Option<Sampled>, FinishReason> {
        let forced = match &self.banned {
            Some(banned) => banned.forced(),
            None => self.budget.as_ref().and_then(ReasoningBudget::forced),
        };
        if let Some(token) = forced {
            return match self.banned.as_ref().and_then(|banned| banned.ban(position, token)) {
                // The end of the reasoning is part of a banned string.
                Some(string) => Err(FinishReason::BannedString(string)),
                None => self.force(token, logits, scratch).map_err(failed),
            };
        }
        let mut mask = None;
        if let Some(constraint) = &mut self.constraint {
            if let Some(token) = constraint.forced().map_err(failed)? {
                // If the constraint forces a banned token, no token is possible.
                return match self.banned.as_ref().and_then(|banned| banned.ban(position, token)) {
                    Some(string) => Err(FinishReason::BannedString(string)),
                    None => self.force(token, logits, scratch).map_err(failed),
                };
            }
            if logits.is_some()
                && let Allowed::Mask(allowed) = constraint.allowed().map_err(failed)?
            {
                mask = Some(allowed);
            }
        }
        let Some(logits) = logits else { return Ok(None) };
        match self.sampler.sample_masked(logits, history, position, mask, scratch) {
            Ok(sampled) => Ok(Some(sampled)),
            Err(error) => Err(match self.banned.as_ref().and_then(|banned| banned.banned_at(position)) {
                Some(string) if matches!(error, SampleError::NoCandidate { .. }) => {
                    FinishReason::BannedString(string)
                }
                _ => failed(error),
            }),
        }
    }

    /// A forced token, without a draw. `None` if its log-probability is requested but there is no row of
    /// logits.
    fn force(
        &self,
        token: TokenId,
        logits: Option<&[f32]>,
        scratch: &mut SampleScratch,
    ) -> Result<Option<Sampled>, SampleError> {
        let (logprob, top_logprobs) = match (self.sampler.logprobs(), logits) {
            (None, _) => (None, Vec::new()),
            (Some(_), None) => return Ok(None),
            (Some((logprob, top)), Some(logits)) => {
                let scored = self.sampler.score(logits, token, top, scratch)?;
                (logprob.then_some(scored.logprob), scored.top)
            }
        };
        Ok(Some(Sampled { token, logprob, top_logprobs }))
    }

    /// Appends a token of the answer to the sampler and the constraint.
    fn accept(&mut self, token: TokenId) -> Result<(), FinishReason> {
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token).map_err(failed)?;
        }
        self.sampler.accept(token);
        Ok(())
    }

    /// Rolls back the last `n` accepted tokens.
    fn rollback(&mut self, n: usize) -> Result<(), FinishReason> {
        self.sampler.rollback(n);
        match &mut self.constraint {
            Some(constraint) => constraint.rollback(n).map_err(failed),
            None => Ok(()),
        }
    }

    /// Processes a token sampled for `position`, after which the sequence has `len` tokens. Emits the text
    /// that became certain, and returns whether the answer continues, ends or is rewound.
    pub(crate) fn advance(
        &mut self,
        sampled: Sampled,
        position: u64,
        len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
        stream: &StreamSender,
    ) -> TokenOutcome {
        if let Err(reason) = self.accept(sampled.token) {
            return TokenOutcome::End(reason);
        }
        let Some(banned) = &mut self.banned else {
            return self.emit(sampled, len, limits, tokenizer, stream);
        };
        let is_in = |tokens: &[TokenId]| tokens.binary_search(&sampled.token).is_ok();
        if is_in(&self.stop_tokens) || is_in(&self.end_of_generation) {
            banned.push_end(sampled, position);
            return self.emit_pending(len, limits, tokenizer, stream);
        }
        match banned.push(sampled, position, tokenizer) {
            Read::Banned(found) => {
                let budget = BudgetAhead::new(self.budget.as_ref(), &self.output);
                let rewind = banned.rewind(found, &self.detokenizer, &self.stop, budget, tokenizer);
                let exhausted = rewind.exhausted.then_some(FinishReason::BannedString(found.index));
                let failed = self.rollback(rewind.tokens).err();
                TokenOutcome::Rewind(rewind.tokens, failed.or(exhausted))
            }
            Read::Stop => self.emit_pending(len, limits, tokenizer, stream),
            Read::Nothing if len >= limits.len_max.min(limits.context_max) => {
                self.emit_pending(len, limits, tokenizer, stream)
            }
            Read::Nothing => {
                let mut outcome = TokenOutcome::Continue;
                while let Some(sampled) = self.banned.as_mut().and_then(BannedStrings::pop_certain) {
                    outcome = self.emit(sampled, 0, limits, tokenizer, stream);
                    if matches!(outcome, TokenOutcome::End(_)) {
                        self.discard_pending();
                    }
                }
                outcome
            }
        }
    }

    /// Emits all tokens that could still be rewound; after the last one, the sequence has `len` tokens.
    pub(crate) fn emit_pending(
        &mut self,
        len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
        stream: &StreamSender,
    ) -> TokenOutcome {
        let mut outcome = TokenOutcome::Continue;
        while let Some(sampled) = self.banned.as_mut().and_then(BannedStrings::pop) {
            let is_last = self.banned.as_ref().is_none_or(BannedStrings::is_settled);
            let len = if is_last { len } else { 0 };
            outcome = self.emit(sampled, len, limits, tokenizer, stream);
            if matches!(outcome, TokenOutcome::End(_)) {
                self.discard_pending();
            }
        }
        outcome
    }

    /// Drops the tokens after the one that ended the answer.
    fn discard_pending(&mut self) {
        if let Some(banned) = &mut self.banned {
            while banned.pop().is_some() {}
        }
    }

    /// Emits a certain token, after which the sequence has `len` tokens.
    fn emit(
        &mut self,
        sampled: Sampled,
        len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
        stream: &StreamSender,
    ) -> TokenOutcome {
        let (id, mut text) = (sampled.token, self.released());
        if let (Some(total), Some(logprob)) = (&mut self.logprob, sampled.logprob) {
            total.add(logprob);
        }
        let reason = self.take(id, len, limits, tokenizer, &mut text);
        if let Some(FinishReason::StopToken(_) | FinishReason::EndOfGeneration | FinishReason::Failed(_)) =
            reason
        {
            return TokenOutcome::End(reason.unwrap_or(FinishReason::EndOfGeneration));
        }
        let logprob = sampled.logprob.filter(|_| !self.hide_logprobs);
        let token = Token::new(id, "").logprob(logprob).top_logprobs(sampled.top_logprobs);
        let token = token.observed(self.sampler.observed(self.emitted));
        self.emitted += 1;
        let was_reasoning = self.output.in_reasoning();
        let has_room = self.output.token(token, text, stream);
        match self.after_output(was_reasoning, reason, tokenizer) {
            Some(reason) => TokenOutcome::End(reason),
            None if has_room => TokenOutcome::Continue,
            None => TokenOutcome::StreamFull,
        }
    }

    /// Replays the answer so far of a resumed request: `tokens` from `prompt_len` on, whose text was emitted
    /// before. Returns the length up to the end of the answer, or of all tokens if it has not ended.
    pub(crate) fn replay(
        &mut self,
        tokens: &[TokenId],
        prompt_len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
    ) -> usize {
        for (i, token) in tokens.iter().enumerate().skip(prompt_len) {
            let mut text = self.released();
            let reason = match self.accept(*token) {
                Ok(()) => self.take(*token, i + 1, limits, tokenizer, &mut text),
                Err(reason) => Some(reason),
            };
            let was_reasoning = self.output.in_reasoning();
            self.output.replay(&text);
            self.ended = self.after_output(was_reasoning, reason, tokenizer);
            if self.ended.is_some() {
                return i + 1;
            }
        }
        if let Some(banned) = &mut self.banned {
            let budget = BudgetAhead::new(self.budget.as_ref(), &self.output);
            banned.resume(&self.detokenizer, &self.stop, budget);
        }
        tokens.len()
    }

    /// Processes a token of the answer: appends released text to `text`, and returns the finish reason
    /// if the answer ends with this token. A stop token or end-of-generation token has no text.
    fn take(
        &mut self,
        id: TokenId,
        len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
        text: &mut Released,
    ) -> Option<FinishReason> {
        if let Some(budget) = &mut self.budget {
            budget.taken();
        }
        self.stop.push_control(tokenizer, id);
        if self.stop_tokens.binary_search(&id).is_ok() {
            return Some(FinishReason::StopToken(id));
        }
        if self.end_of_generation.binary_search(&id).is_ok() {
            return Some(FinishReason::EndOfGeneration);
        }
        let mut decoded = String::new();
        self.detokenizer.push(tokenizer, id, &mut decoded);
        if let Some(banned) = &mut self.banned {
            banned.settle(&decoded);
        }
        if let Some(index) = self.stop.push_into(&decoded, text) {
            Some(FinishReason::StopString(index))
        } else if len >= limits.len_max {
            Some(FinishReason::MaxTokens)
        } else if len >= limits.context_max {
            Some(FinishReason::ContextFull)
        } else {
            None
        }
    }

    /// If the answer is cut off, drops the tokens that could still be rewound, since the uninterrupted answer
    /// may have other tokens there. Returns their number.
    pub(crate) fn drop_pending(&mut self, reason: &FinishReason) -> usize {
        match (reason, &mut self.banned) {
            (
                FinishReason::Cancelled
                | FinishReason::Deadline
                | FinishReason::FirstTokenTimeout
                | FinishReason::Failed(_),
                Some(banned),
            ) => std::iter::from_fn(|| banned.pop()).count(),
            _ => 0,
        }
    }

    /// Ends the answer after its last tool call, and reasoning at its limit.
    fn after_output(
        &mut self,
        was_reasoning: bool,
        reason: Option<FinishReason>,
        tokenizer: &dyn Tokenizer,
    ) -> Option<FinishReason> {
        if let Some(budget) = &mut self.budget {
            budget.output(was_reasoning, &self.output, tokenizer);
        }
        reason.or_else(|| (self.output.calls() >= self.calls_max).then_some(FinishReason::ToolCall))
    }

    fn released(&self) -> Released {
        Released { keep_controls: self.stop.keeps_controls(), ..Released::default() }
    }

    /// Ends the answer: releases the tokens and the text that were held back.
    pub(crate) fn finish(
        mut self,
        mut reason: FinishReason,
        tokenizer: &dyn Tokenizer,
        stream: &StreamSender,
    ) -> Ended {
        self.emit_pending(0, &Limits::NONE, tokenizer, stream);
        let mut text = self.released();
        if !self.stop.has_matched() {
            let mut decoded = String::new();
            self.detokenizer.finish(&mut decoded);
            // The last bytes may complete a stop string.
            let found = self.stop.push_into(&decoded, &mut text).or_else(|| self.stop.finish_into(&mut text));
            if let Some(index) = found {
                reason = FinishReason::StopString(index);
            }
        }
        let (events, text) = self.output.finish(text);
        let end = AnswerFinished::new(self.index, reason).text(text).seed(self.seed).logprob(self.logprob);
        let end = end.sampler_state(self.sampler.state());
        Ended { events, last: end, withheld: self.output.take_withheld() }
    }
}

/// The reason for the end of an answer that fails.
fn failed(error: impl Into<RequestError>) -> FinishReason {
    FinishReason::Failed(error.into())
}
