//! Context overflow: prompts and answers longer than the context.

/// The treatment of a request that does not fit the context, or the whole KV cache if that is smaller.
///
/// As JSON, [`DropMessages`](Self::DropMessages) is OpenAI's `"truncation": "auto"`; its `"disabled"` is
/// [`Refuse`](Self::Refuse). [`Shift`](Self::Shift) is `"context_shift": true` with llama.cpp's `n_keep`,
/// where -1 keeps the whole prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// A prompt that is too long is refused, and an answer ends with
    /// [`ContextFull`](crate::FinishReason::ContextFull) when the context is full.
    #[default]
    Refuse,
    /// Whole messages of a conversation are left out until prompt and answer fit; the answer gets
    /// `max_tokens`, at most half of the context, or a quarter of it where the request sets no `max_tokens`.
    ///
    /// The oldest turns go first, each with all its answers, so that a tool call never stays without its
    /// result. Then go the oldest rounds of tool calls since the last message of the user. System messages,
    /// that message and the last round stay. A conversation that is too long even so is refused, as are other
    /// prompts than conversations. [`Usage::dropped_messages`](crate::Usage::dropped_messages) counts.
    DropMessages,
    /// When an answer fills the context, its first `keep` tokens stay, the older half of the rest is dropped,
    /// and the answer goes on after what is left, which is computed again. Without `max_tokens`, it ends only
    /// with the model's own end, a stop string, a time limit or a cancel. A prompt that is too long is
    /// refused.
    ///
    /// [`Usage::shifted_tokens`](crate::Usage::shifted_tokens) counts the tokens that were dropped.
    Shift {
        /// Tokens of the prompt to keep, at most the whole prompt and three quarters of the context. A BOS is
        /// kept always.
        keep: usize,
    },
}
