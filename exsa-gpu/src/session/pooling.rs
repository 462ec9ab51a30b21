//! Pooling: one vector of the hidden states of a text.

use exsa_core::backend::Pooling;
use exsa_core::batch::{Batch, Span};
use exsa_core::error::StepError;

/// The batch with the rows that `pooling` needs of each span.
pub(crate) fn pooled_rows(batch: &Batch, pooling: Pooling) -> Result<Batch, StepError> {
    let mut texts = Batch::new();
    for span in batch.spans() {
        let tokens = span.token_ids().ok_or(StepError::Unsupported("inputs other than tokens"))?;
        let rows = if pooling == Pooling::Last { tokens.len().min(1) } else { tokens.len() };
        texts.push(Span::tokens(span.seq, span.position, tokens).rows(rows));
    }
    Ok(texts)
}

/// Appends the vector of a text, whose hidden states are `states`.
pub(crate) fn pool<'a>(
    mut states: impl ExactSizeIterator<Item = &'a [f32]>,
    pooling: Pooling,
    vectors: &mut Vec<f32>,
) {
    let (count, start) = (states.len(), vectors.len());
    let Some(first) = states.next() else { return };
    vectors.extend_from_slice(first);
    if pooling == Pooling::First {
        // The rest is passed over, so that the next text begins at its own states.
        states.for_each(drop);
        return;
    }
    let vector = &mut vectors[start..];
    for state in states {
        vector.iter_mut().zip(state).for_each(|(sum, x)| *sum += x);
    }
    if count > 1 {
        vector.iter_mut().for_each(|sum| *sum /= count as f32);
    }
}
