//! Context overflow: prompts and answers longer than the context.

/// Behaviour for a request that exceeds the context window, or the whole KV cache if that is smaller.
///
/// As JSON, [`DropMessages`](Self::DropMessages) is OpenAI's `"truncation": "auto"`; its `"disabled"` is
/// [`Refuse`](Self::Refuse). [`Shift`](Self::Shift) is `"context_shift": true` with llama.cpp's `n_keep`,
/// where -1 keeps the whole prompt.
///
/// ```
/// use exsa_core::{Overflow, Request};
///
/// // An endless story: the first 64 tokens are kept whenever the context is full.
/// let request = Request::text("Once upon a time").overflow(Overflow::Shift { keep: 64 });
/// # let _ = request;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// A prompt that is too long is refused, and an answer ends with
    /// [`ContextFull`](crate::FinishReason::ContextFull) when the context is full.
    #[default]
    Refuse,
    /// Drops whole messages of a conversation until prompt and answer fit. The answer is allotted
    /// `max_tokens`, but at most half of the context; without `max_tokens`, a quarter of the context.
    ///
    /// The oldest turns are dropped first, each with all its replies, so that a tool call is never separated
    /// from its result. After them, the oldest rounds of tool calls since the last user message are dropped.
    /// System messages, the last user message and the last round are kept. A conversation that is still too
    /// long is refused, and so is a prompt that is not a conversation.
    /// [`Usage::dropped_messages`](crate::Usage::dropped_messages) reports the number of dropped messages.
    DropMessages,
    /// Context shift: when an answer fills the context, its first `keep` tokens are kept, the older half of
    /// the remaining tokens is dropped, and generation continues after the rest, whose KV is recomputed.
    /// Without `max_tokens`, the answer ends only by an end-of-generation token, a stop string, a time limit
    /// or cancellation. A prompt that is too long is refused.
    ///
    /// [`Usage::shifted_tokens`](crate::Usage::shifted_tokens) counts the tokens that were dropped.
    Shift {
        /// Tokens at the start of the prompt to keep; at most the whole prompt and three quarters of the
        /// context. A BOS token is always kept.
        keep: usize,
    },
}
