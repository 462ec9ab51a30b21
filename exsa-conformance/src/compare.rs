//! One model on two backends.

use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use std::sync::Arc;

/// Tokens of the prompt: a pass of all but the last ones, and a pass of these.
const PROMPT: [usize; 2] = [43, 5];

/// How far two backends are apart on a model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Largest difference of two logits of a row, relative to the row's largest one; infinite for values that
    /// are not numbers.
    pub difference: f32,
    /// First greedy tokens that are equal, of [`GREEDY`](Self::GREEDY).
    pub equal_tokens: usize,
}

impl Comparison {
    /// Greedy tokens that are compared.
    pub const GREEDY: usize = 24;
}

/// Compares the logits of all tokens of an arbitrary prompt, and greedy tokens after it.
///
/// # Errors
///
/// Words for a backend's failure.
pub fn compare(
    backend: &dyn InferenceBackend,
    reference: &dyn InferenceBackend,
    source: &ModelSource,
) -> Result<Comparison, String> {
    let found = run(backend, source)?;
    let expected = run(reference, source)?;
    let mut difference = 0_f32;
    for (row, expected) in found.rows.iter().zip(&expected.rows) {
        let largest = expected.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
        for (value, expected) in row.iter().zip(expected) {
            let error = (value - expected).abs() / largest;
            difference = if error.is_nan() { f32::INFINITY } else { difference.max(error) };
        }
    }
    if found.rows.len() != expected.rows.len() {
        difference = f32::INFINITY;
    }
    let equal_tokens = found.greedy.iter().zip(&expected.greedy).take_while(|(a, b)| a == b).count();
    Ok(Comparison { difference, equal_tokens })
}

/// Rows of the prompt, and the greedy tokens after it.
struct Run {
    rows: Vec<Vec<f32>>,
    greedy: Vec<TokenId>,
}

fn run(backend: &dyn InferenceBackend, source: &ModelSource) -> Result<Run, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", backend.name());
    let loaded = backend.load(source, &LoadOptions::new(), &mut LoadProgress::none());
    let model: Arc<dyn Model> = loaded.map_err(|error| fail(&error))?;
    let vocabulary = (model.info().n_vocab as u64).max(4);
    let [first, last] = PROMPT;
    let tokens: Vec<TokenId> =
        (0..(first + last) as u64).map(|i| (3 + i * 7919 % (vocabulary - 3)) as TokenId).collect();
    let options = SessionOptions::new().sequences(1).kv_tokens(128).batch_tokens(64);
    let mut session = model.session(&options).map_err(|error| fail(&error))?;
    let mut rows = pass(&mut *session, 0, &tokens[..first]).map_err(|error| fail(&error))?;
    rows.extend(pass(&mut *session, first, &tokens[first..]).map_err(|error| fail(&error))?);
    let mut greedy = Vec::with_capacity(Comparison::GREEDY);
    let mut token = best(rows.last());
    for i in 0..Comparison::GREEDY {
        greedy.push(token);
        let row = pass(&mut *session, tokens.len() + i, &[token]).map_err(|error| fail(&error))?;
        token = best(row.last());
    }
    Ok(Run { rows, greedy })
}

/// The logits of `tokens` from `position` on.
fn pass(session: &mut dyn Session, position: usize, tokens: &[TokenId]) -> Result<Vec<Vec<f32>>, String> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), position, tokens).rows(tokens.len()));
    let output = session.forward(&batch).map_err(|error| error.to_string())?;
    let logits = output.logits().ok_or("no logits")?;
    let row = |row| logits.row(row).map(<[f32]>::to_vec).ok_or_else(|| format!("no row {row}"));
    (0..logits.rows()).map(row).collect()
}

fn best(row: Option<&Vec<f32>>) -> TokenId {
    let best = row.into_iter().flatten().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as TokenId)
}
