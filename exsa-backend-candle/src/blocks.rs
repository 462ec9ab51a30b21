//! Weights that lie in the mapped file, in the form that candle computes with.

use crate::kernels::memory::team::Team;
use crate::kernels::quantized::dequantize::{self as widen, Widen};
use crate::mapping::Mapping;
use candle_core::quantized::k_quants::{self, GgmlType};
use candle_core::quantized::{GgmlDType, QuantizedType};
use candle_core::{CpuStorage, Result};
use half::{bf16, f16};
use std::marker::PhantomData;
use std::sync::Arc;

/// The weights of a tensor, in the mapping itself.
struct Blocks<T> {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
    block: PhantomData<fn() -> T>,
}

/// A type that any bytes of its size and alignment are a value of.
///
/// # Safety
///
/// The type holds plain numbers only, and has no padding.
unsafe trait Plain: GgmlType + 'static {
    /// Multiplies `left`, `[m, k]`, with the rows of `weights`, `[n, k]`.
    fn multiply(mkn: (usize, usize, usize), left: &[f32], weights: &[Self], out: &mut [f32]) -> Result<()>;
}

/// Types that candle multiplies in integers, with vector code; it quantizes the left to 8 bits.
macro_rules! quantized {
    ($($block:ident)*) => { $(
        // SAFETY: numbers and arrays of numbers, laid out without padding, as in the file format.
        unsafe impl Plain for k_quants::$block {
            fn multiply(mkn: (usize, usize, usize), left: &[f32], weights: &[Self], out: &mut [f32]) -> Result<()> {
                k_quants::matmul(mkn, left, weights, out)
            }
        }
    )* };
}

/// Types that are multiplied in f32.
macro_rules! widened {
    ($($block:ty, |$blocks:ident, $scratch:ident| $widen:expr;)*) => { $(
        // SAFETY: numbers and arrays of numbers, laid out without padding, as in the file format.
        unsafe impl Plain for $block {
            fn multiply(mkn: (usize, usize, usize), left: &[f32], weights: &[Self], out: &mut [f32]) -> Result<()> {
                widen::matmul(mkn, left, weights, out, None);
                Ok(())
            }
        }

        impl Widen for $block {
            const BLOCK_LEN: usize = Self::BLCK_SIZE;

            fn widen<'a>($blocks: &'a [Self], $scratch: &'a mut Vec<f32>) -> &'a [f32] {
                $widen
            }
        }
    )* };
}

quantized! { BlockQ4_0 BlockQ8_0 BlockQ4K BlockQ5K BlockQ6K }

widened! {
    f32, |blocks, _scratch| blocks;
    f16, |blocks, scratch| to_float(blocks, scratch);
    bf16, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ4_1, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ5_0, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ5_1, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ2K, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ3K, |blocks, scratch| to_float(blocks, scratch);
}

fn to_float<'a, T: GgmlType>(blocks: &[T], scratch: &'a mut Vec<f32>) -> &'a [f32] {
    scratch.resize(blocks.len() * T::BLCK_SIZE, 0.0);
    T::to_float(blocks, scratch);
    scratch
}

impl<T: Plain> Blocks<T> {
    fn new(mapping: &Arc<Mapping>, start: usize, bytes: usize) -> Option<Self> {
        let end = start.checked_add(bytes)?;
        let data = mapping.bytes().get(start..end)?;
        let fits = data.as_ptr().cast::<T>().is_aligned() && bytes.is_multiple_of(size_of::<T>());
        let len = bytes / size_of::<T>();
        fits.then(|| Self { mapping: Arc::clone(mapping), start, len, block: PhantomData })
    }

    fn boxed(mapping: &Arc<Mapping>, start: usize, bytes: usize) -> Option<Box<dyn QuantizedType>> {
        Some(Box::new(Self::new(mapping, start, bytes)?))
    }

    fn as_slice(&self) -> &[T] {
        let data = &self.mapping.bytes()[self.start..][..self.len * size_of::<T>()];
        // SAFETY: `new` saw that the bytes are there and aligned for `T`, and they never move; any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), self.len) }
    }
}

/// The weights in `bytes` bytes at `start` as candle sees them; `None` if they are not all there, are not whole blocks, are
/// misaligned, or of a type that files do not have.
pub(crate) fn weights(
    mapping: &Arc<Mapping>,
    start: usize,
    bytes: usize,
    dtype: GgmlDType,
) -> Option<Box<dyn QuantizedType>> {
    match dtype {
        GgmlDType::F32 => Blocks::<f32>::boxed(mapping, start, bytes),
        GgmlDType::F16 => Blocks::<f16>::boxed(mapping, start, bytes),
        GgmlDType::BF16 => Blocks::<bf16>::boxed(mapping, start, bytes),
        GgmlDType::Q4_0 => Blocks::<k_quants::BlockQ4_0>::boxed(mapping, start, bytes),
        GgmlDType::Q4_1 => Blocks::<k_quants::BlockQ4_1>::boxed(mapping, start, bytes),
        GgmlDType::Q5_0 => Blocks::<k_quants::BlockQ5_0>::boxed(mapping, start, bytes),
        GgmlDType::Q5_1 => Blocks::<k_quants::BlockQ5_1>::boxed(mapping, start, bytes),
        GgmlDType::Q8_0 => Blocks::<k_quants::BlockQ8_0>::boxed(mapping, start, bytes),
        GgmlDType::Q2K => Blocks::<k_quants::BlockQ2K>::boxed(mapping, start, bytes),
        GgmlDType::Q3K => Blocks::<k_quants::BlockQ3K>::boxed(mapping, start, bytes),
        GgmlDType::Q4K => Blocks::<k_quants::BlockQ4K>::boxed(mapping, start, bytes),
        GgmlDType::Q5K => Blocks::<k_quants::BlockQ5K>::boxed(mapping, start, bytes),
        GgmlDType::Q6K => Blocks::<k_quants::BlockQ6K>::boxed(mapping, start, bytes),
        GgmlDType::Q8_1 | GgmlDType::Q8K => None,
    }
}

/// Rows of a table, one of which is read at a time.
pub(crate) trait TableRows: Send + Sync {
    /// Writes row `index`, of as many values as `out` has, to `out`.
    fn row(&self, index: usize, out: &mut [f32]);
}

impl<T: Plain + Send + Sync> TableRows for Blocks<T> {
    fn row(&self, index: usize, out: &mut [f32]) {
        let blocks = out.len() / T::BLCK_SIZE;
        T::to_float(&self.as_slice()[index * blocks..][..blocks], out);
    }
}

/// The weights in `bytes` bytes at `start` as a table; `None` as in [`weights`].
pub(crate) fn table(
    mapping: &Arc<Mapping>,
    start: usize,
    bytes: usize,
    dtype: GgmlDType,
) -> Option<Arc<dyn TableRows>> {
    fn rows<T: Plain + Send + Sync>(
        mapping: &Arc<Mapping>,
        start: usize,
        bytes: usize,
    ) -> Option<Arc<dyn TableRows>> {
        Some(Arc::new(Blocks::<T>::new(mapping, start, bytes)?))
    }
    match dtype {
        GgmlDType::F32 => rows::<f32>(mapping, start, bytes),
        GgmlDType::F16 => rows::<f16>(mapping, start, bytes),
        GgmlDType::BF16 => rows::<bf16>(mapping, start, bytes),
        GgmlDType::Q4_0 => rows::<k_quants::BlockQ4_0>(mapping, start, bytes),
        GgmlDType::Q4_1 => rows::<k_quants::BlockQ4_1>(mapping, start, bytes),
        GgmlDType::Q5_0 => rows::<k_quants::BlockQ5_0>(mapping, start, bytes),
        GgmlDType::Q5_1 => rows::<k_quants::BlockQ5_1>(mapping, start, bytes),
        GgmlDType::Q8_0 => rows::<k_quants::BlockQ8_0>(mapping, start, bytes),
        GgmlDType::Q2K => rows::<k_quants::BlockQ2K>(mapping, start, bytes),
        GgmlDType::Q3K => rows::<k_quants::BlockQ3K>(mapping, start, bytes),
        GgmlDType::Q4K => rows::<k_quants::BlockQ4K>(mapping, start, bytes),
        GgmlDType::Q5K => rows::<k_quants::BlockQ5K>(mapping, start, bytes),
        GgmlDType::Q6K => rows::<k_quants::BlockQ6K>(mapping, start, bytes),
        GgmlDType::Q8_1 | GgmlDType::Q8K => None,
    }
}

/// Rows of weights that are multiplied in f32.
pub(crate) trait WideRows: Send + Sync {
    /// `out = left · Wᵀ`, with `left` `[m, k]`, the rows `W` `[n, k]` and `out` `[m, n]`.
    fn multiply(&self, mkn: (usize, usize, usize), left: &[f32], out: &mut [f32], team: &mut Team);
}

impl<T: Plain + Widen + Send> WideRows for Blocks<T> {
    fn multiply(&self, mkn: (usize, usize, usize), left: &[f32], out: &mut [f32], team: &mut Team) {
        widen::matmul(mkn, left, self.as_slice(), out, Some(team));
    }
}

/// The weights in `bytes` bytes at `start`, if they are of a type that is multiplied in f32; otherwise as [`weights`].
pub(crate) fn wide_rows(
    mapping: &Arc<Mapping>,
    start: usize,
    bytes: usize,
    dtype: GgmlDType,
) -> Option<Arc<dyn WideRows>> {
    fn rows<T: Plain + Widen + Send>(
        mapping: &Arc<Mapping>,
        start: usize,
        bytes: usize,
    ) -> Option<Arc<dyn WideRows>> {
        Some(Arc::new(Blocks::<T>::new(mapping, start, bytes)?))
    }
    match dtype {
        GgmlDType::F32 => rows::<f32>(mapping, start, bytes),
        GgmlDType::F16 => rows::<f16>(mapping, start, bytes),
        GgmlDType::BF16 => rows::<bf16>(mapping, start, bytes),
        GgmlDType::Q4_1 => rows::<k_quants::BlockQ4_1>(mapping, start, bytes),
        GgmlDType::Q5_0 => rows::<k_quants::BlockQ5_0>(mapping, start, bytes),
        GgmlDType::Q5_1 => rows::<k_quants::BlockQ5_1>(mapping, start, bytes),
        GgmlDType::Q2K => rows::<k_quants::BlockQ2K>(mapping, start, bytes),
        GgmlDType::Q3K => rows::<k_quants::BlockQ3K>(mapping, start, bytes),
        _ => None,
    }
}

impl<T: Plain + Send + Sync> QuantizedType for Blocks<T> {
    fn dtype(&self) -> GgmlDType {
        T::DTYPE
    }

    fn matmul_t(&self, mkn: (usize, usize, usize), lhs: &[f32], dst: &mut [f32]) -> Result<()> {
        T::multiply(mkn, lhs, self.as_slice(), dst)
    }

    fn matmul_t_f16(&self, mkn: (usize, usize, usize), lhs: &[f16], dst: &mut [f16]) -> Result<()> {
        k_quants::matmul_f16(mkn, lhs, self.as_slice(), dst)
    }

    fn embedding(&self, ids: &[u32], rows: usize, hidden: usize) -> Result<CpuStorage> {
        let row_blocks = hidden / T::BLCK_SIZE;
        let mut out = vec![0.0; ids.len() * hidden];
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(hidden)) {
            let row = self.as_slice().chunks_exact(row_blocks).take(rows).nth(id as usize);
            let row = row.ok_or_else(|| candle_core::Error::Msg(format!("no row {id} in {rows}")))?;
            T::to_float(row, out);
        }
        Ok(CpuStorage::F32(out))
    }

    fn dequantize(&self, elem_count: usize) -> Result<CpuStorage> {
        let mut out = vec![0.0; elem_count];
        T::to_float(self.as_slice(), &mut out);
        Ok(CpuStorage::F32(out))
    }

    fn storage_size_in_bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr().cast()
    }

    fn block_size(&self) -> usize {
        T::BLCK_SIZE
    }

    /// Mapped weights are never written; candle quantizes only into storage that it made itself.
    fn from_float(&mut self, _: &[f32]) {}

    /// As [`from_float`](Self::from_float).
    fn from_float_imatrix(&mut self, _: &[f32], _: &[f32], _: usize) {}

    fn size(&self) -> usize {
        self.storage_size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use exsa_core::backend::ModelSource;

    const TYPES: [GgmlDType; 13] = [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    fn mapped(dtype: GgmlDType, n: usize, k: usize) -> QTensor {
        let weights = Tensor::randn(0f32, 1.0, (n, k), &Device::Cpu).unwrap();
        let data = QTensor::quantize(&weights, dtype).unwrap().data().unwrap().to_vec();
        let bytes = data.len();
        let mapping = Arc::new(Mapping::open(&ModelSource::Memory(data.into())).unwrap());
        let storage = super::weights(&mapping, 0, bytes, dtype).unwrap();
        assert_eq!((storage.dtype(), storage.storage_size_in_bytes()), (dtype, bytes));
        QTensor::new(QStorage::Cpu(storage), (n, k)).unwrap()
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().unwrap()
    }

    /// Whole numbers up to 127, with a 127 in every block, are their own quantization to 8 bits: then the product of
    /// quantized weights and activations is exact, up to the rounding of f32.
    #[test]
    fn products_with_dequantized_weights() {
        for dtype in TYPES {
            for (m, n, k) in [(1, 32, 512), (5, 32, 512), (40, 16, 256), (2, 7, 256)] {
                let weight = mapped(dtype, n, k);
                let value = |i: usize| if i % 32 == 5 { 127.0 } else { (i * 7919 % 255) as f32 - 127.0 };
                let left = Tensor::from_vec((0..m * k).map(value).collect(), (m, k), &Device::Cpu).unwrap();
                let dense = rows(&weight.dequantize(&Device::Cpu).unwrap());
                let product = rows(&left.apply_op1_no_bwd(&weight).unwrap());
                for (left, product) in rows(&left).iter().zip(&product) {
                    for (dense, product) in dense.iter().zip(product) {
                        let terms = left.iter().zip(dense).map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let size: f64 = terms.clone().map(f64::abs).sum();
                        let error = (f64::from(*product) - terms.sum::<f64>()).abs() / size;
                        assert!(error < 2e-6, "{dtype:?} {m}x{n}x{k}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn embeddings_are_dequantized_rows() {
        for dtype in TYPES {
            let table = mapped(dtype, 9, 256);
            let dense = rows(&table.dequantize(&Device::Cpu).unwrap());
            let ids = Tensor::new(&[8u32, 0, 8], &Device::Cpu).unwrap();
            let embeddings = rows(&table.embedding(&ids).unwrap());
            assert_eq!(embeddings, [dense[8].clone(), dense[0].clone(), dense[8].clone()]);
            assert!(table.embedding(&Tensor::new(&[9u32], &Device::Cpu).unwrap()).is_err());
        }
    }

    #[test]
    fn bytes_that_do_not_fit() {
        let mapping = Arc::new(Mapping::open(&ModelSource::Memory(vec![0; 64].into())).unwrap());
        let fits = |start, bytes, dtype| super::weights(&mapping, start, bytes, dtype).is_some();
        assert!(fits(0, 64, GgmlDType::F32));
        assert!(!fits(4, 64, GgmlDType::F32), "past the end");
        assert!(!fits(usize::MAX, 8, GgmlDType::F32), "overflow");
        assert!(!fits(2, 8, GgmlDType::F32), "misaligned");
        assert!(!fits(0, 33, GgmlDType::Q8_0), "half a block");
        assert!(!fits(0, 36, GgmlDType::Q8_1), "no type of files");
    }
}
