//! The bytes of a model file, and weights that lie in them.
//!
//! The one place that needs `unsafe`: mapping a file, and seeing its bytes as blocks of weights.

use candle_core::quantized::k_quants::{self, GgmlType};
use candle_core::quantized::{GgmlDType, QuantizedType};
use candle_core::{CpuStorage, Result};
use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use half::{bf16, f16};
use memmap2::{Mmap, MmapMut};
use std::marker::PhantomData;
use std::sync::Arc;

/// Alignment that memory must have to be used where it lies, in bytes.
const ALIGNMENT: usize = 32;

/// The bytes of a model file, aligned to [`ALIGNMENT`].
pub(crate) enum Mapping {
    /// A mapped file.
    Mapped(Mmap),
    /// A copy of misaligned memory.
    Copied(Mmap),
    /// Memory of the program.
    Static(&'static [u8]),
    /// Memory of the host.
    Shared(Arc<[u8]>),
}

impl Mapping {
    /// Maps `source`.
    pub fn open(source: &ModelSource) -> std::result::Result<Self, LoadError> {
        match source {
            ModelSource::File(path) => {
                let io = |source| LoadError::Io { path: path.clone(), source };
                let file = std::fs::File::open(path).map_err(io)?;
                // SAFETY: a mapping is undefined behaviour only if the file changes under it. Model files are read-only
                // data that are replaced, not rewritten; the documentation of the backend asks for it.
                unsafe { Mmap::map(&file) }.map(Self::Mapped).map_err(io)
            }
            ModelSource::Embedded(bytes) if is_aligned(bytes) => Ok(Self::Static(bytes)),
            ModelSource::Embedded(bytes) => Self::copy(bytes),
            ModelSource::Memory(bytes) if is_aligned(bytes) => Ok(Self::Shared(Arc::clone(bytes))),
            ModelSource::Memory(bytes) => Self::copy(bytes),
            _ => Err(LoadError::Unsupported {
                what: "this source of a model".to_owned(),
                supported: "a file, embedded bytes, bytes in memory".to_owned(),
            }),
        }
    }

    fn copy(bytes: &[u8]) -> std::result::Result<Self, LoadError> {
        let copy = MmapMut::map_anon(bytes.len().max(1)).and_then(|mut map| {
            map[..bytes.len()].copy_from_slice(bytes);
            map.make_read_only()
        });
        copy.map(Self::Copied).map_err(|_| LoadError::Memory {
            what: "an aligned copy of the model",
            needed: bytes.len() as u64,
            available: 0,
        })
    }

    /// Tells the system that these bytes are not needed for now. They are read from the file again if they are.
    pub fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: a read-only mapping of a file: its pages come back with the same content when they are read.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) | Self::Copied(map) => map,
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
}

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
unsafe trait Plain: GgmlType + 'static {}

macro_rules! plain {
    ($($block:ty)*) => { $(
        // SAFETY: numbers and arrays of numbers, laid out without padding, as in the file format.
        unsafe impl Plain for $block {}
    )* };
}

plain! {
    f32 f16 bf16 k_quants::BlockQ4_0 k_quants::BlockQ4_1 k_quants::BlockQ5_0 k_quants::BlockQ5_1 k_quants::BlockQ8_0
    k_quants::BlockQ2K k_quants::BlockQ3K k_quants::BlockQ4K k_quants::BlockQ5K k_quants::BlockQ6K
}

impl<T: Plain> Blocks<T> {
    fn boxed(mapping: &Arc<Mapping>, start: usize, bytes: usize) -> Option<Box<dyn QuantizedType>> {
        let end = start.checked_add(bytes)?;
        let data = mapping.bytes().get(start..end)?;
        let fits = data.as_ptr().cast::<T>().is_aligned() && bytes.is_multiple_of(size_of::<T>());
        fits.then(|| -> Box<dyn QuantizedType> {
            let len = bytes / size_of::<T>();
            Box::new(Self { mapping: Arc::clone(mapping), start, len, block: PhantomData })
        })
    }

    fn as_slice(&self) -> &[T] {
        let data = &self.mapping.bytes()[self.start..][..self.len * size_of::<T>()];
        // SAFETY: `boxed` saw that the bytes are there and aligned for `T`, and they never move; any bytes are a `T`.
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

impl<T: Plain + Send + Sync> QuantizedType for Blocks<T> {
    fn dtype(&self) -> GgmlDType {
        T::DTYPE
    }

    fn matmul_t(&self, mkn: (usize, usize, usize), lhs: &[f32], dst: &mut [f32]) -> Result<()> {
        k_quants::matmul(mkn, lhs, self.as_slice(), dst)
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
