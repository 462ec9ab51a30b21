//! Cost of a row of drafts, fitted to measured steps.

use super::costs::StepCost;

/// Assumed cost of an additional row before it is measured, relative to a step of one row. It is high, so
/// that there are few drafts at first: the measured value is 0.08 on a CPU with Exsa's kernels.
const ROW_ASSUMED: f64 = 0.25;
/// Minimum expected tokens of a draft that is verified in a step for measuring the cost.
const TRIED_MIN: f64 = 0.3;
/// Bounds of the relative cost of a row. No row is free, since its logits are computed and read.
const ROW_SHARE: std::ops::RangeInclusive<f64> = 0.001..=1.5;
/// Interval of steps for measuring the cost, and the maximum rows of drafts in these steps.
const TRY_EVERY: u64 = 8;
const TRIED_MAX: usize = 4;
/// Sum of squared deviations from the mean number of rows at which the cost of a row is considered measured.
const SPREAD_MIN: f64 = 4.0;
/// Share of its weight that a step loses with each later step.
const FORGET: f64 = 0.02;
/// Distance from the line, in mean distances, beyond which a step is an outlier and is moved to that
/// distance.
const OUTLIER: f64 = 3.0;
/// Number of steps before outliers are detected.
const STEPS_MIN: f64 = 8.0;
/// Factors by number of rows, from 0; weight of the newest step in a factor, and its bounds.
const FACTORS: usize = 129;
const FACTOR_NEWEST: f32 = 0.2;
const FACTOR: std::ops::RangeInclusive<f32> = 0.5..=2.0;

/// Linear model of the seconds of a step without prefill over its rows: least squares with exponential
/// forgetting, outliers moved towards the line, and the last known cost of a row as an additional
/// observation.
///
/// The slope is fitted to recent numbers of rows, so a convex cost is approximated around the operating
/// point. With kernels that compute rows in panels, the cost jumps at the first row of a panel: for each
/// number of rows, a factor describes how its steps deviate from the line. Measuring the slope requires steps
/// with different numbers of rows. As long as these are missing, a few promising drafts are verified every
/// eighth step, whatever they cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowCosts {
    steps: u64,
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_variance: f64,
    covariance: f64,
    /// Mean distance of steps to the line.
    distance: f64,
    /// The last known cost of a row, relative to a step of one row.
    share: f64,
    /// Seconds of steps relative to the line, by number of rows.
    factors: [f32; FACTORS],
}

impl Default for RowCosts {
    fn default() -> Self {
        Self {
            steps: 0,
            weight: 0.0,
            rows: 0.0,
            seconds: 0.0,
            rows_variance: 0.0,
            covariance: 0.0,
            distance: 0.0,
            share: ROW_ASSUMED,
            factors: [1.0; FACTORS],
        }
    }
}

/// Seconds of a step, and of each additional row in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowCost {
    /// The step without drafts.
    pub(crate) step: f64,
    /// An additional row.
    pub(crate) row: f64,
}

impl RowCosts {
    /// Records a measured step. Steps with prefill are ignored, since prefill tokens cost less than rows with
    /// logits.
    pub(super) fn observe(&mut self, step: &StepCost) {
        if step.decodes == 0 || step.prefill() > 0 || step.elapsed.is_zero() {
            return;
        }
        self.steps += 1;
        let step_rows = step.tokens;
        let (rows, mut seconds) = (step_rows as f64, step.elapsed.as_secs_f64());
        if self.weight > 0.0 {
            let RowCost { step, .. } = self.of(rows);
            let limit = OUTLIER * self.distance;
            let mut distance = (seconds - step).abs();
            if self.weight >= STEPS_MIN && distance > limit {
                seconds = seconds.clamp(step - limit, step + limit);
                distance = limit;
            }
            // A lasting change widens the limit by a fifth per step, and so is soon accepted.
            let newest = if self.weight < STEPS_MIN { 0.5 } else { 0.1 };
            self.distance += (distance.max(seconds * 1e-3) - self.distance) * newest;
            if let Some(factor) = self.factors.get_mut(step_rows).filter(|_| self.weight >= STEPS_MIN) {
                *factor += ((seconds / step) as f32 - *factor) * FACTOR_NEWEST;
                *factor = factor.clamp(*FACTOR.start(), *FACTOR.end());
            }
        }
        self.weight = self.weight.mul_add(1.0 - FORGET, 1.0);
        let newest = 1.0 / self.weight;
        let (d_rows, d_seconds) = (rows - self.rows, seconds - self.seconds);
        self.rows += d_rows * newest;
        self.seconds += d_seconds * newest;
        self.rows_variance = (1.0 - newest) * (self.rows_variance + newest * d_rows * d_rows);
        self.covariance = (1.0 - newest) * (self.covariance + newest * d_rows * d_seconds);
        if self.is_measured() {
            let RowCost { step, row } = self.of(1.0);
            self.share = (row / step).clamp(*ROW_SHARE.start(), *ROW_SHARE.end());
        }
    }

    /// Whether steps with different numbers of rows were measured recently.
    fn is_measured(&self) -> bool {
        self.rows_variance * self.weight >= SPREAD_MIN
    }

    /// The estimated cost of a step of `rows` rows, and of an additional row.
    pub(super) fn of(&self, rows: f64) -> RowCost {
        if self.weight == 0.0 {
            return RowCost { step: 1.0 + self.share * (rows - 1.0), row: self.share };
        }
        // Cost of a row that takes this share of a step of one row, on the line through the mean.
        let of_share = |share: f64| share * self.seconds / (1.0 + share * (self.rows - 1.0).max(0.0));
        let known = 1.0 / self.weight;
        let row = (self.covariance + known * of_share(self.share)) / (self.rows_variance + known);
        let row = row.clamp(of_share(*ROW_SHARE.start()), of_share(*ROW_SHARE.end()));
        RowCost { step: (self.seconds + row * (rows - self.rows)).max(row), row }
    }

    /// Seconds of steps of `rows` rows, relative to the line.
    pub(super) fn factor(&self, rows: usize) -> f64 {
        self.factors.get(rows).map_or(1.0, |factor| f64::from(*factor))
    }

    /// The cost of a step of `decodes` decodes, for choosing drafts, and the maximum drafts in it.
    pub(super) fn of_next(&self, decodes: usize) -> (RowCost, usize) {
        let cost = self.of(decodes as f64);
        if self.steps % TRY_EVERY == TRY_EVERY - 1 && !self.is_measured() {
            let row = TRIED_MIN * cost.step / decodes.max(1) as f64;
            return (RowCost { row: cost.row.min(row), ..cost }, TRIED_MAX);
        }
        (cost, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn step(decodes: usize, drafts: usize, seconds: f64) -> StepCost {
        let elapsed = Duration::from_secs_f64(seconds);
        StepCost { tokens: decodes + drafts, decodes, drafts, elapsed }
    }

    /// The step time of a 1B model by rows, in seconds.
    fn seconds(rows: usize) -> f64 {
        0.028 + 0.0023 * rows as f64
    }

    #[test]
    fn the_first_rows_are_assumed_to_be_dear() {
        let mut costs = RowCosts::default();
        assert_eq!(costs.of(1.0), RowCost { step: 1.0, row: 0.25 });
        for _ in 0..100 {
            costs.observe(&step(1, 0, 0.030));
        }
        let RowCost { step, row } = costs.of(1.0);
        assert!((step - 0.030).abs() < 1e-6 && (row / step - 0.25).abs() < 1e-6, "{step} {row}");
    }

    #[test]
    fn the_line_is_that_of_the_steps() {
        let mut costs = RowCosts::default();
        for i in 0..200 {
            let drafts = i % 5;
            costs.observe(&step(1, drafts, seconds(1 + drafts)));
        }
        let RowCost { step, row } = costs.of(1.0);
        assert!((row - 0.0023).abs() < 0.0002 && (step - seconds(1)).abs() < 0.001, "{step} {row}");
    }

    #[test]
    fn the_cost_of_a_row_is_tried_until_it_is_measured_and_then_remembered() {
        let mut costs = RowCosts::default();
        let mut tries = 0;
        for _ in 0..400 {
            let (cost, most) = costs.of_next(8);
            let tried = most == TRIED_MAX;
            assert!(!tried || cost.row < 0.04 * cost.step);
            tries += u64::from(tried);
            let drafts = if tried { 3 } else { 0 };
            costs.observe(&step(8, drafts, seconds(8 + drafts)));
        }
        let RowCost { step: one, row } = costs.of(1.0);
        assert!((row - 0.0023).abs() < 0.0004 && (one - seconds(1)).abs() < 0.003, "{one} {row}");
        assert!((2..10).contains(&tries), "{tries} steps of 400");
    }

    #[test]
    fn panels_show_in_the_factors() {
        let mut costs = RowCosts::default();
        for i in 0..400 {
            let drafts = [0, 1, 0, 2, 0, 3, 0, 4][i % 8];
            let panel = if drafts > 2 { 1.3 } else { 1.0 };
            costs.observe(&step(14, drafts, panel * seconds(14 + drafts)));
        }
        let estimate = |rows: usize| costs.of(rows as f64).step * costs.factor(rows);
        for rows in 14..=18 {
            let panel = if rows > 16 { 1.3 } else { 1.0 };
            let off = estimate(rows) / (panel * seconds(rows));
            assert!((0.95..1.05).contains(&off), "{rows}: {off}");
        }
        assert_eq!(costs.factor(1000), 1.0);
    }

    #[test]
    fn outliers_prefill_and_pauses_change_little() {
        let mut costs = RowCosts::default();
        let mut random = 1_u64;
        for i in 0..400 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = 1.0 + ((random >> 40) as f64 / f64::from(1 << 24) - 0.5) * 0.04;
            let drafts = i % 5;
            let pause = if i % 20 == 7 { 10.0 } else { 1.0 };
            costs.observe(&step(1, drafts, seconds(1 + drafts) * noise * pause));
            let prefill = StepCost { tokens: 300, ..step(1, 0, 0.5) };
            costs.observe(&prefill);
        }
        let RowCost { step, row } = costs.of(1.0);
        assert!((0.0015..0.0033).contains(&row) && (0.028..0.036).contains(&step), "{step} {row}");
    }

    #[test]
    fn a_lasting_change_is_believed() {
        let mut costs = RowCosts::default();
        for i in 0..600 {
            let drafts = i % 5;
            let factor = if i < 200 { 1.0 } else { 4.0 };
            costs.observe(&step(1, drafts, factor * seconds(1 + drafts)));
        }
        let RowCost { step, row } = costs.of(1.0);
        assert!((step - 4.0 * seconds(1)).abs() < 0.01, "{step}");
        assert!((row - 0.0092).abs() < 0.002, "{row}");
    }
}
