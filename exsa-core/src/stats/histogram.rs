//! Histogram of durations.

use std::time::Duration;

/// Number of buckets of a [`Histogram`]; the last has no upper bound.
const BUCKETS: usize = 41;
/// Upper bound of the first bucket in seconds; each further bound is larger by the square root of two.
const FIRST: f64 = 1e-4;

/// Counts of durations in buckets from 0.1 ms to 74 s. Each bound is 1.41 times the previous bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Buckets", into = "Buckets")
)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: Duration,
}

/// Serialized form of a [`Histogram`].
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Buckets {
    counts: Vec<u64>,
    sum: Duration,
}

#[cfg(feature = "serde")]
impl From<Histogram> for Buckets {
    fn from(histogram: Histogram) -> Self {
        Self { counts: histogram.counts.into(), sum: histogram.sum }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Buckets> for Histogram {
    type Error = String;

    fn try_from(Buckets { counts, sum }: Buckets) -> Result<Self, String> {
        let found = counts.len();
        let counts =
            counts.try_into().map_err(|_| format!("{found} buckets, but a histogram must have {BUCKETS}"))?;
        Ok(Self { counts, sum })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: Duration::ZERO }
    }
}

impl Histogram {
    /// Adds a duration.
    pub fn record(&mut self, time: Duration) {
        let half_octaves = 2.0 * (time.as_secs_f64() / FIRST).max(1.0).log2();
        self.counts[(half_octaves.ceil() as usize).min(BUCKETS - 1)] += 1;
        self.sum += time;
    }

    /// Adds all durations of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }

    /// Number of durations added.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Mean of the durations; `None` if none was added.
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| self.sum.div_f64(count as f64))
    }

    /// The `q`-quantile, 0 to 1, as the upper bound of its bucket. `None` if no duration was added.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets().find_map(|(bound, count)| {
            seen += count;
            (seen >= wanted).then_some(bound)
        })
    }

    /// Upper bound and count of each bucket; the last bound is [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(i, count)| {
            let bound = Duration::from_secs_f64(FIRST * 2f64.powf(i as f64 / 2.0));
            (if i == BUCKETS - 1 { Duration::MAX } else { bound }, *count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_within_its_bucket() {
        for micros in (1..200).chain((1..2000).map(|n| n * 50_003)) {
            let (mut histogram, time) = (Histogram::default(), Duration::from_micros(micros));
            histogram.record(time);
            let bound = histogram.quantile(0.5).unwrap();
            // A hundredth of a percent for rounding at a bound.
            assert!(time.as_secs_f64() <= bound.as_secs_f64() * 1.0001, "{time:?} is over {bound:?}");
            let tight =
                bound == Duration::MAX || micros <= 100 || bound.as_secs_f64() < time.as_secs_f64() * 1.4143;
            assert!(tight, "{time:?} is far below {bound:?}");
        }
    }

    #[test]
    fn quantiles_and_means() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean()), (None, None));
        (1..=100).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        assert_eq!(histogram.mean(), Some(Duration::from_micros(50_500)));
        let [p50, p95] = [0.5, 0.95].map(|q| histogram.quantile(q).unwrap().as_secs_f64());
        assert!((0.05..0.071).contains(&p50) && (0.095..0.135).contains(&p95), "{p50} {p95}");
    }
}
