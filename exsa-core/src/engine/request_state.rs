//! Per-request state outside the scheduler: sampler, text, stream, times.

use crate::finish::{FinishReason, Usage};
use crate::priority::Priority;
use crate::sampler::{Sampled, Sampler};
use crate::stream::{Finished, StreamSender, Token};
use crate::text::Detokenizer;
use crate::text::StopMatcher;
use crate::token::RequestId;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct RequestState {
    pub(crate) id: RequestId,
    pub(crate) sampler: Sampler,
    pub(crate) seed: u64,
    /// Tokens that end the answer, sorted.
    pub(crate) stop_tokens: Vec<TokenId>,
    /// End-of-generation tokens, sorted; empty if ignored.
    pub(crate) end_of_generation: Vec<TokenId>,
    pub(crate) detokenizer: Detokenizer,
    pub(crate) stop: StopMatcher,
    pub(crate) stream: StreamSender,
    pub(crate) submitted: Duration,
    /// Time spent on the answer before submission.
    pub(crate) elapsed: Duration,
    /// Whether part of the answer was generated before submission.
    pub(crate) resumed: bool,
    /// Reason if the answer had ended before submission.
    pub(crate) ended: Option<FinishReason>,
    pub(crate) priority: Priority,
    pub(crate) user: Arc<str>,
    /// Prompt tokens with cached KV.
    pub(crate) cached_tokens: usize,
    pub(crate) admitted: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) last_token: Option<Duration>,
}

/// Maximum lengths of a request, prompt included.
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

impl RequestState {
    /// Processes a sampled token, which makes the request `len` tokens
    /// long: emits its text, and returns whether the answer ends.
    pub(crate) fn advance(
        &mut self,
        sampled: Sampled,
        len: usize,
        limits: &Limits,
        tokenizer: &dyn Tokenizer,
        now: Duration,
    ) -> TokenOutcome {
        self.first_token.get_or_insert(now);
        let (id, mut text) = (sampled.token, String::new());
        let reason = self.take(id, len, limits, tokenizer, &mut text);
        if let Some(FinishReason::StopToken(_) | FinishReason::EndOfGeneration) = reason {
            return TokenOutcome::End(reason.unwrap_or(FinishReason::EndOfGeneration));
        }
        let has_room = self
            .stream
            .token(Token::new(id, text).logprob(sampled.logprob).top_logprobs(sampled.top_logprobs));
        match reason {
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
        let mut text = String::new();
        for (i, token) in tokens.iter().enumerate().skip(prompt_len) {
            text.clear();
            self.ended = self.take(*token, i + 1, limits, tokenizer, &mut text);
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
        text: &mut String,
    ) -> Option<FinishReason> {
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
        if let Some(index) = self.stop.push(&decoded, text) {
            Some(FinishReason::StopString(index))
        } else if len >= limits.len_max {
            Some(FinishReason::MaxTokens)
        } else if len >= limits.context_max {
            Some(FinishReason::ContextFull)
        } else {
            None
        }
    }

    /// Sends the last event. `lens` holds the lengths of prompt and answer in tokens.
    pub(crate) fn finish(mut self, mut reason: FinishReason, lens: (usize, usize), now: Duration) {
        let mut text = String::new();
        if !self.stop.has_matched() {
            let mut decoded = String::new();
            self.detokenizer.finish(&mut decoded);
            // The last bytes may complete a stop string.
            let found = self.stop.push(&decoded, &mut text).or_else(|| self.stop.finish(&mut text));
            if let Some(index) = found {
                reason = FinishReason::StopString(index);
            }
        }
        let usage = Usage {
            prompt_tokens: lens.0,
            cached_tokens: self.cached_tokens,
            completion_tokens: lens.1,
            queue_time: self.admitted.map(|at| at.saturating_sub(self.submitted)),
            time_to_first_token: self
                .first_token
                .filter(|_| !self.resumed)
                .map(|at| at.saturating_sub(self.submitted).saturating_add(self.elapsed)),
            total_time: now.saturating_sub(self.submitted).saturating_add(self.elapsed),
        };
        let finished = Finished::new(reason).text(text).usage(usage).seed(self.seed);
        self.stream.finish(finished.sampler_state(self.sampler.state()));
    }
}
