//! The nucleus: the smallest set of best candidates with a given probability mass.

use super::{CHUNK, Candidate, Candidates, Key, exp};

impl Candidates<'_> {
    /// Keeps the smallest set of best candidates whose probability at the current
    /// temperature sums to at least `share`; at least the best candidate.
    pub fn keep_mass(&mut self, share: f64) {
        if !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let enough = share * self.mass(best);
        // Usually a few tokens have nearly all of the mass, and sorting these is fast.
        let few = if self.listed { f32::NEG_INFINITY } else { self.floor_of_best(256) };
        self.sort(few, |_| true);
        let mut last = self.reach(0.0, enough, best);
        if last.is_none() && few > f32::NEG_INFINITY {
            // A flat distribution: only the bucket that reaches the mass needs sorting.
            let (bucket, before) = self.bucket_that_reaches(enough, best);
            let scale = self.scale;
            self.sort(f32::NEG_INFINITY, |c| bucket_of(c.logit, best, scale) == bucket);
            last = self.reach(before, enough, best);
        }
        // If rounding kept the sum below, all candidates are kept.
        if let Some(last) = last {
            self.list(Candidate::of_key(last).logit);
            self.buffers.list.retain(|c| c.key() <= last);
        }
    }

    /// The key at which the cumulative mass, starting at `before`, reaches `enough`.
    fn reach(&self, before: f64, enough: f64, best: f32) -> Option<Key> {
        let mut sum = before;
        self.buffers.keys.iter().copied().find(|&key| {
            sum += f64::from(exp((Candidate::of_key(key).logit - best) * self.scale));
            sum >= enough
        })
    }

    /// The bucket in which the cumulative mass, from the best
    /// logit down, reaches `enough`, and the mass before it.
    fn bucket_that_reaches(&mut self, enough: f64, best: f32) -> (usize, f64) {
        let mut masses = std::mem::take(&mut self.buffers.masses);
        masses.clear();
        masses.resize(BUCKETS, 0.0);
        for chunk in self.row().chunks(CHUNK) {
            // Separate from the scattered sums, so that the exponentials are vectorized.
            let mut weights = [0.0; CHUNK];
            for (weight, &logit) in weights.iter_mut().zip(chunk) {
                *weight = exp((logit - best) * self.scale);
            }
            for (&weight, &logit) in weights.iter().zip(chunk) {
                masses[bucket_of(logit, best, self.scale)] += f64::from(weight);
            }
        }
        let mut sum = 0.0;
        let bucket = masses.iter().position(|mass| {
            sum += mass;
            sum >= enough
        });
        let bucket = bucket.unwrap_or(BUCKETS - 1);
        let before = masses[..bucket].iter().sum();
        self.buffers.masses = masses;
        (bucket, before)
    }
}

/// Number of logit buckets, by distance from the best logit.
const BUCKETS: usize = 1024;

/// The bucket of a logit: 11 per factor of e in probability,
/// so that the last begins beyond the range of `exp`.
#[inline]
fn bucket_of(logit: f32, best: f32, scale: f32) -> usize {
    const PER_NAT: f32 = 11.0;
    (((best - logit) * (scale * PER_NAT)) as usize).min(BUCKETS - 1)
}
