//! The smallest set of best candidates with a given share of the probability.

use super::{CHUNK, Candidate, Candidates, Key, exp};

impl Candidates<'_> {
    /// Keeps the fewest best candidates whose share of the probability at the present temperature is at least
    /// `share`; at least the best one.
    pub fn keep_mass(&mut self, share: f64) {
        if !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let enough = share * self.mass(best);
        // Mostly a few tokens have nearly all of the mass, and those are quickly sorted.
        let few = if self.listed { f32::NEG_INFINITY } else { self.floor_of_best(256) };
        self.sort(few, |_| true);
        let mut last = self.reach(0.0, enough, best);
        if last.is_none() && few > f32::NEG_INFINITY {
            // A flat distribution: only the bucket in which enough is reached has to be put in order.
            let (bucket, before) = self.bucket_that_reaches(enough, best);
            let scale = self.scale;
            self.sort(f32::NEG_INFINITY, |c| bucket_of(c.logit, best, scale) == bucket);
            last = self.reach(before, enough, best);
        }
        // Where rounding kept the sum below, all are kept.
        if let Some(last) = last {
            self.list(Candidate::of_key(last).logit);
            self.buffers.list.retain(|c| c.key() <= last);
        }
    }

    /// The key at which the mass of the keys, added up from `before`, is `enough`.
    fn reach(&self, before: f64, enough: f64, best: f32) -> Option<Key> {
        let mut sum = before;
        self.buffers.keys.iter().copied().find(|&key| {
            sum += f64::from(exp((Candidate::of_key(key).logit - best) * self.scale));
            sum >= enough
        })
    }

    /// The bucket of logits in which the mass, added up from the best, reaches `enough`, and the mass before it.
    fn bucket_that_reaches(&mut self, enough: f64, best: f32) -> (usize, f64) {
        let mut masses = std::mem::take(&mut self.buffers.masses);
        masses.clear();
        masses.resize(BUCKETS, 0.0);
        for chunk in self.row().chunks(CHUNK) {
            // Apart from the scattered sums, so that the exponentials become vector code.
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

/// Number of buckets that logits are sorted into, by their distance from the best.
const BUCKETS: usize = 1024;

/// The bucket of a logit: 11 to each factor of e in probability, so that the last begins beyond the reach of `exp`.
#[inline]
fn bucket_of(logit: f32, best: f32, scale: f32) -> usize {
    const PER_NAT: f32 = 11.0;
    (((best - logit) * (scale * PER_NAT)) as usize).min(BUCKETS - 1)
}
