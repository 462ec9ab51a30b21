//! Map between sequences and llama.cpp's KV streams.
//!
//! llama.cpp computes sequences in one pass if their streams are adjacent; every gap costs another pass over
//! the weights. Sequences therefore start in the first free stream, and [`plan_move`] selects a sequence to
//! move in order to close a gap.

use exsa_core::SeqId;
use std::ops::Range;

/// One stream per sequence, and one sequence per stream.
#[derive(Debug)]
pub(crate) struct StreamMap {
    /// Stream of each sequence.
    streams: Vec<u32>,
    /// Sequence of each stream.
    sequences: Vec<u32>,
}

impl StreamMap {
    /// Sequence `n` in stream `n`.
    pub fn new(sequences: usize) -> Self {
        let identity: Vec<u32> = (0..sequences as u32).collect();
        Self { streams: identity.clone(), sequences: identity }
    }

    /// Stream of a sequence; for an id that does not exist, the id itself.
    pub fn stream_of(&self, seq: SeqId) -> u32 {
        self.streams.get(seq.index()).copied().unwrap_or(seq.0)
    }

    /// Sequence in a stream that exists.
    pub fn sequence_in(&self, stream: u32) -> SeqId {
        SeqId(self.sequences[stream as usize])
    }

    /// Exchanges the sequences of two streams.
    pub fn swap(&mut self, a: u32, b: u32) {
        self.sequences.swap(a as usize, b as usize);
        for stream in [a, b] {
            self.streams[self.sequences[stream as usize] as usize] = stream;
        }
    }

    /// Assigns the empty `seq` to the first stream whose sequence is empty.
    pub fn assign_first_free(&mut self, seq: SeqId, is_empty: impl Fn(SeqId) -> bool) {
        let own = self.stream_of(seq);
        if let Some(first) = (0..own).find(|stream| is_empty(self.sequence_in(*stream))) {
            self.swap(first, own);
        }
    }
}

/// Plans a move that leaves fewer gaps between the ascending `streams` of a batch: the stream to move, one of
/// `streams`, and its destination, another stream below `total`. A destination for which `is_empty` holds is
/// preferred. `None` if there is no gap.
pub(crate) fn plan_move(streams: &[u32], total: usize, is_empty: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for &stream in streams {
        match runs.last_mut() {
            Some(run) if run.end == stream => run.end += 1,
            _ => runs.push(stream..stream + 1),
        }
    }
    let longest = runs.iter().max_by_key(|run| run.len())?.clone();
    // Take from the shorter of the two outer runs: once it is empty, a gap is closed.
    let ends = [runs.first()?, runs.last()?];
    let shortest = ends.into_iter().filter(|run| **run != longest).min_by_key(|run| run.len())?;
    let from = if shortest.start < longest.start { shortest.start } else { shortest.end - 1 };
    let before = longest.start.checked_sub(1);
    let after = Some(longest.end).filter(|end| (*end as usize) < total);
    let mut to = [after, before].into_iter().flatten();
    let first = to.next()?;
    Some((from, if is_empty(first) { first } else { to.find(|to| is_empty(*to)).unwrap_or(first) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_start_in_the_first_free_stream() {
        let mut map = StreamMap::new(4);
        let empty = |held: &'static [u32]| move |seq: SeqId| !held.contains(&seq.0);
        map.assign_first_free(SeqId(2), empty(&[]));
        assert_eq!((map.stream_of(SeqId(2)), map.stream_of(SeqId(0))), (0, 2));
        map.assign_first_free(SeqId(3), empty(&[2]));
        assert_eq!((map.stream_of(SeqId(3)), map.stream_of(SeqId(1))), (1, 3));
        map.assign_first_free(SeqId(0), empty(&[2, 3]));
        assert_eq!(map.stream_of(SeqId(0)), 2);
        assert_eq!((0..4).map(|stream| map.sequence_in(stream).0).collect::<Vec<_>>(), [2, 3, 0, 1]);
    }

    proptest! {
        /// Repeated moves close all gaps, in fewer moves than there are streams.
        #[test]
        fn moves_close_all_gaps(streams in prop::collection::btree_set(0u32..24, 1..24)) {
            let mut streams: Vec<u32> = streams.into_iter().collect();
            let count = streams.len();
            let mut moves = 0;
            while let Some((from, to)) = plan_move(&streams, 24, |_| false) {
                prop_assert!(streams.contains(&from) && !streams.contains(&to) && to < 24);
                streams.retain(|stream| *stream != from);
                streams.push(to);
                streams.sort_unstable();
                moves += 1;
                prop_assert!(moves < 24);
            }
            prop_assert_eq!(streams.len(), count);
            prop_assert_eq!((streams[count - 1] - streams[0]) as usize, count - 1);
        }
    }
}
