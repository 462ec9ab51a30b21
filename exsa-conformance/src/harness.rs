//! Helpers for a backend's own tests, in which a session is driven without an engine.
//!
//! They panic if the session fails, like a test; the cases of this crate report a [`Failure`](crate::Failure)
//! instead.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use exsa_core::backend::Session;
use exsa_core::batch::{Batch, Logits, Span};
use exsa_core::{SeqId, TokenId};

/// `n` arbitrary token ids from 3 to 502, determined by `seed`: inside the vocabulary of the micro models.
pub fn tokens(n: usize, seed: u32) -> Vec<TokenId> {
    (0..n as u32).map(|i| 3 + (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 500).collect()
}

/// A copy of the rows of a pass.
///
/// # Panics
///
/// If the rows are not in host memory.
#[track_caller]
pub fn rows(logits: Option<Logits<'_>>) -> Vec<Vec<f32>> {
    let logits = logits.unwrap();
    (0..logits.rows()).map(|row| logits.row(row).unwrap().to_vec()).collect()
}

/// Appends `tokens` to `seq` at `position` in one span. Returns the logits of the last `rows` tokens.
///
/// # Panics
///
/// If the pass fails or returns a different number of rows.
#[track_caller]
pub fn feed(
    session: &mut dyn Session,
    seq: u32,
    position: usize,
    tokens: &[TokenId],
    rows: usize,
) -> Vec<Vec<f32>> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(seq), position, tokens).rows(rows));
    let found = self::rows(session.forward(&batch).unwrap().logits());
    assert_eq!(found.len(), rows);
    found
}

/// The token with the largest logit.
///
/// # Panics
///
/// If the row is empty.
#[track_caller]
pub fn argmax(row: &[f32]) -> TokenId {
    let (best, _) = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best as TokenId
}

/// `n` greedy tokens after `prompt`, in the empty sequence `seq`.
///
/// # Panics
///
/// If a pass fails.
#[track_caller]
pub fn greedy(session: &mut dyn Session, seq: u32, prompt: &[TokenId], n: usize) -> Vec<TokenId> {
    let mut position = prompt.len();
    let mut row = feed(session, seq, 0, prompt, 1).remove(0);
    let mut tokens = Vec::with_capacity(n);
    loop {
        tokens.push(argmax(&row));
        if tokens.len() == n {
            return tokens;
        }
        row = feed(session, seq, position, &tokens[tokens.len() - 1..], 1).remove(0);
        position += 1;
    }
}

/// The largest absolute difference of two rows; NaN if a difference is NaN.
///
/// # Panics
///
/// If the rows differ in length.
#[track_caller]
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d.is_nan() || most.is_nan() { f32::NAN } else { most.max(d) })
}
