//! Converts checked adapters to the form that llama.cpp reads: a GGUF in memory, made of the checked tensors,
//! so that a later change of the file has no effect.

use exsa_core::adapter::{AdapterFile, AdapterPair, Factor};
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, GgufWriter, Value};

/// Relative difference up to which two scales are considered equal, to allow for rounding.
const ROUNDING: f32 = 1e-6;

/// An adapter whose file was read and checked.
pub(crate) struct Adapter {
    /// Its path, for messages.
    pub name: String,
    /// The adapter as a GGUF for llama.cpp.
    pub gguf: Vec<u8>,
    /// Largest rank of its pairs.
    pub rank: usize,
    /// Bytes of its matrices.
    pub bytes: u64,
    /// Identifies its weights and their scales.
    pub fingerprint: Fingerprint,
}

impl Adapter {
    /// Reads all matrices of `file`.
    pub fn read(file: &mut AdapterFile) -> Result<Self, LoadError> {
        let alpha = common_alpha(file.pairs());
        let mut writer = GgufWriter::new()
            .key("general.type", Value::Str("adapter".into()))
            .key("general.architecture", Value::Str(file.architecture().into()))
            .key("adapter.type", Value::Str("lora".into()))
            // Without alpha, llama.cpp uses only the request's scale.
            .key("adapter.lora.alpha", Value::F32(alpha.unwrap_or(0.0)));
        for pair in file.pairs() {
            for factor in [Factor::A, Factor::B] {
                let (dtype, bytes) = stored(pair, factor, alpha);
                writer = writer.declare(&tensor_name(pair, factor), &shape(pair, factor), dtype, bytes);
            }
        }
        let mut gguf = Vec::new();
        let mut fingerprint = Fingerprint::default();
        let failed =
            |error: std::io::Error| LoadError::Backend(format!("cannot convert an adapter: {error}"));
        let mut stream = writer.start(&mut gguf).map_err(failed)?;
        let mut bytes = Vec::new();
        for index in 0..file.pairs().len() {
            let pair = file.pairs()[index].clone();
            fingerprint.update(pair.weight.as_bytes());
            fingerprint.update(&pair.scale.to_le_bytes());
            for factor in [Factor::A, Factor::B] {
                file.read(index, factor, &mut bytes)?;
                fingerprint.update(&bytes);
                fingerprint.update(pair.tensor(factor).dtype.name().as_bytes());
                if factor == Factor::B && alpha.is_none() {
                    bytes = scaled(pair.b.dtype, &bytes, pair.scale).ok_or_else(|| {
                        file.refuse(format!("{}: values times its scale are not finite", pair.weight))
                    })?;
                }
                stream.write(&bytes).map_err(failed)?;
            }
        }
        stream.finish().map_err(failed)?;
        Ok(Self {
            name: file.name().to_owned(),
            gguf,
            rank: file.rank(),
            bytes: bytes_with(file.pairs(), alpha),
            fingerprint,
        })
    }

    /// Creates the error for an adapter that cannot be used.
    pub fn refuse(&self, problem: String) -> LoadError {
        LoadError::Adapter { name: self.name.clone(), problem }
    }
}

/// Bytes of the matrices of `pairs` as llama.cpp holds them.
pub(crate) fn bytes(pairs: &[AdapterPair]) -> u64 {
    bytes_with(pairs, common_alpha(pairs))
}

/// Bytes of the matrices of `pairs`, given their common alpha.
fn bytes_with(pairs: &[AdapterPair], alpha: Option<f32>) -> u64 {
    let parts =
        pairs.iter().flat_map(|pair| [Factor::A, Factor::B].map(|factor| stored(pair, factor, alpha).1));
    parts.fold(0, u64::saturating_add)
}

/// Returns the alpha from which llama.cpp computes the scales of all pairs, alpha / rank; `None` if there is
/// none, in which case scales are folded into the weights.
fn common_alpha(pairs: &[AdapterPair]) -> Option<f32> {
    let mut alphas = pairs.iter().map(|pair| pair.scale * pair.rank as f32);
    // llama.cpp uses 0 for no alpha.
    let first = alphas.next().filter(|alpha| alpha.is_finite() && *alpha != 0.0)?;
    alphas.all(|alpha| (alpha - first).abs() <= ROUNDING * first.abs()).then_some(first)
}

/// Type and bytes of a matrix in llama.cpp's file.
fn stored(pair: &AdapterPair, factor: Factor, alpha: Option<f32>) -> (GgmlType, u64) {
    let tensor = pair.tensor(factor);
    if factor == Factor::B && alpha.is_none() {
        let values = pair.shape(factor).iter().product::<u64>();
        (GgmlType::F32, values * GgmlType::F32.block_bytes())
    } else {
        (tensor.dtype, tensor.bytes)
    }
}

fn tensor_name(pair: &AdapterPair, factor: Factor) -> String {
    let end = if factor == Factor::A { "lora_a" } else { "lora_b" };
    format!("{}.{end}", pair.weight)
}

/// Shape of a matrix; experts have three dimensions.
fn shape(pair: &AdapterPair, factor: Factor) -> Vec<u64> {
    let mut shape = pair.shape(factor).to_vec();
    if shape[2] == 1 {
        shape.truncate(2);
    }
    shape
}

/// The values of `bytes` times `scale` as f32; `None` if one is not finite.
fn scaled(dtype: GgmlType, bytes: &[u8], scale: f32) -> Option<Vec<u8>> {
    let mut scaled = Vec::with_capacity(bytes.len() * 4 / dtype.block_bytes() as usize);
    let mut push = |value: f32| {
        let value = value * scale;
        scaled.extend(value.to_le_bytes());
        value.is_finite()
    };
    let finite = match dtype {
        GgmlType::F32 => bytes.as_chunks::<4>().0.iter().all(|bits| push(f32::from_le_bytes(*bits))),
        GgmlType::BF16 => {
            let value = |bits: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16);
            bytes.as_chunks::<2>().0.iter().all(|bits| push(value(bits)))
        }
        GgmlType::F16 => bytes.as_chunks::<2>().0.iter().all(|bits| push(half(u16::from_le_bytes(*bits)))),
        // Q8_0: blocks of an f16 scale and 32 integers.
        _ => bytes.as_chunks::<34>().0.iter().all(|block| {
            let unit = half(u16::from_le_bytes([block[0], block[1]]));
            block[2..].iter().all(|value| push(unit * f32::from(value.cast_signed())))
        }),
    };
    finite.then_some(scaled)
}

/// The value of an f16 (IEEE 754 binary16), which is finite.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
        ] {
            assert_eq!(half(bits), value, "{bits:x}");
        }
    }

    #[test]
    fn values_of_all_types_are_scaled() {
        let values = |dtype, bytes: &[u8], scale| {
            let scaled = scaled(dtype, bytes, scale)?;
            Some(scaled.as_chunks::<4>().0.iter().map(|bits| f32::from_le_bytes(*bits)).collect::<Vec<_>>())
        };
        assert_eq!(values(GgmlType::F32, &1.5f32.to_le_bytes(), 2.0), Some(vec![3.0]));
        assert_eq!(values(GgmlType::F16, &[0x00, 0x3c, 0x00, 0xc0], 0.5), Some(vec![0.5, -1.0]));
        assert_eq!(values(GgmlType::BF16, &[0x80, 0x3f], 3.0), Some(vec![3.0]));
        let block: Vec<u8> = [0x00, 0x38].into_iter().chain((0..32).map(|i| (i - 16i8) as u8)).collect();
        let expected: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0) * 0.5 * 4.0).collect();
        assert_eq!(values(GgmlType::Q8_0, &block, 4.0), Some(expected));
        assert_eq!(values(GgmlType::F32, &f32::MAX.to_le_bytes(), 2.0), None);
    }
}
