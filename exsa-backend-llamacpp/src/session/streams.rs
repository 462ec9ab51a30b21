//! Placement of sequences in streams: assignment, closing of gaps, copies.

use super::LlamaCppSession;
use crate::stream_map::plan_move;
use exsa_core::SeqId;
use exsa_core::batch::Batch;

impl LlamaCppSession {
    /// Assigns `seq` to a free stream if it is empty.
    pub(super) fn assign_stream(&mut self, seq: SeqId) {
        let Self { cells, streams, .. } = self;
        if !self.unified && cells.len(seq) == Some(0) {
            streams.assign_first_free(seq, |seq| cells.len(seq) == Some(0));
        }
    }

    /// Moves a sequence of `batch` to reduce the gaps between its streams. Only if the last batch had gaps,
    /// too: a gap that comes and goes is not worth a move. Returns whether it tried.
    pub(super) fn close_gap(&mut self, batch: &Batch) -> bool {
        let held = |stream| self.cells.len(self.streams.sequence_in(stream)).unwrap_or(0);
        let mut streams: Vec<u32> = batch.spans().map(|span| self.streams.stream_of(span.seq)).collect();
        streams.retain(|stream| held(*stream) > 0);
        streams.sort_unstable();
        let planned = plan_move(&streams, self.capabilities.sequences_max, |stream| held(stream) == 0);
        let had_gaps = std::mem::replace(&mut self.had_gaps, planned.is_some());
        let Some((from, to)) = planned.filter(|_| had_gaps && self.capabilities.save) else { return false };
        let worth = held(from) + held(to) <= self.move_tokens_max;
        if worth {
            self.swap_streams(from, to);
        }
        worth
    }

    /// Swaps the sequences of two streams through host memory. If llama.cpp refuses, the sequences stay where
    /// they were; a sequence that llama.cpp does not take back is then empty, and passes with it are refused.
    fn swap_streams(&mut self, from: u32, to: u32) {
        let sequences = [from, to].map(|stream| self.streams.sequence_in(stream));
        let mut states = Vec::new();
        for (stream, seq) in [from, to].into_iter().zip(sequences) {
            let held = self.cells.len(seq).unwrap_or(0);
            let Some(state) = (if held > 0 { self.context.state(stream) } else { Some(Vec::new()) }) else {
                return;
            };
            states.push(state);
        }
        let context = &mut self.context;
        if context.replace_state(to, &states[0]) && context.replace_state(from, &states[1]) {
            return self.streams.swap(from, to);
        }
        for ((stream, seq), state) in [from, to].into_iter().zip(sequences).zip(&states) {
            if !self.context.replace_state(stream, state) {
                self.context.truncate(stream, 0);
                self.cells.truncate(seq, 0);
            }
        }
    }

    /// Copies stream `from` to the empty stream `to`; `false` if llama.cpp refuses.
    pub(super) fn copy_stream(&mut self, from: u32, to: u32) -> bool {
        if self.capabilities.save {
            // At once, and only the cells that the sequence holds.
            return self.context.state(from).is_some_and(|state| self.context.set_state(to, &state));
        }
        // The whole stream, when the next pass begins. Only save and restore would notice the delay.
        self.context.copy_stream(from, to);
        true
    }
}
