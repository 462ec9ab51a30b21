//! Random numbers and the list of types, for the tests of this crate.
#![allow(dead_code, reason = "each test program uses a part")]

use exsa_core::gguf::GgmlType;

/// All types that files may name.
pub fn every_type() -> impl Iterator<Item = GgmlType> {
    (0..64).filter_map(GgmlType::from_id)
}

/// The generator of Steele, Lea and Flood (2014), which `tools/quant_vectors.py` has too.
pub struct SplitMix64(u64);

impl SplitMix64 {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }

    /// A number of [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }

    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

impl SplitMix64 {
    /// Values close to normal, of mean 0 and deviation 1, the same on every machine: sums of twelve 16-bit
    /// integers. One in 64 is four times as large, as weights have outliers.
    pub fn bell_values(&mut self, count: usize) -> Vec<f32> {
        let mut value = || {
            let sum: u64 = (0..3)
                .map(|_| self.next())
                .map(|x| (0..4).map(|i| x >> (16 * i) & 0xffff).sum::<u64>())
                .sum();
            (sum as f32 - 393_210.0) / 65_536.0
        };
        (0..count).map(|i| if i % 64 == 17 { 4.0 * value() } else { value() }).collect()
    }
}

/// An importance of columns that spans two orders of magnitude.
pub fn importance(columns: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(columns as u64);
    (0..columns).map(|_| (0.1 + random.uniform() as f32).powi(4) * 10.0).collect()
}

/// The squared error of `found`, weighted by the importance of columns, over the squared values.
pub fn relative_error(values: &[f32], found: &[f32], columns: usize, importance: Option<&[f32]>) -> f64 {
    let (mut error, mut sum) = (0.0, 0.0);
    for (i, (x, y)) in values.iter().zip(found).enumerate() {
        let weight = importance.map_or(1.0, |importance| f64::from(importance[i % columns]));
        error += weight * f64::from(x - y).powi(2);
        sum += weight * f64::from(*x).powi(2);
    }
    error / sum
}
