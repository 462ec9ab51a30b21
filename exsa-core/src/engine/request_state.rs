//! State of one request outside the scheduler: sampler, text, stream, times.

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
    /// Tokens that end any answer, sorted; empty where they are ignored.
    pub(crate) end_of_generation: Vec<TokenId>,
    pub(crate) detokenizer: Detokenizer,
    pub(crate) stop: StopMatcher,
    pub(crate) stream: StreamSender,
    pub(crate) submitted: Duration,
    /// Time spent on the answer before it was submitted.
    pub(crate) elapsed: Duration,
    /// Whether part of the answer was generated before it was submitted.
    pub(crate) resumed: bool,
    /// Why the answer had ended before it was submitted.
    pub(crate) ended: Option<FinishReason>,
    pub(crate) priority: Priority,
    pub(crate) user: Arc<str>,
    /// Tokens of the prompt that were not computed for it.
    pub(crate) cached_tokens: usize,
    pub(crate) admitted: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) last_token: Option<Duration>,
}

/// Lengths, prompt included, at which an answer ends.
pub(crate) struct Limits {
    /// By the request's own limit.
    pub(crate) len_max: usize,
    /// Because the context is full.
    pub(crate) context_max: usize,
}

/// What came of a sampled token.
pub(crate) enum TokenOutcome {
    /// The sequence goes on.
    Continue,
    /// The sequence goes on once its stream has room.
    StreamFull,
    /// The sequence has ended.
    End(FinishReason),
}

impl RequestState {
    /// Takes in a sampled token, which makes the request `len` tokens long: text out, and whether the answer ends.
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

    /// Takes in the answer so far of a request that resumes: `tokens` from `prompt_len` on, whose text was given out
    /// before. Returns the number of tokens up to the end of the answer, if it has ended.
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

    /// Takes in a token of the answer: appends the text that became certain to `text`, and returns why the answer ends with
    /// it, if it does. A token that ends it by itself has no text.
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

    /// Sends the last event. `lens` are the tokens of prompt and answer.
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
        self.stream.finish(Finished::new(reason).text(text).usage(usage).seed(self.seed));
    }
}
