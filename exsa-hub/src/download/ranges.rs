//! Sets of byte ranges.

/// Byte ranges, sorted, disjoint and not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Creates ranges from untrusted pairs of begin and end; `None` if one is invalid.
    pub(super) fn checked(pairs: &[(u64, u64)], total: u64) -> Option<Self> {
        let mut ranges = Self::default();
        for &(begin, end) in pairs {
            if begin >= end || end > total {
                return None;
            }
            ranges.insert(begin, end);
        }
        Some(ranges)
    }

    /// Adds the bytes from `begin` to before `end`.
    pub(super) fn insert(&mut self, begin: u64, end: u64) {
        if begin >= end {
            return;
        }
        let (mut begin, mut end) = (begin, end);
        self.0.retain(|&(from, to)| {
            let apart = to < begin || from > end;
            if !apart {
                begin = begin.min(from);
                end = end.max(to);
            }
            apart
        });
        let at = self.0.partition_point(|&(from, _)| from < begin);
        self.0.insert(at, (begin, end));
    }

    /// Number of bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Returns the missing ranges up to `total`, split to at most `segment` bytes each.
    pub(super) fn missing(&self, total: u64, segment: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut cut = |mut begin: u64, end: u64| {
            while begin < end {
                let next = begin.saturating_add(segment.max(1)).min(end);
                missing.push((begin, next));
                begin = next;
            }
        };
        let mut at = 0;
        for &(begin, end) in &self.0 {
            cut(at, begin.min(total));
            at = end;
        }
        cut(at, total);
        missing
    }

    pub(super) fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_the_sets_of_their_bytes(
            pairs in prop::collection::vec((0u64..64, 0u64..64), 0..12),
            segment in 1u64..20,
        ) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 64]);
            for (begin, end) in pairs {
                ranges.insert(begin, end);
                for byte in begin..end.max(begin) {
                    bytes[byte as usize] = true;
                }
            }
            prop_assert_eq!(ranges.bytes(), bytes.iter().filter(|byte| **byte).count() as u64);
            prop_assert!(ranges.pairs().windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", ranges);
            prop_assert_eq!(Ranges::checked(ranges.pairs(), 64), Some(ranges.clone()));
            for (begin, end) in ranges.missing(64, segment) {
                prop_assert!(begin < end && end - begin <= segment);
                for byte in begin..end {
                    prop_assert!(!std::mem::replace(&mut bytes[byte as usize], true));
                }
            }
            prop_assert!(bytes.iter().all(|byte| *byte), "no byte is left out");
        }
    }

    #[test]
    fn wrong_pairs_are_refused() {
        for pairs in [[(5, 5)], [(6, 5)], [(0, 101)], [(u64::MAX, 0)]] {
            assert_eq!(Ranges::checked(&pairs, 100), None, "{pairs:?}");
        }
    }
}
