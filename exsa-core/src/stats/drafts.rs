//! Counters of speculative decoding.

use crate::speculate::DraftSource;
use std::fmt;

/// Number of draft positions counted separately; the last also counts all later positions.
pub const DRAFT_POSITIONS: usize = 8;

/// Drafts that were verified and accepted, by source and by position after the last known token.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct DraftStats {
    /// Runs of drafts: steps of a stream in which at least one draft was verified.
    pub runs: u64,
    /// Drafts by [`DraftSource::index`].
    pub by_source: [DraftCounts; DraftSource::COUNT],
    /// Drafts by position in the run; index 0 is the first draft.
    pub by_position: [DraftCounts; DRAFT_POSITIONS],
}

/// Drafts verified, and how many of them became part of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct DraftCounts {
    /// Drafts verified.
    pub drafted: u64,
    /// Drafts accepted.
    pub accepted: u64,
}

/// Short if there were no drafts, since the value is part of every [`Usage`](crate::Usage).
impl fmt::Debug for DraftStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stats = f.debug_struct("DraftStats");
        stats.field("runs", &self.runs);
        if !self.is_empty() {
            stats.field("by_source", &self.by_source).field("by_position", &self.by_position);
        }
        stats.finish()
    }
}

impl DraftStats {
    /// Adds a run of `drafted` drafts, of which the first `accepted` were accepted.
    pub fn add_run(&mut self, source: DraftSource, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        self.runs += 1;
        let counts = &mut self.by_source[source.index()];
        counts.drafted += drafted as u64;
        counts.accepted += accepted as u64;
        for (position, counts) in self.by_position.iter_mut().enumerate() {
            let last = position + 1 == DRAFT_POSITIONS;
            let within = |n: usize| n.saturating_sub(position).min(if last { usize::MAX } else { 1 }) as u64;
            counts.drafted += within(drafted);
            counts.accepted += within(accepted);
        }
    }

    /// Adds the counters of another engine or request.
    pub fn merge(&mut self, other: &Self) {
        let Self { runs, by_source, by_position } = other;
        self.runs += runs;
        let counts = self.by_source.iter_mut().chain(&mut self.by_position);
        for (counts, more) in counts.zip(by_source.iter().chain(by_position)) {
            counts.drafted += more.drafted;
            counts.accepted += more.accepted;
        }
    }

    /// Drafts verified.
    pub fn drafted(&self) -> u64 {
        self.by_source.iter().map(|counts| counts.drafted).sum()
    }

    /// Drafts accepted.
    pub fn accepted(&self) -> u64 {
        self.by_source.iter().map(|counts| counts.accepted).sum()
    }

    /// Whether no draft was verified.
    pub fn is_empty(&self) -> bool {
        self.runs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_count_by_source_and_position() {
        let mut stats = DraftStats::default();
        stats.add_run(DraftSource::SuffixIndex, 10, 9);
        stats.add_run(DraftSource::PromptLookup, 2, 0);
        stats.add_run(DraftSource::Custom, 0, 0);
        assert_eq!((stats.runs, stats.drafted(), stats.accepted()), (2, 12, 9));
        assert_eq!(stats.by_source[0], DraftCounts { drafted: 2, accepted: 0 });
        assert_eq!(stats.by_source[1], DraftCounts { drafted: 10, accepted: 9 });
        let positions = stats.by_position.map(|counts| (counts.drafted, counts.accepted));
        assert_eq!(positions, [(2, 1), (2, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (3, 2)]);
        let mut twice = stats;
        twice.merge(&stats);
        assert_eq!((twice.runs, twice.drafted(), twice.accepted()), (4, 24, 18));
        assert_eq!(twice.by_position[7], DraftCounts { drafted: 6, accepted: 4 });
    }
}
