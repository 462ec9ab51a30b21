//! States of fixed size that layers without keys and values keep of each sequence.

use super::workspace::zeroed;
use crate::kernels::float::convolution::{SequenceSpan, StateRows};
use crate::plan::SessionPlan;
use exsa_core::SeqId;
use exsa_core::backend::read_error;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError};
use std::io::{Read, Write};

/// The states of all sequences, layer by layer, and the spans of a batch that change them.
pub(super) struct States {
    /// `[sequences][len]` for each layer with a state.
    layers: Vec<(Vec<f32>, usize)>,
    /// Spans of the batch.
    pub spans: Vec<SequenceSpan>,
}

impl States {
    /// States of a session by `plan`.
    pub fn new(plan: &SessionPlan) -> Result<Self, LoadError> {
        let sequences = plan.capabilities.sequences_max;
        let layer = |&len: &usize| Ok((zeroed(len.saturating_mul(sequences), "states of sequences")?, len));
        let layers = plan.state_lens.iter().map(layer).collect::<Result<Vec<_>, LoadError>>()?;
        let spans = if layers.is_empty() { 0 } else { sequences.min(plan.capabilities.batch_tokens_max) };
        Ok(Self { layers, spans: Vec::with_capacity(spans) })
    }

    /// Bytes of [`new`](Self::new).
    pub fn bytes(plan: &SessionPlan) -> u64 {
        let sequences = plan.capabilities.sequences_max as u64;
        plan.state_bytes().saturating_mul(sequences)
    }

    /// Notes the spans of `batch`.
    pub fn fill(&mut self, batch: &Batch) {
        self.spans.clear();
        if self.layers.is_empty() {
            return;
        }
        let mut row = 0;
        for span in batch.spans() {
            let is_first = span.position == 0;
            self.spans.push(SequenceSpan { row, len: span.len(), is_first, state: span.seq.index() });
            row += span.len();
        }
    }

    /// The states of all sequences in layer `index` of those with a state, and the spans.
    pub fn layer(&mut self, index: usize) -> (StateRows<'_>, &[SequenceSpan]) {
        let (values, len) = &mut self.layers[index];
        (StateRows { values, len: *len }, &self.spans)
    }

    /// Writes the states of `seq` in f32, little-endian, layer by layer.
    pub fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let mut bytes = Vec::new();
        for (values, len) in &self.layers {
            bytes.clear();
            bytes.extend(values[seq.index() * len..][..*len].iter().flat_map(|value| value.to_le_bytes()));
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<(), KvError> {
        let mut bytes = Vec::new();
        for (values, len) in &mut self.layers {
            bytes.resize(*len * size_of::<f32>(), 0);
            from.read_exact(&mut bytes).map_err(read_error)?;
            let state = &mut values[seq.index() * *len..][..*len];
            for (value, bytes) in state.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }
}
