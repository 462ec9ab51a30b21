//! A fault-injecting session.

use super::faults::{Effect, Faults, Operation, panic_on_purpose, words};
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Interrupt, Output, RowSampling, SampledRow, Session};
use exsa_core::batch::{Batch, Embeddings, Logits};
use exsa_core::error::{KvError, StepError};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

pub(super) struct FaultySession {
    inner: Box<dyn Session>,
    faults: Faults,
    interrupt: Interrupt,
    logits: Vec<f32>,
}

impl FaultySession {
    pub fn new(inner: Box<dyn Session>, faults: Faults, interrupt: Interrupt) -> Self {
        Self { inner, faults, interrupt, logits: Vec::new() }
    }

    /// Corrupts the rows of a successful pass.
    fn spoil(
        &mut self,
        batch: &Batch,
        effect: Effect,
        culprit: Option<SeqId>,
    ) -> Result<Output<'_>, StepError> {
        let output = self.inner.forward(batch)?;
        let Some(logits) = output.logits() else {
            return Err(StepError::Unsupported("spoiling rows on a device"));
        };
        let n_vocab = logits.n_vocab();
        let rows: Vec<&[f32]> = (0..logits.rows()).filter_map(|row| logits.row(row)).collect();
        let width = if effect == Effect::NarrowRows { n_vocab - 1 } else { n_vocab };
        self.logits = rows.iter().flat_map(|row| &row[..width]).copied().collect();
        match effect {
            Effect::NotANumber => {
                let owners = batch.spans().flat_map(|span| std::iter::repeat_n(span.seq, span.rows));
                for (row, owner) in self.logits.chunks_exact_mut(width).zip(owners) {
                    if culprit.is_none_or(|culprit| culprit == owner) {
                        row[width / 2] = f32::NAN;
                    }
                }
            }
            Effect::NoRows => self.logits.clear(),
            Effect::RowMissing => self.logits.truncate(self.logits.len().saturating_sub(width)),
            Effect::RowTooMany => self.logits.extend(std::iter::repeat_n(0.0, width)),
            _ => {}
        }
        Ok(Logits::new(&self.logits, width).into())
    }
}

/// Waits for the interrupt. Returns whether it was raised in time.
fn interrupted(interrupt: &Interrupt, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if interrupt.is_raised() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

impl Session for FaultySession {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        let Some((effect, culprit)) = self.faults.due(Operation::Forward, Some(batch)) else {
            return self.inner.forward(batch);
        };
        let problem = words(Operation::Forward);
        let error = match culprit {
            Some(seq) => StepError::Sequence { seq, problem },
            None => StepError::Backend(problem),
        };
        match effect {
            Effect::Fail => Err(error),
            Effect::FailLate => {
                self.inner.forward(batch)?;
                Err(error)
            }
            Effect::Panic => panic_on_purpose(Operation::Forward),
            Effect::Abort => std::process::abort(),
            Effect::Stall(time) => {
                std::thread::sleep(time);
                self.inner.forward(batch)
            }
            Effect::Hang(time) => {
                if interrupted(&self.interrupt, time) {
                    return Err(StepError::Interrupted);
                }
                self.inner.forward(batch)
            }
            spoilt => self.spoil(batch, spoilt, culprit),
        }
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        self.inner.embed(batch)
    }

    fn sample(&mut self, rows: &[RowSampling], out: &mut Vec<SampledRow>) -> Result<(), StepError> {
        self.inner.sample(rows, out)
    }

    fn checkpoint(&mut self, seq: SeqId) -> Result<(), KvError> {
        self.inner.checkpoint(seq)
    }

    fn release(&mut self, seq: SeqId) {
        let Self { inner, faults, .. } = self;
        let released = faults.call(
            Operation::Release,
            || {
                inner.release(seq);
                Ok(())
            },
            |_| (),
        );
        // `release` returns no error; such a fault leaves the sequence unchanged.
        released.ok();
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        let Self { inner, faults, .. } = self;
        faults.call(Operation::Fork, || inner.fork(from, to, len), KvError::Backend)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let Self { inner, faults, .. } = self;
        faults.call(Operation::Truncate, || inner.truncate(seq, len), KvError::Backend)
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        self.faults.call(Operation::Save, || self.inner.save(seq, to), KvError::Backend)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        let Self { inner, faults, .. } = self;
        faults.call(Operation::Restore, || inner.restore(seq, from), KvError::Backend)
    }
}
