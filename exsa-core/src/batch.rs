//! What goes into one forward pass, and what comes out of it.

use crate::token::{SeqId, TokenId};

/// A run of consecutive tokens of one sequence inside a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The sequence that the tokens belong to. A sequence has at most one span in a batch.
    pub seq: SeqId,
    /// Position of the first token: how many tokens the session holds for `seq` before this pass.
    pub position: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// How many of the *last* tokens of the span want a row of logits, `0..=len`: 0 for a prefill chunk that is
    /// not the last, 1 for a decode, more when drafts are verified or a text is scored.
    pub rows: usize,
}

/// A ragged batch: prefill chunks and decodes of any lengths, side by side.
///
/// Tokens of all spans lie one after the other in [`tokens`](Self::tokens), in the order of
/// [`spans`](Self::spans). The rows of logits that come back have the same order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<TokenId>,
    spans: Vec<Span>,
    rows: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.spans.clear();
        self.rows = 0;
    }

    /// Appends a span of `seq` that starts at `position` and wants logits for its last `rows` tokens.
    ///
    /// `rows` is cut to `tokens.len()`; an empty `tokens` adds nothing.
    pub fn push(&mut self, seq: SeqId, position: usize, tokens: &[TokenId], rows: usize) {
        if tokens.is_empty() {
            return;
        }
        let rows = rows.min(tokens.len());
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span { seq, position, len: tokens.len(), rows });
        self.rows += rows;
    }

    /// The tokens of all spans.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The spans, in the order of their tokens.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Each span with its tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Span, &[TokenId])> {
        let mut rest = self.tokens.as_slice();
        self.spans.iter().map(move |span| {
            let (tokens, tail) = rest.split_at(span.len);
            rest = tail;
            (*span, tokens)
        })
    }

    /// Index into [`tokens`](Self::tokens) of every token that wants logits, ascending.
    pub fn row_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        let mut end = 0;
        self.spans.iter().flat_map(move |span| {
            end += span.len;
            end - span.rows..end
        })
    }

    /// Number of tokens in all spans.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the batch holds no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of rows of logits that all spans ask for.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// The rows of logits that a [`Batch`] asked for: `[rows, n_vocab]`, f32, row-major, lent by the session until
/// its next call.
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

/// The vectors that [`Session::embed`](crate::backend::Session::embed) gave: `[spans, width]`, f32, row-major, lent by the
/// session until its next call.
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
