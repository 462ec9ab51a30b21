//! Estimated acceptance of drafts.
//!
//! The probability that a draft is accepted, given that the drafts before it are accepted, is an
//! exponentially weighted moving average (EWMA) per request, source, class of evidence and position. A new
//! request starts with the averages over all requests, and drafts once to test them.

use super::DraftSource;

/// Number of positions estimated separately; later positions share the last estimate.
const POSITIONS: usize = 8;
/// Number of classes of evidence, by the number of matching context tokens.
const CLASSES: usize = 3;
/// Acceptance assumed before the first verification, by class of evidence.
const ASSUMED: [f32; CLASSES] = [0.4, 0.6, 0.8];
/// Weight of the newest verification in the estimate of a request, and of all requests.
const NEWEST: f32 = 0.2;
const NEWEST_SHARED: f32 = 0.05;
/// Consecutive runs without an accepted draft after which a source is stopped.
const FAILED_MAX: u8 = 4;
/// Tokens since the last verification after which a source that was stopped, or does not pay off, drafts one
/// token as a probe.
const PROBE_AFTER: usize = 64;
/// Bounds of estimates. No draft is certain, so that the product over the positions of a run decreases.
const ESTIMATES: std::ops::RangeInclusive<f32> = 0.01..=0.995;

/// Index of the estimates for drafts of one source with the same evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) source: DraftSource,
    class: usize,
}

impl Kind {
    /// The kind of drafts of `source` that are supported by `matched` tokens of context.
    pub(crate) fn new(source: DraftSource, matched: usize) -> Self {
        let class = match matched {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        Self { source, class }
    }

    fn index(self) -> usize {
        self.source.index() * CLASSES + self.class
    }
}

/// Estimates for drafts of one kind.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    accepted: [f32; POSITIONS],
    /// Number of positions with outcomes. Later positions use the estimate of the last of these.
    observed: usize,
    /// Consecutive runs without an accepted draft.
    failed: u8,
    /// Length of the request at the last verification.
    verified_at: usize,
}

impl Estimate {
    fn new(class: usize) -> Self {
        Self { accepted: [ASSUMED[class]; POSITIONS], observed: 0, failed: 0, verified_at: 0 }
    }

    fn at(&self, position: usize) -> f32 {
        self.accepted[position.min(self.observed.saturating_sub(1))]
    }

    fn learn(&mut self, accepted: usize, rejected: bool, newest: f32) {
        let outcomes = std::iter::repeat_n(1.0, accepted).chain(rejected.then_some(0.0));
        for (position, outcome) in outcomes.enumerate() {
            let position = position.min(POSITIONS - 1);
            if position >= self.observed {
                self.accepted[position] = self.at(position);
                self.observed = position + 1;
            }
            let estimate = &mut self.accepted[position];
            *estimate += (outcome - *estimate) * newest;
        }
    }
}

/// Estimates of one request, or the averages over all requests.
#[derive(Clone, Debug)]
pub(crate) struct Estimates([Estimate; DraftSource::COUNT * CLASSES]);

impl Default for Estimates {
    fn default() -> Self {
        Self(std::array::from_fn(|i| Estimate::new(i % CLASSES)))
    }
}

/// The outcome of a run of drafts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Drafts accepted.
    pub(crate) accepted: usize,
    /// Whether the draft after them was rejected; it may not have been verified.
    pub(crate) rejected: bool,
    /// Tokens of the request when the run was drafted.
    pub(crate) len: usize,
}

impl Estimates {
    /// Number of drafts to consider, out of `drafts`, in a request of `len` tokens: all, one as a probe, or
    /// none of a source that was stopped.
    pub(crate) fn usable(&self, kind: Kind, len: usize, drafts: usize) -> usize {
        let stopped = self.0[kind.index()].failed >= FAILED_MAX;
        match (stopped, self.probes(kind, len)) {
            (false, _) => drafts,
            (true, true) => drafts.min(1),
            (true, false) => 0,
        }
    }

    /// Whether a verification is due in a request of `len` tokens. There may have been none yet.
    fn probes(&self, kind: Kind, len: usize) -> bool {
        let last = self.0[kind.index()].verified_at;
        // A request that became shorter has shifted its context.
        len < last || len - last >= PROBE_AFTER
    }

    /// Probabilities that the drafts at positions 0, 1 and so on of a run become part of the answer. For a
    /// probe, the first estimate is the initial assumption.
    pub(crate) fn expected(&self, kind: Kind, len: usize) -> impl Iterator<Item = f32> {
        let estimate = self.0[kind.index()];
        let probe = self.probes(kind, len).then_some(ASSUMED[kind.class]);
        let mut product = 1.0;
        (0_usize..).map(move |position| {
            let own = estimate.at(position);
            let accepted = if position == 0 { own.max(probe.unwrap_or(own)) } else { own };
            product *= accepted.clamp(*ESTIMATES.start(), *ESTIMATES.end());
            product
        })
    }

    /// Updates the estimates of a request with the outcome of a run.
    pub(crate) fn verified(&mut self, kind: Kind, outcome: Outcome) {
        let estimate = &mut self.0[kind.index()];
        estimate.verified_at = outcome.len;
        estimate.learn(outcome.accepted, outcome.rejected, NEWEST);
        if outcome.accepted > 0 {
            estimate.failed = 0;
        } else if outcome.rejected {
            estimate.failed = estimate.failed.saturating_add(1);
        }
    }

    /// Updates the averages with the outcome of a run of any request.
    pub(crate) fn average(&mut self, kind: Kind, outcome: Outcome) {
        self.0[kind.index()].learn(outcome.accepted, outcome.rejected, NEWEST_SHARED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { source: DraftSource::SuffixIndex, class: 0 };

    fn outcome(accepted: usize, rejected: bool, len: usize) -> Outcome {
        Outcome { accepted, rejected, len }
    }

    fn expected(estimates: &Estimates, len: usize) -> Vec<f32> {
        estimates.expected(KIND, len).take(3).collect()
    }

    #[test]
    fn estimates_follow_the_outcomes_of_each_position() {
        let mut estimates = Estimates::default();
        for _ in 0..60 {
            estimates.verified(KIND, outcome(1, true, 10));
        }
        let expected = expected(&estimates, 20);
        assert!(expected[0] > 0.95 && expected[1] < 0.02, "{expected:?}");
        assert_eq!(estimates.usable(KIND, 20, 4), 4);
        let other = Kind::new(DraftSource::SuffixIndex, 8);
        assert_eq!(estimates.expected(other, 20).next(), Some(0.8), "other evidence");
    }

    #[test]
    fn positions_of_which_nothing_is_known_count_as_the_one_before() {
        let mut estimates = Estimates::default();
        for _ in 0..60 {
            estimates.verified(KIND, outcome(2, false, 10));
        }
        let expected: Vec<f32> = estimates.expected(KIND, 20).take(9).collect();
        assert!(expected[1] > 0.98 && expected[8] > 0.95, "{expected:?}");
        estimates.verified(KIND, outcome(2, true, 10));
        let rejected: Vec<f32> = estimates.expected(KIND, 20).take(9).collect();
        assert!(rejected[1] > 0.98 && rejected[2] < 0.85, "{rejected:?}");
    }

    #[test]
    fn drafts_that_were_not_verified_teach_nothing() {
        let mut estimates = Estimates::default();
        estimates.verified(KIND, outcome(0, false, 10));
        assert_eq!(expected(&estimates, 20)[0], 0.4);
        for _ in 0..10 {
            estimates.verified(KIND, outcome(0, false, 10));
        }
        assert_eq!(estimates.usable(KIND, 20, 4), 4);
    }

    #[test]
    fn a_source_that_fails_stops_and_probes_every_64_tokens() {
        let mut estimates = Estimates::default();
        for _ in 0..4 {
            assert_eq!(estimates.usable(KIND, 100, 5), 5);
            estimates.verified(KIND, outcome(0, true, 100));
        }
        assert_eq!([101, 163, 164].map(|len| estimates.usable(KIND, len, 5)), [0, 0, 1]);
        assert!(expected(&estimates, 101)[0] < 0.2);
        assert_eq!(expected(&estimates, 164)[0], 0.4, "a probe counts as if nothing were known");
        estimates.verified(KIND, outcome(0, true, 164));
        assert_eq!([165, 227, 228].map(|len| estimates.usable(KIND, len, 5)), [0, 0, 1]);
        estimates.verified(KIND, outcome(1, false, 228));
        assert_eq!(estimates.usable(KIND, 229, 5), 5, "one success and it drafts again");
        assert_eq!(estimates.usable(KIND, 100, 5), 5);
    }

    #[test]
    fn a_new_request_begins_with_the_averages() {
        let mut shared = Estimates::default();
        for _ in 0..200 {
            shared.average(KIND, outcome(0, true, 500));
        }
        let request = shared.clone();
        assert!(expected(&request, 20)[0] < 0.02);
        assert_eq!(request.usable(KIND, 20, 4), 4, "no source has stopped in it");
        assert_eq!(expected(&request, 70)[0], 0.4);
    }
}
