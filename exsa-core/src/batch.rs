//! Input of a forward pass, and its result rows.

use crate::backend::capabilities::Capabilities;
use crate::error::StepError;
use crate::token::{AdapterId, SeqId, TokenId};
use std::ops::Range;

/// Input of a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Token ids.
    Tokens(&'a [TokenId]),
}

/// An adapter applied to a span, and its scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanAdapter {
    /// The adapter.
    pub id: AdapterId,
    /// Factor on the adapter's output; 1 is the trained strength.
    pub scale: f32,
}

/// A run of consecutive positions of one sequence inside a [`Batch`].
///
/// ```
/// use exsa_core::SeqId;
/// use exsa_core::batch::{Batch, Span};
///
/// let mut batch = Batch::new();
/// batch.push(Span::tokens(SeqId(0), 0, &[1, 2, 3]).rows(1)); // a prompt, and logits for its last token
/// assert_eq!((batch.len(), batch.rows()), (3, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Span<'a> {
    /// Sequence of the span. A sequence has at most one span in a batch.
    pub seq: SeqId,
    /// Position of the first token: the number of tokens that the session holds for `seq` before this pass.
    pub position: usize,
    /// Tokens of the span, at least 1.
    pub input: Input<'a>,
    /// Number of *last* tokens of the span that need a row of logits, `0..=len`: 0 for a
    /// prefill chunk before the last, 1 for a decode, more to verify drafts or score a text.
    pub rows: usize,
    /// Adapters applied to the span, summed; empty for the model
    /// alone. All spans of a sequence use the same adapters, or ones with equal
    /// [fingerprints](crate::backend::AdapterInfo::fingerprint).
    pub adapters: &'a [SpanAdapter],
}

impl<'a> Span<'a> {
    /// Creates a span of token ids without logits or adapters.
    #[must_use]
    pub fn tokens(seq: SeqId, position: usize, tokens: &'a [TokenId]) -> Self {
        Self { seq, position, input: Input::Tokens(tokens), rows: 0, adapters: &[] }
    }

    /// Requests logits of the last `rows` tokens, at most of all tokens.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows.min(self.len());
        self
    }

    /// Computes the span with these adapters.
    #[must_use]
    pub fn adapters(mut self, adapters: &'a [SpanAdapter]) -> Self {
        self.adapters = adapters;
        self
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.input {
            Input::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether the span has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Position after the last token.
    #[must_use]
    pub fn end(&self) -> usize {
        self.position + self.len()
    }

    /// The token ids; `None` for other inputs.
    #[must_use]
    pub fn token_ids(&self) -> Option<&'a [TokenId]> {
        match self.input {
            Input::Tokens(tokens) => Some(tokens),
        }
    }
}

/// A span as the batch stores it.
#[derive(Clone, Debug)]
struct Entry {
    seq: SeqId,
    position: usize,
    rows: usize,
    tokens: Range<usize>,
    adapters: Range<usize>,
}

/// A ragged batch: prefill chunks and decodes of any lengths, side by side.
///
/// Tokens of all spans are concatenated in [`tokens`](Self::tokens), in the
/// order of [`spans`](Self::spans). Rows of logits have the same order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<TokenId>,
    adapters: Vec<SpanAdapter>,
    spans: Vec<Entry>,
    rows: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.adapters.clear();
        self.spans.clear();
        self.rows = 0;
    }

    /// Appends a span; an empty span adds nothing.
    pub fn push(&mut self, span: Span<'_>) {
        if span.is_empty() {
            return;
        }
        let (tokens, adapters) = (self.tokens.len(), self.adapters.len());
        match span.input {
            Input::Tokens(ids) => self.tokens.extend_from_slice(ids),
        }
        self.adapters.extend_from_slice(span.adapters);
        let rows = span.rows.min(span.len());
        self.spans.push(Entry {
            seq: span.seq,
            position: span.position,
            rows,
            tokens: tokens..self.tokens.len(),
            adapters: adapters..self.adapters.len(),
        });
        self.rows += rows;
    }

    /// The token ids of all spans.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The spans, in the order of their tokens.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span<'_>> + DoubleEndedIterator + Clone {
        self.spans.iter().map(|entry| self.span(entry))
    }

    /// Number of spans.
    #[must_use]
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }

    fn span(&self, entry: &Entry) -> Span<'_> {
        Span {
            seq: entry.seq,
            position: entry.position,
            input: Input::Tokens(&self.tokens[entry.tokens.clone()]),
            rows: entry.rows,
            adapters: &self.adapters[entry.adapters.clone()],
        }
    }

    /// Index into [`tokens`](Self::tokens) of every token that needs logits, ascending.
    pub fn row_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        self.spans.iter().flat_map(|entry| entry.tokens.end - entry.rows..entry.tokens.end)
    }

    /// Number of tokens in all spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the batch holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of rows of logits requested by all spans.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// For sessions: checks the batch against the contract of
    /// [`Session`](crate::backend::Session) before anything changes.
    ///
    /// `held` returns the number of tokens that a sequence holds, or `None` for an unknown id. `seen` is
    /// scratch memory, one flag per sequence id; its contents do not matter. The session itself checks for
    /// free space in the KV cache.
    ///
    /// # Errors
    ///
    /// [`StepError::BatchTooLarge`], [`StepError::Sequence`] (unknown id, two spans, context exceeded, too
    /// many adapters), [`StepError::Position`], [`StepError::InvalidToken`], [`StepError::Unsupported`].
    pub fn validate(
        &self,
        capabilities: &Capabilities,
        n_vocab: usize,
        seen: &mut [bool],
        held: impl Fn(SeqId) -> Option<usize>,
    ) -> Result<(), StepError> {
        let limit = capabilities.batch_tokens_max;
        if self.len() > limit {
            return Err(StepError::BatchTooLarge { tokens: self.len(), limit });
        }
        seen.fill(false);
        for span in self.spans() {
            let (seq, position, len) = (span.seq, span.position, span.len());
            let problem = |problem: String| Err(StepError::Sequence { seq, problem });
            let (Some(held), Some(seen)) = (held(seq), seen.get_mut(seq.index())) else {
                let max = capabilities.sequences_max;
                return problem(format!("the id is not below the session's sequences_max of {max}"));
            };
            if std::mem::replace(seen, true) {
                return problem("it has two spans in one batch".to_owned());
            }
            if position != held {
                return Err(StepError::Position { seq, position, held });
            }
            let context = capabilities.context_tokens_max;
            if len > context.saturating_sub(held) {
                return problem(format!("{held} tokens and {len} more are over its context of {context}"));
            }
            let (adapters, adapters_max) = (span.adapters.len(), capabilities.span_adapters_max);
            if adapters > adapters_max {
                return problem(format!(
                    "{adapters} adapters, but the session takes {adapters_max} per span"
                ));
            }
            let ids = span.token_ids().ok_or(StepError::Unsupported("inputs other than tokens"))?;
            if let Some(&token) = ids.iter().find(|token| **token as usize >= n_vocab) {
                return Err(StepError::InvalidToken { seq, token, n_vocab });
            }
        }
        Ok(())
    }
}

/// Rows of logits requested by a [`Batch`]: `[rows, n_vocab]`,
/// f32, row-major, lent by the session until its next call.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    data: &'a [f32],
    n_vocab: usize,
}

impl<'a> Logits<'a> {
    /// Wraps `data`, a whole number of rows of `n_vocab` values.
    pub fn new(data: &'a [f32], n_vocab: usize) -> Self {
        debug_assert!(n_vocab > 0 && data.len().is_multiple_of(n_vocab));
        Self { data, n_vocab }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.n_vocab.max(1)
    }

    /// Values in a row.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Row `i`, or `None` past the last.
    pub fn row(&self, i: usize) -> Option<&'a [f32]> {
        let start = i.checked_mul(self.n_vocab)?;
        self.data.get(start..start.checked_add(self.n_vocab)?)
    }
}

/// Result of [`Session::embed`](crate::backend::Session::embed):
/// `[spans, width]`, f32, row-major, lent by the session until its next call.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings<'a> {
    data: &'a [f32],
    width: usize,
}

impl<'a> Embeddings<'a> {
    /// Wraps `data`, a whole number of vectors of `width` values.
    pub fn new(data: &'a [f32], width: usize) -> Self {
        debug_assert!(width > 0 && data.len().is_multiple_of(width));
        Self { data, width }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Values in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vector of span `i`, or `None` past the last.
    pub fn vector(&self, i: usize) -> Option<&'a [f32]> {
        let start = i.checked_mul(self.width)?;
        self.data.get(start..start.checked_add(self.width)?)
    }
}
