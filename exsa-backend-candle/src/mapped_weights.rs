//! Weights in the mapped file, in the types of the file: rows of embeddings and vectors, and matrices without
//! a packed form.

use crate::kernels::memory::buffer::resize;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::dequantize::{self, Dequantize};
use crate::mapping::Mapping;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::{self, GgmlType};
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
unsafe trait Plain: GgmlType + Send + Sync + 'static {}

macro_rules! plain {
    ($($block:ty)*) => { $(
        // SAFETY: numbers and arrays of numbers, laid out without padding, as in the file format.
        unsafe impl Plain for $block {}
    )* };
}

plain! {
    f32 f16 bf16
    k_quants::BlockQ4_0 k_quants::BlockQ4_1 k_quants::BlockQ5_0 k_quants::BlockQ5_1 k_quants::BlockQ8_0
    k_quants::BlockQ2K k_quants::BlockQ3K k_quants::BlockQ4K k_quants::BlockQ5K k_quants::BlockQ6K
}

/// Types that are multiplied in f32.
macro_rules! dequantized {
    ($($block:ty, |$blocks:ident, $scratch:ident| $dequantize:expr;)*) => { $(
        impl Dequantize for $block {
            const BLOCK_LEN: usize = Self::BLCK_SIZE;

            fn dequantize<'a>($blocks: &'a [Self], $scratch: &'a mut Vec<f32>) -> &'a [f32] {
                $dequantize
            }
        }
    )* };
}

dequantized! {
    k_quants::BlockQ4_1, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ5_1, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ2K, |blocks, scratch| to_float(blocks, scratch);
    k_quants::BlockQ3K, |blocks, scratch| to_float(blocks, scratch);
}

fn to_float<'a, T: GgmlType>(blocks: &[T], scratch: &'a mut Vec<f32>) -> &'a [f32] {
    resize(scratch, blocks.len() * T::BLCK_SIZE);
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

    fn as_slice(&self) -> &[T] {
        let data = &self.mapping.bytes()[self.start..][..self.len * size_of::<T>()];
        // SAFETY: `new` saw that the bytes are there and aligned for `T`, and they never move; any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), self.len) }
    }
}

/// Rows of a table, one of which is read at a time.
pub(crate) trait TableRows: Send + Sync {
    /// Writes row `index`, of as many values as `out` has, to `out`.
    fn row(&self, index: usize, out: &mut [f32]);
}

impl<T: Plain> TableRows for Blocks<T> {
    fn row(&self, index: usize, out: &mut [f32]) {
        let blocks = out.len() / T::BLCK_SIZE;
        T::to_float(&self.as_slice()[index * blocks..][..blocks], out);
    }
}

/// The weights in `bytes` bytes at `start` as a table; `None` if they are not all there, are not whole
/// blocks, are misaligned, or of a type that files do not have.
pub(crate) fn table(
    mapping: &Arc<Mapping>,
    start: usize,
    bytes: usize,
    dtype: GgmlDType,
) -> Option<Arc<dyn TableRows>> {
    fn rows<T: Plain>(mapping: &Arc<Mapping>, start: usize, bytes: usize) -> Option<Arc<dyn TableRows>> {
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

impl<T: Plain + Dequantize> WideRows for Blocks<T> {
    fn multiply(&self, mkn: (usize, usize, usize), left: &[f32], out: &mut [f32], team: &mut Team) {
        dequantize::matmul(mkn, left, self.as_slice(), out, team);
    }
}

/// The weights in `bytes` bytes at `start`, if they are of a type that is multiplied in f32; otherwise as
/// [`table`].
pub(crate) fn wide_rows(
    mapping: &Arc<Mapping>,
    start: usize,
    bytes: usize,
    dtype: GgmlDType,
) -> Option<Arc<dyn WideRows>> {
    fn rows<T: Plain + Dequantize>(
        mapping: &Arc<Mapping>,
        start: usize,
        bytes: usize,
    ) -> Option<Arc<dyn WideRows>> {
        Some(Arc::new(Blocks::<T>::new(mapping, start, bytes)?))
    }
    match dtype {
        GgmlDType::Q4_1 => rows::<k_quants::BlockQ4_1>(mapping, start, bytes),
        GgmlDType::Q5_1 => rows::<k_quants::BlockQ5_1>(mapping, start, bytes),
        GgmlDType::Q2K => rows::<k_quants::BlockQ2K>(mapping, start, bytes),
        GgmlDType::Q3K => rows::<k_quants::BlockQ3K>(mapping, start, bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
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

    /// A mapping of `[n, k]` random weights of type `dtype`, its length, and the weights as candle
    /// dequantizes them.
    fn mapped(dtype: GgmlDType, n: usize, k: usize) -> (Arc<Mapping>, usize, Vec<Vec<f32>>) {
        let weights = Tensor::randn(0f32, 1.0, (n, k), &Device::Cpu).unwrap();
        let weights = QTensor::quantize(&weights, dtype).unwrap();
        let dense = weights.dequantize(&Device::Cpu).unwrap().to_vec2().unwrap();
        let data = weights.data().unwrap().to_vec();
        let bytes = data.len();
        (Arc::new(Mapping::open(&ModelSource::Memory(data.into())).unwrap()), bytes, dense)
    }

    #[test]
    fn products_with_dequantized_weights() {
        let mut team = Team::new(2).unwrap();
        let mut multiplied = 0;
        for dtype in TYPES {
            for (m, n, k) in [(1, 32, 512), (5, 32, 512), (40, 16, 256), (2, 7, 256)] {
                let (mapping, bytes, dense) = mapped(dtype, n, k);
                let Some(weights) = wide_rows(&mapping, 0, bytes, dtype) else { continue };
                multiplied += 1;
                let left: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 255) as f32 - 127.0).collect();
                let mut out = vec![f32::NAN; m * n];
                weights.multiply((m, k, n), &left, &mut out, &mut team);
                for (left, out) in left.chunks_exact(k).zip(out.chunks_exact(n)) {
                    for (dense, out) in dense.iter().zip(out) {
                        let terms = left.iter().zip(dense).map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let size: f64 = terms.clone().map(f64::abs).sum();
                        let error = (f64::from(*out) - terms.sum::<f64>()).abs() / size;
                        assert!(error < 2e-6, "{dtype:?} {m}x{n}x{k}: {error:e}");
                    }
                }
            }
        }
        assert_eq!(multiplied, 4 * 4, "all types without a packed form");
    }

    #[test]
    fn rows_of_a_table_are_dequantized() {
        for dtype in TYPES {
            let (mapping, bytes, dense) = mapped(dtype, 9, 256);
            let table = table(&mapping, 0, bytes, dtype).unwrap();
            for index in [8, 0, 8] {
                let mut row = vec![f32::NAN; 256];
                table.row(index, &mut row);
                assert_eq!(row, dense[index], "{dtype:?}");
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit() {
        let mapping = Arc::new(Mapping::open(&ModelSource::Memory(vec![0; 64].into())).unwrap());
        let fits = |start, bytes, dtype| table(&mapping, start, bytes, dtype).is_some();
        assert!(fits(0, 64, GgmlDType::F32));
        assert!(!fits(4, 64, GgmlDType::F32), "past the end");
        assert!(!fits(usize::MAX, 8, GgmlDType::F32), "overflow");
        assert!(!fits(2, 8, GgmlDType::F32), "misaligned");
        assert!(!fits(0, 33, GgmlDType::Q8_0), "half a block");
        assert!(!fits(0, 36, GgmlDType::Q8_1), "no type of files");
    }
}
