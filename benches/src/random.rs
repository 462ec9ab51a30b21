//! Pseudo-random numbers that are the same on every machine.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for each `index` of something that has the seed `seed`.
    pub fn nth(seed: u64, index: u64) -> Self {
        Self(Self(seed ^ Self(index).next()).next())
    }

    /// The next number, of 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0. Not exactly uniform, which nothing here needs.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.next()) * n as u128;
        (wide >> 64) as usize
    }

    /// A number from a bell curve of mean 0 and variance 1, between -6 and 6: twelve uniform ones less six.
    pub fn bell(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range_and_differ_by_seed() {
        let mut random = Random::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5)] = true;
            assert!(random.bell().abs() <= 6.0);
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        assert_ne!(Random::nth(1, 0).next(), Random::nth(1, 1).next());
        assert_ne!(Random::nth(1, 0).next(), Random::nth(2, 0).next());
        assert_eq!(Random::nth(1, 9).next(), Random::nth(1, 9).next());
    }
}
