//! Random inputs, guarded outputs and comparisons.

use super::Outcome;
use crate::device::{Device, DeviceError, Stream};
use crate::kernel::WeightType;
use crate::kernel::launch::Kernels;

/// Floats behind every output that a kernel must leave alone.
const GUARD: usize = 64;

/// Their value.
const UNTOUCHED: f32 = -12345.5;

/// Runs kernels on a device and keeps the outcomes.
pub(super) struct Rig<'a, D: Device> {
    pub device: &'a D,
    pub stream: D::Stream,
    pub outcomes: Vec<Outcome>,
    state: u64,
}

impl<'a, D: Device> Rig<'a, D> {
    pub fn new(device: &'a D, seed: u64) -> Result<Self, DeviceError> {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
        Ok(Self { device, stream: device.stream()?, outcomes: Vec::new(), state })
    }

    /// Kernels for weights of `types`.
    pub fn kernels(&self, types: &[WeightType]) -> Result<Kernels<D>, DeviceError> {
        Kernels::new(self.device, types.iter().copied())
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `range`.
    pub fn number(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        let span = (range.end() - range.start() + 1) as u64;
        range.start() + (self.next() % span) as usize
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Floats whose size differs from group to group, so that scales of blocks do.
    pub fn weights(&mut self, n: usize) -> Vec<f32> {
        let mut scale = 1.0;
        let mut values = Vec::with_capacity(n);
        for i in 0..n {
            if i % 16 == 0 {
                scale = 0.05 + self.float().abs();
            }
            values.push(scale * self.float());
        }
        values
    }

    /// A buffer with these bytes, which may be none.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<D::Buffer, DeviceError> {
        let buffer = self.device.allocate(bytes.len().max(4) as u64)?;
        self.stream.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    pub fn upload(&mut self, values: &[f32]) -> Result<D::Buffer, DeviceError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    pub fn upload_words(&mut self, words: &[u32]) -> Result<D::Buffer, DeviceError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// A buffer that starts with `values`, behind which a guard lies.
    pub fn guarded(&mut self, values: &[f32]) -> Result<D::Buffer, DeviceError> {
        let mut all = values.to_vec();
        all.resize(values.len() + GUARD, UNTOUCHED);
        self.upload(&all)
    }

    /// A guarded buffer for `n` floats.
    pub fn output(&mut self, n: usize) -> Result<D::Buffer, DeviceError> {
        self.guarded(&vec![UNTOUCHED; n])
    }

    /// The first `n` floats of a guarded buffer; the guard, if it was written to, makes all of them NaN.
    pub fn read(&mut self, buffer: &D::Buffer, n: usize) -> Result<Vec<f32>, DeviceError> {
        let mut bytes = vec![0; 4 * (n + GUARD)];
        self.stream.read(buffer, 0, &mut bytes)?;
        let mut values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect();
        if values[n..].iter().any(|value| *value != UNTOUCHED) {
            values.fill(f32::NAN);
        }
        values.truncate(n);
        Ok(values)
    }

    pub fn read_words(&mut self, buffer: &D::Buffer, n: usize) -> Result<Vec<u32>, DeviceError> {
        let mut bytes = vec![0; 4 * n];
        self.stream.read(buffer, 0, &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_ne_bytes(*b)).collect())
    }

    /// Compares results with expected values, each with the size of its terms.
    pub fn compare(
        &mut self,
        name: impl Into<String>,
        got: &[f32],
        expected: impl IntoIterator<Item = (f64, f64)>,
        limit: f64,
    ) {
        let mut expected = expected.into_iter();
        let mut error = 0.0f64;
        for got in got {
            let (value, size) = expected.next().unwrap_or((f64::NAN, 1.0));
            let difference = (f64::from(*got) - value).abs() / size.max(1e-30);
            error = if difference.is_nan() { f64::INFINITY } else { error.max(difference) };
        }
        if expected.next().is_some() {
            error = f64::INFINITY;
        }
        self.outcomes.push(Outcome { name: name.into(), error, limit });
    }
}

/// A number of a shape as a parameter.
pub(super) fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
