//! Tables of RoPE's angles: the positions below [`ROPE_FINE`], and its multiples. Kernels add the two up, so
//! that the table of a long context stays small and every angle comes from f64.

use crate::device::{Device, DeviceError, HostBytes};
use crate::kernel::params::ROPE_FINE;
use exsa_models::RopeFrequencies;
use std::sync::Arc;

/// Angles of one RoPE on the device.
#[derive(Debug)]
pub(crate) struct Angles<D: Device> {
    /// `[ROPE_FINE + context / ROPE_FINE + 1][pairs]` of cosine and sine.
    pub table: D::Buffer,
    /// Pairs of rotary dimensions.
    pub pairs: u32,
}

impl<D: Device> Angles<D> {
    /// The table for `context` positions.
    pub fn new(device: &D, frequencies: &RopeFrequencies, context: usize) -> Result<Self, DeviceError> {
        let bytes = table(frequencies, context);
        let (len, pairs) = (bytes.len(), frequencies.radians.len());
        let bytes: HostBytes = Arc::new(bytes);
        Ok(Self { table: device.place(&bytes, 0..len)?, pairs: u32::try_from(pairs).unwrap_or(0) })
    }
}

/// The bytes of a table.
pub(crate) fn table(frequencies: &RopeFrequencies, context: usize) -> Vec<u8> {
    let RopeFrequencies { radians, magnitude } = frequencies;
    let fine = (0..ROPE_FINE).map(|position| (position, *magnitude));
    let coarse = (0..=context / ROPE_FINE).map(|n| (n * ROPE_FINE, 1.0));
    let mut bytes = Vec::new();
    for (position, magnitude) in fine.chain(coarse) {
        for frequency in radians {
            let (sine, cosine) = (position as f64 * frequency).sin_cos();
            bytes.extend(((cosine * magnitude) as f32).to_ne_bytes());
            bytes.extend(((sine * magnitude) as f32).to_ne_bytes());
        }
    }
    bytes
}
