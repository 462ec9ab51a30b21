//! Which stream of llama.cpp's each sequence has.
//!
//! llama.cpp computes sequences in one pass where their streams follow each other, and every gap costs one more pass over
//! the weights. So sequences begin in the first free stream, and those that leave a gap can be moved into it.

use exsa_core::SeqId;
use std::ops::Range;

/// A stream for each sequence, and a sequence for each stream.
#[derive(Debug)]
pub(crate) struct Places {
    of: Vec<u32>,
    at: Vec<u32>,
}

impl Places {
    /// Sequence `n` in stream `n`.
    pub fn new(sequences: usize) -> Self {
        let same: Vec<u32> = (0..sequences as u32).collect();
        Self { of: same.clone(), at: same }
    }

    /// The stream of a sequence that exists; of others any number.
    pub fn of(&self, seq: SeqId) -> u32 {
        self.of.get(seq.index()).copied().unwrap_or(seq.0)
    }

    /// The sequence in a stream that exists.
    pub fn at(&self, stream: u32) -> SeqId {
        SeqId(self.at[stream as usize])
    }

    /// Lets the sequences of two streams change places.
    pub fn swap(&mut self, a: u32, b: u32) {
        self.at.swap(a as usize, b as usize);
        for stream in [a, b] {
            self.of[self.at[stream as usize] as usize] = stream;
        }
    }

    /// Gives the empty `seq` the first stream whose sequence is empty.
    pub fn settle(&mut self, seq: SeqId, is_empty: impl Fn(SeqId) -> bool) {
        let own = self.of(seq);
        if let Some(first) = (0..own).find(|stream| is_empty(self.at(*stream))) {
            self.swap(first, own);
        }
    }
}

/// What to move so that the ascending `streams` of a batch have fewer gaps: from which of them to which other stream below `total`,
/// one for which `is_empty` if there is a choice. `None` if they have no gap.
pub(crate) fn plan_move(streams: &[u32], total: usize, is_empty: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for &stream in streams {
        match runs.last_mut() {
            Some(run) if run.end == stream => run.end += 1,
            _ => runs.push(stream..stream + 1),
        }
    }
    let longest = runs.iter().max_by_key(|run| run.len())?.clone();
    // The run at an end that has the fewest goes first: with its last one a gap goes too.
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
    fn sequences_begin_in_the_first_free_stream() {
        let mut places = Places::new(4);
        let empty = |held: &'static [u32]| move |seq: SeqId| !held.contains(&seq.0);
        places.settle(SeqId(2), empty(&[]));
        assert_eq!((places.of(SeqId(2)), places.of(SeqId(0))), (0, 2));
        places.settle(SeqId(3), empty(&[2]));
        assert_eq!((places.of(SeqId(3)), places.of(SeqId(1))), (1, 3));
        places.settle(SeqId(0), empty(&[2, 3]));
        assert_eq!(places.of(SeqId(0)), 2);
        assert_eq!((0..4).map(|stream| places.at(stream).0).collect::<Vec<_>>(), [2, 3, 0, 1]);
    }

    proptest! {
        /// Moving what is told ends, without gaps, after fewer moves than there are streams.
        #[test]
        fn gaps_go(streams in prop::collection::btree_set(0u32..24, 1..24)) {
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
