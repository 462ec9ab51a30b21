//! One answer of a request outside the scheduler: sampler, end conditions, text, output.

use crate::constraint::{Allowed, ConstraintState};
use crate::engine::output::Output;
use crate::engine::reasoning_budget::ReasoningBudget;
use crate::finish::{FinishReason, RequestError};
use crate::sampler::{SampleError, SampleScratch, Sampled, Sampler};
use crate::stream::{AnswerFinished, AnswerLogprob, Event, StreamSender, Token};
use crate::text::{Detokenizer, Released, StopMatcher};
use crate::token::{RequestId, TokenId};
use crate::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Duration;

/// An answer in the making. It has a sequence and a [`SchedRequest`](crate::schedule::SchedRequest) of its
/// own.
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
    /// Limit of the reasoning's length.
    pub(crate) budget: Option<ReasoningBudget>,
    /// Tool calls after which the answer ends.
    pub(crate) calls_max: usize,
    /// Log-probability so far; `None` if it is not computed.
    pub(crate) logprob: Option<AnswerLogprob>,
    /// Whether tokens are sent without their log-probabilities, which only rank the answers.
    pub(crate) hide_logprobs: bool,
    /// Reason if the answer had ended before submission.
    pub(crate) ended: Option<FinishReason>,
    /// Whether it has had a sequence, so that it no longer counts as waiting.
    pub(crate) admitted: bool,
    pub(crate) last_token: Option<Duration>,
    pub(crate) constraint: Option<ConstraintState>,
}

/// Maximum lengths of a sequence, prompt included.
pub(crate) struct Limits {
    /// The request's own limit.
    pub(crate) len_max: usize,
    /// The context length.
    pub(crate) context_max: usize,
}

/// Effect of a sampled token on its sequence.
pub(crate) enum TokenOutcome {
    /// The sequence continues.
    Continue,
    /// The sequence continues once its stream has room.
    StreamFull,
    /// The sequence has ended.
    End(FinishReason),
}

impl Answer {
    /// The token that follows `history`, from the row of `logits` after it, or without one if the constraint forces
    /// the token. `None` if a row is needed and there is none.
    pub(crate) fn draw(
        &mut self,
        logits: Option<&[f32]>,
        history: &[TokenId],
        scratch: &mut SampleScratch,
    ) -> Result<Option<Sampled>, RequestError> {
        let mut mask = None;
        if let Some(constraint) = &mut self.constraint {
            if let Some(token) = constraint.forced()? {
                return Ok(forced(token, &self.sampler, logits, scratch)?);
            }
            if logits.is_some()
                && let Allowed::Mask(allowed) = constraint.allowed()?
            {
                mask = Some(allowed);
            }
        }
        let Some(logits) = logits else { return Ok(None) };
        let position = history.len() as u64;
        Ok(Some(self.sampler.sample_masked(logits, history, position, mask, scratch)?))
    }

    /// Processes a sampled token, which makes the sequence `len` tokens
    /// long: emits its text, and returns whether the answer ends.
    pub(crate) fn advance(
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
            let reason = self.take(*token, i + 1, limits, tokenizer, &mut text);
            let was_reasoning = self.output.in_reasoning();
            self.output.replay(&text);
            self.ended = self.after_output(was_reasoning, reason, tokenizer);
            if self.ended.is_some() {
                return i + 1;
            }
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
        if let Some(constraint) = &mut self.constraint
            && let Err(error) = constraint.accept(id)
        {
            return Some(FinishReason::Failed(error.into()));
        }
        if let Some(budget) = &mut self.budget {
            budget.taken();
        }
        self.sampler.accept(id);
        self.stop.push_control(tokenizer, id);
        if self.stop_tokens.binary_search(&id).is_ok() {
            return Some(FinishReason::StopToken(id));
        }
        if self.end_of_generation.binary_search(&id).is_ok() {
            return Some(FinishReason::EndOfGeneration);
        }
        let mut decoded = String::new();
        self.detokenizer.push(tokenizer, id, &mut decoded);
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

    /// The token that goes in the place of the sampled one, if one is forced.
    pub(crate) fn forced_token(&self) -> Option<TokenId> {
        self.budget.as_ref().and_then(ReasoningBudget::forced)
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

    /// Ends the answer: releases the text that was held back, and returns
    /// the answer's last event, and the events that were withheld, if any were.
    pub(crate) fn finish(
        mut self,
        mut reason: FinishReason,
        stream: &StreamSender,
    ) -> (AnswerFinished, Option<Vec<Event>>) {
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
        let text = self.output.finish(text, stream);
        let end = AnswerFinished::new(self.index, reason).text(text).seed(self.seed).logprob(self.logprob);
        (end, self.output.take_withheld())
    }
}

/// A token that a constraint forces, without a draw. Log probabilities need its row.
fn forced(
    token: TokenId,
    sampler: &Sampler,
    logits: Option<&[f32]>,
    scratch: &mut SampleScratch,
) -> Result<Option<Sampled>, SampleError> {
    let (logprob, top_logprobs) = match (sampler.logprobs(), logits) {
        (None, _) => (None, Vec::new()),
        (Some(_), None) => return Ok(None),
        (Some((logprob, top)), Some(logits)) => {
            let scored = sampler.score(logits, token, top, scratch)?;
            (logprob.then_some(scored.logprob), scored.top)
        }
    };
    Ok(Some(Sampled { token, logprob, top_logprobs }))
}
