//! The spread of logits: mean and standard deviation.

use super::Candidates;

/// Independent sums, so that the compiler can keep them in vector registers.
const LANES: usize = 8;

impl Candidates<'_> {
    /// Keeps candidates whose logit is at most `n` standard deviations below the best. The deviation is that
    /// of the candidates' logits. An `n` of 0 or less, or NaN, changes nothing.
    pub fn keep_sigma(&mut self, n: f32) {
        if n.is_nan() || n <= 0.0 || !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let mut sums = Sums::default();
        if self.listed {
            self.buffers.list.iter().enumerate().for_each(|(i, c)| sums.add(i % LANES, c.logit, best));
        } else {
            let parts = self.row().chunks_exact(LANES);
            let rest = parts.remainder();
            parts.chain([rest]).for_each(|part| {
                part.iter().enumerate().for_each(|(lane, &logit)| sums.add(lane, logit, best));
            });
        }
        let floor = f64::from(best) - f64::from(n) * sums.deviation();
        self.list(floor as f32);
    }
}

/// Number, sum and sum of squares of logits less the best one, in an order that does not depend on the
/// processor.
#[derive(Default)]
struct Sums {
    counts: [f64; LANES],
    sums: [f64; LANES],
    squares: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, lane: usize, logit: f32, best: f32) {
        let is = logit > f32::NEG_INFINITY;
        let distance = if is { f64::from(logit) - f64::from(best) } else { 0.0 };
        self.counts[lane] += if is { 1.0 } else { 0.0 };
        self.sums[lane] += distance;
        self.squares[lane] += distance * distance;
    }

    fn deviation(&self) -> f64 {
        let sum = |lanes: &[f64; LANES]| lanes.iter().sum::<f64>();
        let count = sum(&self.counts).max(1.0);
        let mean = sum(&self.sums) / count;
        (sum(&self.squares) / count - mean * mean).max(0.0).sqrt()
    }
}
