//! Weights in the mapped file, in the types of the file: rows of embeddings and vectors, and matrices without
//! a packed form.

use crate::kernels::memory::team::Team;
use crate::kernels::quantized::dequantize;
use crate::mapping::Mapping;
use exsa_core::gguf::GgmlType;
use std::sync::Arc;

/// The rows of a tensor, in the mapping itself.
pub(crate) struct MappedRows {
    mapping: Arc<Mapping>,
    start: usize,
    dtype: GgmlType,
    /// Bytes and values of a row.
    row_bytes: usize,
    row_len: usize,
}

impl MappedRows {
    /// `rows` rows of `row_len` weights of type `dtype` that begin at `start`; `None` if they are not all
    /// there, or rows are not whole blocks.
    pub fn new(
        mapping: &Arc<Mapping>,
        start: usize,
        (rows, row_len): (usize, usize),
        dtype: GgmlType,
    ) -> Option<Self> {
        let (block_len, block_bytes) = (dtype.block_len() as usize, dtype.block_bytes() as usize);
        if !row_len.is_multiple_of(block_len) {
            return None;
        }
        let row_bytes = (row_len / block_len).checked_mul(block_bytes)?;
        let end = start.checked_add(row_bytes.checked_mul(rows)?)?;
        mapping.bytes().get(start..end)?;
        Some(Self { mapping: Arc::clone(mapping), start, dtype, row_bytes, row_len })
    }

    /// Writes row `index` to `out`.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        self.dequantize(index, out);
    }

    /// Writes the rows from `first` on to `out`, as many as it holds.
    fn dequantize(&self, first: usize, out: &mut [f32]) {
        let bytes = out.len() / self.row_len.max(1) * self.row_bytes;
        let bytes = &self.mapping.bytes()[self.start + first * self.row_bytes..][..bytes];
        let result = exsa_quant::dequantize(self.dtype, bytes, out);
        // Types of tensors are checked while loading, and whole rows are whole blocks.
        debug_assert!(result.is_ok(), "{result:?}");
    }

    /// `out = left · Wᵀ`, with `left` `[m, k]`, the `n` rows `W` from `first` on, `[n, k]`, and `out` `[m,
    /// n]`: dequantized to f32 on the way.
    pub fn multiply(
        &self,
        first: usize,
        (m, n): (usize, usize),
        left: &[f32],
        out: &mut [f32],
        team: &mut Team,
    ) {
        let rows = |row: usize, rows: &mut [f32]| self.dequantize(first + row, rows);
        dequantize::matmul((m, self.row_len, n), left, rows, out, team);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::backend::ModelSource;

    /// A mapping of `[n, k]` weights of type `dtype`, and the weights.
    fn mapped(dtype: GgmlType, n: usize, k: usize) -> (MappedRows, Vec<f32>) {
        let blocks = n * k / dtype.block_len() as usize;
        let bytes: Vec<u8> =
            (0..blocks * dtype.block_bytes() as usize).map(|i| ((i * 7919) >> 3) as u8 & 0x37).collect();
        let mut dense = vec![0.0; n * k];
        exsa_quant::dequantize(dtype, &bytes, &mut dense).unwrap();
        let mapping = Arc::new(Mapping::open(&ModelSource::Memory(bytes.into())).unwrap());
        (MappedRows::new(&mapping, 0, (n, k), dtype).unwrap(), dense)
    }

    #[test]
    fn products_with_dequantized_weights() {
        let mut team = Team::new(2).unwrap();
        for dtype in [GgmlType::F16, GgmlType::Iq3S, GgmlType::Tq2_0] {
            for (m, n, k) in [(1, 32, 512), (5, 32, 512), (40, 16, 256), (2, 7, 256)] {
                let (weights, dense) = mapped(dtype, n, k);
                let left: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 255) as f32 - 127.0).collect();
                let mut out = vec![f32::NAN; m * n];
                weights.multiply(0, (m, n), &left, &mut out, &mut team);
                for (left, out) in left.chunks_exact(k).zip(out.chunks_exact(n)) {
                    for (dense, out) in dense.chunks_exact(k).zip(out) {
                        let terms = left.iter().zip(dense).map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let size: f64 = terms.clone().map(f64::abs).sum();
                        let error = (f64::from(*out) - terms.sum::<f64>()).abs() / size;
                        assert!(error < 2e-6, "{dtype:?} {m}x{n}x{k}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_dequantized() {
        for dtype in [GgmlType::F32, GgmlType::Q4K, GgmlType::Iq4Xs] {
            let (rows, dense) = mapped(dtype, 9, 256);
            for index in [8, 0, 8] {
                let mut row = vec![f32::NAN; 256];
                rows.row(index, &mut row);
                assert_eq!(row, dense[index * 256..][..256], "{dtype:?}");
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit() {
        let mapping = Arc::new(Mapping::open(&ModelSource::Memory(vec![0; 64].into())).unwrap());
        let fits = |start, shape, dtype| MappedRows::new(&mapping, start, shape, dtype).is_some();
        assert!(fits(0, (2, 8), GgmlType::F32));
        assert!(!fits(4, (2, 8), GgmlType::F32), "past the end");
        assert!(!fits(usize::MAX, (1, 2), GgmlType::F32), "overflow");
        assert!(!fits(0, (1, 33), GgmlType::Q8_0), "part of a block");
        assert!(fits(2, (1, 32), GgmlType::Q8_0));
    }
}
