//! Converts the engine's updates to the events of a stream.

use crate::dialect::{Draft, RemoteEnd, RemoteUsage, Update};
use exsa_core::engine::{AnswerDecoder, DecoderStep};
use exsa_core::finish::Usage;
use exsa_core::stats::EngineStats;
use exsa_core::stream::{Finished, StreamSender, Token};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{FinishReason, RequestError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer in progress.
pub(crate) struct Answer {
    pub(crate) sender: StreamSender,
    pub(crate) decoder: AnswerDecoder,
    /// Whether text is produced locally from token ids.
    pub(crate) by_ids: bool,
    /// The tokenizer, if the engine omits ids of tokens inside a character.
    pub(crate) verify: Option<Arc<dyn Tokenizer>>,
    /// Prompt tokens, if known locally.
    pub(crate) prompt_tokens: Option<usize>,
    pub(crate) has_token_limit: bool,
    pub(crate) seed: u64,
    pub(crate) submitted: Instant,
    /// Time spent on the answer before this submission.
    pub(crate) elapsed: Duration,
    pub(crate) started: Option<Instant>,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
    /// Tokens generated before the submission. If there are any, the first-token deadline is met.
    pub(crate) resumed: usize,
    pub(crate) usage: RemoteUsage,
    pub(crate) stats: Arc<Mutex<EngineStats>>,
}

/// Effect of an update on the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flow {
    /// The answer continues.
    Continue,
    /// The answer continues once the stream has room.
    Full,
    /// The engine ended the answer; token counts follow.
    Ended(FinishReason),
    /// The answer was ended locally; the engine continues unless aborted.
    Cut(FinishReason),
}

impl Answer {
    /// Takes the content of an event.
    pub(crate) fn take(&mut self, update: Update) -> Flow {
        if let Some(usage) = update.usage {
            self.usage.merge(usage);
        }
        let mut full = false;
        for draft in update.drafts {
            self.count();
            match self.take_draft(draft) {
                DecoderStep::Continue => {}
                DecoderStep::End(reason) => return self.ended_here(reason, update.end.is_some()),
                // `StreamFull`, and any variants added later.
                _ => full = true,
            }
        }
        for delta in update.tool_calls {
            self.count();
            full |= !self.sender.tool_call(delta);
        }
        match update.end {
            Some(end) => Flow::Ended(self.reason(end)),
            None if full => Flow::Full,
            None => Flow::Continue,
        }
    }

    fn take_draft(&mut self, draft: Draft) -> DecoderStep {
        let token = Token::new(draft.id, "").logprob(draft.logprob).top_logprobs(draft.top);
        if draft.reasoning {
            let mut token = token;
            token.text = draft.text;
            return if self.sender.reasoning(token) {
                DecoderStep::Continue
            } else {
                DecoderStep::StreamFull
            };
        }
        match draft.id {
            Some(id) if self.by_ids || self.decoder.ends(id) => self.decoder.token(id, token, &self.sender),
            Some(id) => {
                let mut token = token;
                if let Some(tokenizer) = &self.verify {
                    let mut bytes = Vec::new();
                    tokenizer.piece(id, &mut bytes);
                    token.id = token.id.filter(|_| bytes == draft.text.as_bytes());
                }
                self.decoder.text(&draft.text, 1, token, &self.sender)
            }
            // Text beside ids is the engine's own; the local text is used.
            None if self.by_ids => DecoderStep::Continue,
            None => self.decoder.text(&draft.text, 1, token, &self.sender),
        }
    }

    fn ended_here(&self, reason: FinishReason, by_engine: bool) -> Flow {
        match reason {
            FinishReason::MaxTokens | FinishReason::EndOfGeneration => Flow::Ended(reason),
            _ if by_engine => Flow::Ended(reason),
            _ => Flow::Cut(reason),
        }
    }

    /// Counts a token or a delta.
    fn count(&mut self) {
        let now = Instant::now();
        let mut stats = self.stats.lock();
        stats.tokens_generated += 1;
        match self.last {
            Some(last) => stats.inter_token.record(now - last),
            None => stats.time_to_first_token.record(now - self.submitted),
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Returns whether the answer has no token yet.
    pub(crate) fn waits_for_first(&self) -> bool {
        self.first.is_none() && self.resumed == 0
    }

    /// Returns whether nothing was sent yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.first.is_none()
    }

    fn reason(&self, end: RemoteEnd) -> FinishReason {
        match end {
            RemoteEnd::Stop(Some(token)) if self.decoder.ends(token) => self.decoder.end_of(token),
            RemoteEnd::Stop(_) | RemoteEnd::ToolCalls => FinishReason::EndOfGeneration,
            RemoteEnd::Length if self.has_token_limit => FinishReason::MaxTokens,
            RemoteEnd::Length => FinishReason::ContextFull,
            RemoteEnd::Failed(message) => {
                FinishReason::Failed(RequestError::Generator(format!("the engine reports: {message}")))
            }
        }
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self, reason: FinishReason) {
        let (reason, events, text) = self.decoder.finish(reason);
        let now = Instant::now();
        // The engine counts a token that ended the answer and was not sent.
        let counted = self.usage.completion.map(|tokens| tokens + self.resumed);
        let completion = match self.by_ids {
            true => counted.unwrap_or_default().max(self.decoder.tokens()),
            false => counted.unwrap_or(self.decoder.tokens()),
        };
        let prompt = self.prompt_tokens.or(self.usage.prompt).unwrap_or_default();
        let cached = self.usage.cached.unwrap_or_default().min(prompt);
        let usage = Usage::new(prompt, completion)
            .cached_tokens(cached)
            .queue_time(self.started.map(|started| started - self.submitted))
            .time_to_first_token(self.first.map(|first| first - self.submitted))
            .total_time(self.elapsed + (now - self.submitted));
        let mut stats = self.stats.lock();
        stats.finished += 1;
        stats.failed += u64::from(matches!(reason, FinishReason::Failed(_)));
        stats.scheduler.prompt_tokens += prompt as u64;
        stats.scheduler.cached_tokens += cached as u64;
        drop(stats);
        let finished = Finished::new(reason).text(text).usage(usage).seed(self.seed);
        self.sender.finish_with(events, finished);
    }
}
