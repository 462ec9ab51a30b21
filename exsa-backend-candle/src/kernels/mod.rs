//! Kernels on the CPU, on slices of host memory.
//!
//! [`memory`] and [`simd`] are what the others are made of; [`float`] works on f32 and on the KV cache,
//! [`quantized`] on the weights of a model.

pub mod float;
pub mod memory;
pub mod quantized;
pub mod simd;

/// Version of the bytes that [`quantized`] and [`float`] pack weights to, which are the same for all instruction
/// sets. It goes up with every change to them, since packed weights are kept in files.
pub const LAYOUT_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::memory::{pages::Arena, team::Team};
    use super::{LAYOUT_VERSION, float::packed::FloatMatrix, quantized::PackedMatrix, quantized::PackedType};
    use exsa_core::backend::Fingerprint;
    use exsa_core::gguf::GgmlType;

    /// Packed files of an older layout must not be taken for those of this one: with other bytes,
    /// [`LAYOUT_VERSION`] goes up, and the hash here changes with it.
    #[test]
    fn packed_bytes_are_those_of_the_version() {
        let (mut hash, mut team) = (Fingerprint::default(), Team::new(1).unwrap());
        let (n, k) = (19, 512);
        let bytes = |dtype: GgmlType| -> Vec<u8> {
            let len = n * k / dtype.block_len() as usize * dtype.block_bytes() as usize;
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
        };
        for dtype in PackedType::ALL.map(PackedType::dtype) {
            let memory = &mut Arena::default();
            let packed = PackedMatrix::pack(dtype, &bytes(dtype), n, k, &mut team, memory).unwrap().unwrap();
            hash.update(dtype.name().as_bytes());
            hash.update(packed.bytes());
        }
        for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
            let memory = &mut Arena::default();
            let packed = FloatMatrix::pack(dtype, &bytes(dtype), n, k, &mut team, memory).unwrap().unwrap();
            hash.update(dtype.name().as_bytes());
            hash.update(packed.bytes());
        }
        assert_eq!((LAYOUT_VERSION, hash.0), (1, 0));
    }
}
