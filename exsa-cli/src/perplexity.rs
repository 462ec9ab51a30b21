//! `exsa perplexity`: perplexity as defined by llama.cpp's `llama-perplexity`.

use crate::args::PerplexityArgs;
use crate::chunks::{self, Chunks};
use crate::error::CliError;
use crate::model;
use exsa::core::backend::{LoadOptions, LoadProgress, Session, SessionOptions, ThreadOptions};
use exsa::core::batch::{Batch, Span};
use exsa::core::tokenizer::{EncodeOptions, encode_prompt};
use exsa::core::{SeqId, TokenId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::Write;

/// Rows of logits per pass: 40 MB for a vocabulary of 150,000 tokens.
const ROWS_MAX: usize = 64;

/// Runs the command.
pub(crate) fn perplexity(args: &PerplexityArgs) -> Result<(), CliError> {
    let text = chunks::read(args.file.as_deref())?;
    let (backend, source) = (model::backend(args.backend.as_deref())?, model::source(&args.model)?);
    let threads = ThreadOptions::new(args.threads);
    let mut load = LoadOptions::new().threads(threads);
    if let Some(device) = &args.device {
        load = load.device(device);
    }
    let failed = |error: &dyn std::fmt::Display| CliError::Other(format!("{}: {error}", args.model));
    let loaded = backend.load(&source, &load, &mut LoadProgress::none()).map_err(|error| failed(&error))?;
    let tokenizer = loaded.tokenizer();
    let tokens = encode_prompt(&*tokenizer, &text, &EncodeOptions::default());
    let special = tokenizer.special();
    let chunks = Chunks {
        size: chunks::size(args.context, loaded.info())?,
        // The first token of each chunk is replaced by BOS.
        bos: special.bos.filter(|_| special.add_bos),
        tokens: &tokens,
        max: args.chunks.map_or(usize::MAX, usize::from),
    };
    if tokens.len() < 2 * chunks.size {
        return Err(CliError::Usage(format!(
            "the text has {} tokens; at least {} are needed, two chunks of {} (--context)",
            tokens.len(),
            2 * chunks.size,
            chunks.size
        )));
    }
    let options = SessionOptions::new()
        .sequences(1)
        .context_tokens(chunks.size)
        .kv_type(model::kv_type(&args.kv_type)?)
        .threads(threads);
    let mut session = loaded.session(&options).map_err(|error| failed(&error))?;
    let bar = ProgressBar::with_draw_target(Some(chunks.count() as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} chunk {pos}/{len} {eta} left, {msg}") {
        bar.set_style(style);
    }
    let mut score = Score::default();
    for chunk in 0..chunks.count() {
        score_chunk(&mut *session, &chunks.tokens(chunk), chunks.targets(chunk), &mut score)?;
        bar.set_position(chunk as u64 + 1);
        bar.set_message(format!("{:.4}", score.perplexity()));
    }
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if args.json {
        let result = json!({
            "perplexity": score.perplexity(), "error": score.error(), "tokens": score.count, "chunks": chunks.count(),
            "context": chunks.size,
        });
        return Ok(writeln!(out, "{result}")?);
    }
    writeln!(
        out,
        "perplexity {:.4} ± {:.4} ({} tokens of {} chunks of {})",
        score.perplexity(),
        score.error(),
        score.count,
        chunks.count(),
        chunks.size
    )?;
    Ok(())
}

/// Adds the scores of a chunk.
fn score_chunk(
    session: &mut dyn Session,
    tokens: &[TokenId],
    targets: &[TokenId],
    score: &mut Score,
) -> Result<(), CliError> {
    let batch_max = session.capabilities().batch_tokens_max.max(1);
    let first = tokens.len() - 1 - targets.len();
    let (mut at, mut targets) = (0, targets.iter());
    // The last token has no successor to predict.
    let end = tokens.len() - 1;
    while at < end {
        let next = if at < first { first.min(at + batch_max) } else { end.min(at + batch_max.min(ROWS_MAX)) };
        let rows = if at < first { 0 } else { next - at };
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), at, &tokens[at..next]).rows(rows));
        let output = session.forward(&batch).map_err(|error| CliError::Other(error.to_string()))?;
        for (row, target) in (0..rows).zip(targets.by_ref()) {
            let logits =
                output.row(row).ok_or_else(|| CliError::Other("the backend returned no logits".into()))?;
            score.add(negative_log_probability(logits, *target)?);
        }
        at = next;
    }
    session.release(SeqId(0));
    Ok(())
}

/// `-ln(softmax(logits)[target])`.
fn negative_log_probability(logits: &[f32], target: TokenId) -> Result<f64, CliError> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum();
    let logit = logits.get(target as usize).copied().map(f64::from);
    let value = logit.map(|logit| max + sum.ln() - logit).filter(|value| value.is_finite());
    value.ok_or_else(|| CliError::Other("the model's logits are not finite".into()))
}

/// Sums over the scored tokens.
#[derive(Debug, Default)]
struct Score {
    sum: f64,
    squares: f64,
    count: u64,
}

impl Score {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.squares += value * value;
        self.count += 1;
    }

    /// `exp` of the mean.
    fn perplexity(&self) -> f64 {
        (self.sum / self.count.max(1) as f64).exp()
    }

    /// Standard error of the perplexity, from that of the mean.
    fn error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let (count, mean) = (self.count as f64, self.sum / self.count as f64);
        let variance = (self.squares / count - mean * mean).max(0.0);
        (variance / (count - 1.0)).sqrt() * self.perplexity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_predictions_have_the_size_of_the_vocabulary() {
        let mut score = Score::default();
        for target in 0..5 {
            score.add(negative_log_probability(&[7.0; 5], target).unwrap());
        }
        assert!((score.perplexity() - 5.0).abs() < 1e-12);
        assert!(score.error() < 1e-6);
        assert!(negative_log_probability(&[f32::NAN; 5], 0).is_err());
        assert!(negative_log_probability(&[0.0; 5], 5).is_err());
    }
}
