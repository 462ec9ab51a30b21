//! The part of the limits granted by one of several servers.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

/// Units of 1: shares are multiples of a billionth, so that products with limits are exact.
const UNITS: u64 = 1_000_000_000;

/// Part of every limit, above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Share(f64);

impl Share {
    /// Creates a share; `None` for a number that is not above 0 and at most 1.
    pub fn new(share: f64) -> Option<Self> {
        // Less than a unit would be nothing.
        (share * UNITS as f64 >= 1.0 && share <= 1.0).then_some(Self(share))
    }

    /// Returns the share of a limit: rounded down, but at least 1 if the limit is above 0.
    pub(super) fn of(self, limit: u64) -> u64 {
        // The nearest binary number may be below a decimal one, such as 0.29, but by far less than this.
        let units = (self.0 * UNITS as f64 + 0.001) as u64;
        let part = u128::from(limit) * u128::from(units.min(UNITS)) / u128::from(UNITS);
        u64::try_from(part).unwrap_or(limit).max(limit.min(1))
    }
}

impl Default for Share {
    /// The whole.
    fn default() -> Self {
        Self(1.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(value)?;
        let allowed = &"a number above 0 and at most 1";
        Self::new(share).ok_or_else(|| D::Error::invalid_value(Unexpected::Float(share), allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(share: f64, limit: u64) -> u64 {
        Share::new(share).unwrap().of(limit)
    }

    #[test]
    fn a_share_is_rounded_down_but_is_never_nothing() {
        assert_eq!((of(0.5, 60), of(0.5, 61), of(0.5, 1), of(0.5, 0)), (30, 30, 1, 0));
        assert_eq!((of(1.0, 7), of(0.29, 100), of(0.000001, 100)), (7, 29, 1));
        assert_eq!(of(1.0, 1_000_000_000_000), 1_000_000_000_000);
        for bad in [0.0, -0.5, 1.000001, 1e-10, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn shares_of_one_never_grant_more_than_the_limit(
            weights in proptest::collection::vec(1u32..1000, 1..12),
            limit in 0u64..1_000_000_000_000,
        ) {
            let sum: u32 = weights.iter().sum();
            // As people write them: with some digits, rounded down.
            let share = |weight: &u32| (f64::from(*weight) / f64::from(sum) * 1e4).floor() / 1e4;
            let shares = weights.iter().map(share);
            let parts: Vec<u64> = shares.filter_map(Share::new).map(|share| share.of(limit)).collect();
            // Parts below 1 are rounded up.
            let small = parts.iter().filter(|part| **part <= 1).count() as u64;
            prop_assert!(parts.iter().sum::<u64>() <= limit + small);
        }
    }
}
