//! State of one request outside the scheduler: sampler, text, stream, times.

use crate::finish::{FinishReason, Usage};
use crate::priority::Priority;
use crate::sampler::Sampler;
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
    /// The prompt, then what was generated.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_tokens: usize,
    pub(crate) max_tokens: usize,
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
    pub(crate) priority: Priority,
    pub(crate) user: Arc<str>,
    /// Tokens of the prompt that were not computed for it.
    pub(crate) cached_tokens: usize,
    pub(crate) admitted: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) last_token: Option<Duration>,
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
    pub(crate) fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Takes in a sampled token: text out, and whether the answer ends. `context_max` is the number of tokens
    /// at which it has to.
    pub(crate) fn advance(
        &mut self,
        id: TokenId,
        logprob: Option<f32>,
        tokenizer: &dyn Tokenizer,
        context_max: usize,
        now: Duration,
    ) -> TokenOutcome {
        self.tokens.push(id);
        self.first_token.get_or_insert(now);
        if self.stop_tokens.binary_search(&id).is_ok() {
            return TokenOutcome::End(FinishReason::StopToken(id));
        }
        if self.end_of_generation.binary_search(&id).is_ok() {
            return TokenOutcome::End(FinishReason::EndOfGeneration);
        }
        let (mut decoded, mut text) = (String::new(), String::new());
        self.detokenizer.push(tokenizer, id, &mut decoded);
        let stopped = self.stop.push(&decoded, &mut text);
        let has_room = self.stream.token(Token::new(id, text).logprob(logprob));
        if let Some(index) = stopped {
            TokenOutcome::End(FinishReason::StopString(index))
        } else if self.completion_tokens() >= self.max_tokens {
            TokenOutcome::End(FinishReason::MaxTokens)
        } else if self.tokens.len() >= context_max {
            TokenOutcome::End(FinishReason::ContextFull)
        } else if has_room {
            TokenOutcome::Continue
        } else {
            TokenOutcome::StreamFull
        }
    }

    /// Sends the last event.
    pub(crate) fn finish(mut self, mut reason: FinishReason, now: Duration) {
        let mut text = String::new();
        if !matches!(reason, FinishReason::StopString(_)) {
            let mut decoded = String::new();
            self.detokenizer.finish(&mut decoded);
            // The last bytes may complete a stop string.
            let found = self.stop.push(&decoded, &mut text).or_else(|| self.stop.finish(&mut text));
            if let Some(index) = found {
                reason = FinishReason::StopString(index);
            }
        }
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.completion_tokens(),
            queue_time: self.admitted.map(|at| at.saturating_sub(self.submitted)),
            time_to_first_token: self.first_token.map(|at| at.saturating_sub(self.submitted)),
            total_time: now.saturating_sub(self.submitted),
        };
        self.stream.finish(Finished::new(reason).text(text).usage(usage).seed(self.seed));
    }
}
