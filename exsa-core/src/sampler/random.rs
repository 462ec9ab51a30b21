//! Random numbers as a function of (seed, position), without state across positions.

/// Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror, Shaw: "Parallel random
/// numbers: as easy as 1, 2, 3", SC 2011): a keyed bijection of four counter words.
pub(super) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const ROUNDS: usize = 10;
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..ROUNDS {
        let [low0, high0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low1, high1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// The low and high 32-bit words.
pub(super) fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The random number stream of one position, independent of earlier
/// positions. The last counter word is 0; the noise of the draw uses 1.
#[derive(Clone, Debug)]
pub(super) struct Random {
    seed: u64,
    position: u64,
    drawn: u32,
}

impl Random {
    pub(super) fn new(seed: u64, position: u64) -> Self {
        Self { seed, position, drawn: 0 }
    }

    /// The next number, uniform over the multiples of 2^-53 in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        let [position_low, position_high] = halves(self.position);
        let words = philox([position_low, position_high, self.drawn, 0], halves(self.seed));
        self.drawn = self.drawn.wrapping_add(1);
        let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
        (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // From the authors' Random123 distribution.
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn numbers_depend_on_seed_position_and_draw_alone() {
        let draws = |seed, position| {
            let mut random = Random::new(seed, position);
            [random.unit(), random.unit()]
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        let mut seen: Vec<f64> = Vec::new();
        for seed in [0, 1, 1 << 32, u64::MAX] {
            for position in [0, 1, 1 << 32, u64::MAX] {
                seen.extend(draws(seed, position));
            }
        }
        assert!(seen.iter().all(|u| (0.0..1.0).contains(u)));
        seen.sort_by(f64::total_cmp);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "no two are equal");
    }

    #[test]
    fn numbers_are_uniform_over_positions() {
        let mut buckets = [0u32; 16];
        for position in 0..160_000 {
            buckets[(Random::new(7, position).unit() * 16.0) as usize] += 1;
        }
        // Chi-squared with 15 degrees of freedom: 37.7 is passed once in a thousand times.
        let chi: f64 = buckets.iter().map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 37.7, "chi squared is {chi}");
    }
}
