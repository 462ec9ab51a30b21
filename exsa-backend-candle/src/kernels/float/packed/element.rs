//! Types of weights that are floats.

use crate::kernels::simd::Vector;
use exsa_core::gguf::GgmlType;
use half::{bf16, f16};

/// A type of weights that is multiplied in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    /// The type of weights of type `dtype`; `None` if they are no floats.
    pub fn of(dtype: GgmlType) -> Option<Self> {
        match dtype {
            GgmlType::F32 => Some(Self::F32),
            GgmlType::F16 => Some(Self::F16),
            GgmlType::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// A weight in memory. Its value in f32 is exact.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// Whether it is an f32 already.
    const IS_F32: bool = false;

    /// A vector of them as f32.
    ///
    /// # Safety
    ///
    /// The processor has the vector's instructions, and as many weights are there.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

impl Element for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(from) }
    }
}
