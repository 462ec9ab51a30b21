//! Gumbel noise of the draw, a function of (seed, position, token) alone.
//!
//! # Specification
//!
//! A GPU kernel that follows this section draws the same tokens, bit for bit. All integers wrap; all
//! floating-point operations are f64, each rounded to nearest even by itself (no fused multiply-add).
//!
//! 1. *Keys* of (seed, position): `philox([position.low, position.high, n, 1], [seed.low, seed.high])` for n
//!    = 0 and n = 1, with Philox4x32-10 and the low and high 32-bit words of both numbers. Each call gives
//!    one key of four words, `k0` to `k3`.
//! 2. *Words* of a token, from 32-bit operations. `high` is the hash of the token under the first key, `low`
//!    that under the second:
//!
//!    ```text
//!    x = token ^ k0
//!    x = (x ^ (x >> 16)) * (k1 | 1)
//!    x = (x ^ (x >> 15)) * (k2 | 1)
//!    hash = x ^ (x >> 16) ^ k3
//!    ```
//! 3. *Exponential variate* E from `n = high * 2^32 + low`, a point `v = (n + 0.5) / 2^64` of the unit
//!    interval, as E = -ln(1 - v):
//!
//!    ```text
//!    high < 2^31:  v = (f64(n) + 0.5) * 2^-64;   E = atanh2(v / (2 - v))
//!    otherwise:    w = (f64(!n) + 0.5) * 2^-64;  E = -ln(w)
//!    ```
//!
//!    `f64` rounds a 64-bit integer to nearest even. `ln(x)` with x = m * 2^e and 1 <= m < 2 is
//!    `f64(e) * LN_2 + atanh2((m - 1) / (m + 1))`. `atanh2(s)` is 2 atanh(s) by its Taylor series up to s^33,
//!    by Horner's rule with the divisions 1/3 to 1/33 rounded beforehand:
//!    `sum = 1/33; for k in (31, 29, .., 3, 1): sum = sum * (s * s) + 1/k; result = (s + s) * sum`.
//!    For |s| <= 1/3 the remainder is below 1e-17.
//! 4. *Gumbel variate*: `g = -ln(E)`.
//! 5. *Score* of a candidate: `(f64(logit) - f64(max)) * f64(scale) + g`, where `max` is the largest logit of
//!    the candidates and `scale` is 1 / temperature in f32. The candidate with the largest score is drawn;
//!    among equals, the lowest id.
//!
//! Philox decorrelates positions and seeds, the hash decorrelates tokens. The multipliers of the hash are
//! part of the key: with constant multipliers, the words of two neighbouring tokens have nearly the same
//! difference at every position. With 64 bits the variates reach from -3.8 to 45.06: a token less than
//! e^-48.9 times as probable as the best is never drawn, and ties have no effect on the distribution.

use super::ln::{atanh2, ln};
use super::random::{halves, philox};
use super::scan::CHUNK;

/// The noise of one position of a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    high: Key,
    low: Key,
}

/// The key of one hash of token ids.
#[derive(Clone, Copy, Debug)]
struct Key([u32; 4]);

/// Bound of every Gumbel variate: `v` is at least 2^-65, E at least `v`, and -ln(2^-65) is 45.06.
const GUMBEL_MAX: f64 = 45.1;

impl Key {
    fn new(seed: u64, position: u64, n: u32) -> Self {
        let [low, high] = halves(position);
        let [k0, k1, k2, k3] = philox([low, high, n, 1], halves(seed));
        Self([k0, k1 | 1, k2 | 1, k3])
    }

    /// The first mixing step of the hash.
    #[inline(always)]
    fn mixed(self, token: u32) -> u32 {
        let x = token ^ self.0[0];
        x ^ (x >> 16)
    }

    #[inline(always)]
    fn hash(self, token: u32) -> u32 {
        let [_, k1, k2, k3] = self.0;
        let mut x = self.mixed(token).wrapping_mul(k1);
        x = (x ^ (x >> 15)).wrapping_mul(k2);
        x ^ (x >> 16) ^ k3
    }
}

/// Finds the chunks of tokens in which a high word is small.
///
/// Tokens of a chunk differ in their lowest bits alone, so the first product of the hash is a product of the
/// chunk plus one of the token's place in it. The latter are kept: one multiplication per token is left,
/// which matters on processors without a 32-bit vector multiplication (SSE2).
#[derive(Debug)]
pub(super) struct Screen {
    key: Key,
    /// First of the 65,536 tokens that have these products.
    block: u32,
    products: [u32; CHUNK],
}

impl Screen {
    pub(super) fn new(noise: &Noise) -> Self {
        let mut screen = Self { key: noise.high, block: 0, products: [0; CHUNK] };
        screen.set_block(0);
        screen
    }

    fn set_block(&mut self, start: u32) {
        let [_, k1, ..] = self.key.0;
        self.block = start >> 16;
        let place = self.key.mixed(start) % CHUNK as u32;
        for (product, i) in self.products.iter_mut().zip(0..) {
            *product = (place ^ i).wrapping_mul(k1);
        }
    }

    /// Whether a high word of the tokens `start..start + CHUNK` may be at most `bound`: no false negatives,
    /// few false positives. `start` is a multiple of the chunk.
    #[inline]
    pub(super) fn any(&mut self, start: u32, bound: u32) -> bool {
        if start >> 16 != self.block {
            self.set_block(start);
        }
        let [_, k1, k2, k3] = self.key.0;
        let chunk = self.key.mixed(start) & !(CHUNK as u32 - 1);
        let chunk = chunk.wrapping_mul(k1);
        // The last mixing step of the hash changes the lower half of the word alone.
        let bound = bound | 0xffff;
        let mut any = 0;
        for &product in &self.products {
            let x = chunk.wrapping_add(product);
            let x = (x ^ (x >> 15)).wrapping_mul(k2);
            any |= u32::from(x ^ k3 <= bound);
        }
        any != 0
    }
}

// The highest bits of a token, which the first mixing step moves, do not depend on its place in the chunk.
const _: () = assert!(CHUNK.is_power_of_two() && CHUNK <= 1 << 16);

impl Noise {
    pub(super) fn new(seed: u64, position: u64) -> Self {
        Self { high: Key::new(seed, position, 0), low: Key::new(seed, position, 1) }
    }

    /// The high word of a token's noise. Small words are large variates.
    #[inline(always)]
    pub(super) fn high(&self, token: u32) -> u32 {
        self.high.hash(token)
    }

    /// The Gumbel variate of a token.
    pub(super) fn gumbel(&self, token: u32) -> f64 {
        gumbel(u64::from(self.high.hash(token)) << 32 | u64::from(self.low.hash(token)))
    }
}

/// Upper bound on the high words of variates that reach `least`: every token with
/// a higher word has a smaller variate. `None` if no variate reaches `least`.
#[inline]
pub(super) fn highest_word(least: f64) -> Option<u32> {
    if least > GUMBEL_MAX {
        return None;
    }
    if least <= 0.0 {
        return Some(u32::MAX);
    }
    // g >= least means v <= E <= e^-least. The margin covers the errors of `exp` and of rounding to f32.
    const MARGIN: f32 = 1.0001;
    let e = super::exp::exp(-least as f32) * MARGIN;
    Some(((e * 4_294_967_296.0) as u32).saturating_add(1))
}

const UNIT: f64 = 1.0 / 18_446_744_073_709_551_616.0;

fn gumbel(n: u64) -> f64 {
    let exponential = if n >> 63 == 0 {
        let v = (n as f64 + 0.5) * UNIT;
        atanh2(v / (2.0 - v))
    } else {
        -ln((!n as f64 + 0.5) * UNIT)
    };
    -ln(exponential)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (seed, position, token, both words, bits of the Gumbel variate), computed from the specification by a
    /// program in another language.
    const VECTORS: [(u64, u64, u32, u64, u64); 8] = [
        (0x0, 0x0, 0, 0x2bc9_b582_c07b_be01, 0x3ffa_c69c_effc_3d74),
        (0x0, 0x0, 1, 0xc672_3654_b52c_f932, 0xbfd9_a088_e518_f7f2),
        (0x0, 0x1, 0, 0xacc8_7c2a_82c9_c2f9, 0xbfbd_dcdc_3853_74ca),
        (0x1, 0x0, 0, 0x14b1_4e4c_6134_a774, 0x4003_c9d7_2366_b09e),
        (0x2a, 0x7, 128_255, 0x45c4_10be_9cee_abda, 0x3ff2_5293_c9f8_44a6),
        (0x2a, 0x8, 128_255, 0x9393_e7e5_2215_200a, 0x3fc3_6eca_0c0b_f4e8),
        (0x123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 199_999, 0x8928_fe11_1137_ce4e, 0x3fd0_f19b_4f0f_0162),
        (u64::MAX, u64::MAX, u32::MAX, 0xcb6b_c760_e3e7_7f51, 0xbfdd_6416_7c56_ff8a),
    ];

    #[test]
    fn noise_matches_the_reference_vectors() {
        for (seed, position, token, words, bits) in VECTORS {
            let noise = Noise::new(seed, position);
            assert_eq!(
                noise.high(token),
                (words >> 32) as u32,
                "high word of {seed:#x} {position:#x} {token}"
            );
            assert_eq!(noise.low.hash(token), words as u32, "low word of {seed:#x} {position:#x} {token}");
            assert_eq!(noise.gumbel(token).to_bits(), bits, "variate of {seed:#x} {position:#x} {token}");
        }
        let ends = [
            (0, 0x4046_86fc_0af6_22d7),
            (1, 0x4045_fa5c_b720_babe),
            ((1 << 63) - 1, 0x3fd7_74f2_9bdd_6ba1),
            (1 << 63, 0x3fd7_74f2_9bdd_6b9f),
            (u64::MAX, 0xc00e_7686_d3ac_a577),
        ];
        for (n, bits) in ends {
            assert_eq!(gumbel(n).to_bits(), bits, "{n:#x}");
        }
    }

    #[test]
    fn gumbel_is_accurate() {
        for i in 0..20_000u32 {
            let word = u64::from(Noise::new(1, 1).high(i)) << 32 | u64::from(Noise::new(1, 2).high(i));
            for n in [word, word >> (i % 64), !(word >> (i % 64))] {
                let v = (n as f64 + 0.5) * UNIT;
                let rest = (!n as f64 + 0.5) * UNIT;
                let e = if v < 0.5 { -(-v).ln_1p() } else { -rest.ln() };
                let want = -e.ln();
                assert!((gumbel(n) - want).abs() < 1e-13, "{n:#x}: {} {want}", gumbel(n));
            }
        }
    }

    #[test]
    fn words_above_the_bound_fall_short() {
        for i in 0..46_000 {
            let least = f64::from(i) * 1e-3 - 0.5;
            match highest_word(least) {
                None => assert!(gumbel(0) < least),
                Some(u32::MAX) => assert!(least <= 1e-4),
                Some(word) => {
                    assert!(gumbel(u64::from(word + 1) << 32) < least, "{least}: {word}");
                    // The bound is useful: hardly more words pass than reach the value.
                    let tight = !(5.0..15.0).contains(&least) || gumbel(u64::from(word) << 32) > least - 0.01;
                    assert!(tight, "{least}: {word}");
                }
            }
        }
        assert_eq!(highest_word(f64::INFINITY), None);
        assert_eq!(highest_word(f64::NEG_INFINITY), Some(u32::MAX));
    }

    #[test]
    fn the_screen_misses_no_small_word() {
        for position in 0..6 {
            let noise = Noise::new(21, position);
            let mut screen = Screen::new(&noise);
            let (mut passed, mut needless) = (0, 0);
            for start in (0..300_000).step_by(CHUNK).chain([u32::MAX - 63]) {
                let smallest = (start..=start + (CHUNK as u32 - 1)).map(|token| noise.high(token)).min();
                let smallest = smallest.unwrap_or(u32::MAX);
                assert!(screen.any(start, smallest), "{position} {start}");
                if screen.any(start, 1 << 22) {
                    passed += 1;
                    needless += u32::from(smallest > 1 << 22);
                }
            }
            assert!(passed > 100 && needless < passed / 4, "{needless} of {passed}");
        }
    }

    /// Chi-squared of `counts` against equal shares, in standard deviations from its mean.
    fn deviation(counts: &[u32]) -> f64 {
        let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
        let (want, freedom) = (total / counts.len() as f64, (counts.len() - 1) as f64);
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - want).powi(2) / want).sum();
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn words_are_uniform_over_tokens_positions_and_seeds() {
        let words: [fn(u32) -> u32; 3] = [
            |i| Noise::new(5, 9).high(i),
            |i| Noise::new(5, u64::from(i)).high(1000),
            |i| Noise::new(u64::from(i), 9).high(1000),
        ];
        for (which, word) in words.iter().enumerate() {
            for shift in [0, 12, 24] {
                let mut counts = [0; 256];
                (0..100_000).for_each(|i| counts[(word(i) >> shift & 255) as usize] += 1);
                let deviation = deviation(&counts);
                assert!(deviation < 5.0, "{which}, bits from {shift}: {deviation}");
            }
        }
    }

    #[test]
    fn neighbours_are_independent() {
        // Joint distribution of the upper four bits of two words, and of their difference, over many
        // positions.
        for step in [1u32, 2, 3, 8, 64, 1024, 4096, 65_536] {
            for base in [0, 100_000] {
                let (mut joint, mut next, mut differences) = ([0; 256], [0; 256], [0; 256]);
                for position in 0..65_536 {
                    let (noise, after) = (Noise::new(3, position), Noise::new(3, position + 1));
                    let (a, b, c) = (noise.high(base), noise.high(base + step), after.high(base));
                    joint[(a >> 28 << 4 | b >> 28) as usize] += 1;
                    next[(a >> 28 << 4 | c >> 28) as usize] += 1;
                    differences[(a.wrapping_sub(b) >> 24) as usize] += 1;
                }
                for counts in [joint, next, differences] {
                    let deviation = deviation(&counts);
                    assert!(deviation < 5.0, "{base} and {step} more: {deviation}");
                }
            }
        }
    }

    #[test]
    fn the_smallest_word_is_at_every_token_equally_often() {
        for (tokens, step) in [(64, 1), (64, 64), (50, 1000)] {
            let mut counts = vec![0; tokens as usize];
            for position in 0..64_000 {
                let noise = Noise::new(11, position);
                let smallest = (0..tokens).min_by_key(|i| noise.high(i * step));
                counts[smallest.unwrap() as usize] += 1;
            }
            let deviation = deviation(&counts);
            assert!(deviation < 5.0, "{tokens} tokens in steps of {step}: {deviation}");
        }
    }
}
