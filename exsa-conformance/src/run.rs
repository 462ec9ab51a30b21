//! A session under test.

use crate::check::check;
use crate::clause;
use crate::failure::Failure;
use crate::logits::{Rows, copy};
use exsa_core::backend::{Capabilities, Session};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{KvError, StepError};
use exsa_core::{SeqId, TokenId};

/// A part of a batch: sequence, position, tokens, requested rows.
pub(crate) type Part<'a> = (u32, usize, &'a [TokenId], usize);

/// A session with shortcuts for the cases.
pub(crate) struct Run {
    pub session: Box<dyn Session>,
    n_vocab: usize,
}

impl Run {
    pub fn new(session: Box<dyn Session>, n_vocab: usize) -> Self {
        Self { session, n_vocab }
    }

    pub fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    /// Runs a batch of `parts`. Returns the rows or the error.
    pub fn try_pass(&mut self, parts: &[Part<'_>]) -> Result<Rows, StepError> {
        let mut batch = Batch::new();
        for (seq, position, tokens, rows) in parts {
            batch.push(Span::tokens(SeqId(*seq), *position, tokens).rows(*rows));
        }
        self.session.forward(&batch).map(copy)
    }

    /// Runs a batch, which must succeed and give the requested number of rows.
    pub fn pass(&mut self, parts: &[Part<'_>]) -> Result<Rows, Failure> {
        let check = check(clause::ROWS, describe(parts));
        let rows = check.works(self.try_pass(parts))?;
        let asked: usize = parts.iter().map(|(_, _, tokens, rows)| (*rows).min(tokens.len())).sum();
        if rows.len() != asked || rows.iter().any(|row| row.len() != self.n_vocab) {
            let width = rows.first().map_or(0, Vec::len);
            return Err(check.fail(
                format!("{asked} rows of {} values", self.n_vocab),
                format!("{} rows of {width}", rows.len()),
            ));
        }
        Ok(rows)
    }

    /// Appends `tokens` at `position` in as many passes as the batch
    /// limit requires. Returns the logits of the last `rows` tokens.
    pub fn feed(
        &mut self,
        seq: u32,
        position: usize,
        tokens: &[TokenId],
        rows: usize,
    ) -> Result<Rows, Failure> {
        let mut all = Rows::new();
        let step = self.capabilities().batch_tokens_max.max(1);
        let skip = tokens.len().saturating_sub(rows);
        for (i, chunk) in tokens.chunks(step).enumerate() {
            let start = i * step;
            let wanted = (start + chunk.len()).saturating_sub(skip.max(start));
            all.extend(self.pass(&[(seq, position + start, chunk, wanted)])?);
        }
        Ok(all)
    }

    pub fn fork(&mut self, from: u32, to: u32, len: usize) -> Result<(), KvError> {
        self.session.fork(SeqId(from), SeqId(to), len)
    }

    pub fn truncate(&mut self, seq: u32, len: usize) -> Result<(), KvError> {
        self.session.truncate(SeqId(seq), len)
    }

    pub fn release(&mut self, seq: u32) {
        self.session.release(SeqId(seq));
    }

    pub fn save(&self, seq: u32) -> Result<Vec<u8>, KvError> {
        let mut saved = Vec::new();
        self.session.save(SeqId(seq), &mut saved).map(|()| saved)
    }

    pub fn restore(&mut self, seq: u32, mut saved: &[u8]) -> Result<usize, KvError> {
        self.session.restore(SeqId(seq), &mut saved)
    }

    /// Rolls a sequence back to `len` tokens after an error, as core does. Returns
    /// whether it still holds them: without truncation it is released instead.
    pub fn roll_back(&mut self, seq: u32, len: usize) -> bool {
        if len > 0 && self.capabilities().truncate && self.truncate(seq, len).is_ok() {
            return true;
        }
        self.release(seq);
        len == 0
    }
}

/// Description of a batch.
pub(crate) fn describe(parts: &[Part<'_>]) -> String {
    let part = |(seq, position, tokens, rows): &Part<'_>| {
        format!("{} tokens of sequence {seq} at position {position}, {rows} rows", tokens.len())
    };
    match parts {
        [] => "an empty batch".into(),
        parts => {
            let mut texts: Vec<String> = parts.iter().take(6).map(part).collect();
            if parts.len() > 6 {
                texts.push(format!("{} more spans", parts.len() - 6));
            }
            format!("one batch: {}", texts.join("; "))
        }
    }
}
