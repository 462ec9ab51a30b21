//! Instruction sets of the float kernels.

use super::element::Element;
use super::kernel::Block;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::{Isa, roofline};

/// Kernels that an [`Isa`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatSet {
    /// Plain Rust, the reference.
    Plain,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl FloatSet {
    /// Maximum rows of a panel.
    pub fn rows_max(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 12,
            _ => 6,
        }
    }

    /// Tiles that a kernel multiplies at once with a panel of `rows` rows.
    pub(super) fn tiles(self, rows: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 2,
            _ if rows <= 2 => 2,
            _ => 1,
        }
    }
}

/// Compiles the kernels for an instruction set: `rows x tiles = vectors` each.
macro_rules! kernels {
    ($name:ident, $vector:ty, $(#[$attribute:meta])* [$($r:literal x $t:literal = $n:literal),* $(,)?]) => {
        mod $name {
            use crate::kernels::float::packed::element::Element;
            use crate::kernels::float::packed::kernel::{self, Block};

            /// # Safety
            ///
            /// As of [`kernel::multiply`].
            #[inline(never)]
            $(#[$attribute])*
            unsafe fn block<E: Element, const R: usize, const T: usize, const N: usize>(block: &Block<E>) {
                // SAFETY: passed on.
                unsafe { kernel::multiply::<$vector, E, R, T, N>(block) }
            }

            /// # Safety
            ///
            /// As of [`kernel::multiply`] for a panel of `rows` rows and `tiles` tiles.
            pub unsafe fn multiply<E: Element>(rows: usize, tiles: usize, args: &Block<E>) {
                // SAFETY: passed on.
                unsafe {
                    match (rows, tiles) {
                        $( ($r, $t) => block::<E, $r, $t, $n>(args), )*
                        _ => unreachable!("no kernel for {rows} rows and {tiles} tiles"),
                    }
                }
            }

            /// # Safety
            ///
            /// As of [`kernel::convert`].
            $(#[$attribute])*
            pub unsafe fn convert<E: Element>(from: *const E, to: *mut f32, len: usize) {
                // SAFETY: passed on.
                unsafe { kernel::convert::<$vector, E>(from, to, len) }
            }

            /// # Safety
            ///
            /// As of [`kernel::peak`].
            $(#[$attribute])*
            pub unsafe fn peak() -> u64 {
                // SAFETY: passed on.
                unsafe { kernel::peak::<$vector>() }
            }
        }
    };
}

kernels! {
    plain, crate::kernels::simd::Fused,
    [1 x 1 = 2, 2 x 1 = 2, 3 x 1 = 2, 4 x 1 = 2, 5 x 1 = 2, 6 x 1 = 2, 1 x 2 = 4, 2 x 2 = 4]
}

#[cfg(target_arch = "x86_64")]
kernels! {
    avx2, std::arch::x86_64::__m256,
    #[target_feature(enable = "avx2,fma,f16c")]
    [1 x 1 = 2, 2 x 1 = 2, 3 x 1 = 2, 4 x 1 = 2, 5 x 1 = 2, 6 x 1 = 2, 1 x 2 = 4, 2 x 2 = 4]
}

#[cfg(target_arch = "x86_64")]
kernels! {
    avx512, std::arch::x86_64::__m512,
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,fma,f16c")]
    [
        1 x 1 = 1, 2 x 1 = 1, 3 x 1 = 1, 4 x 1 = 1, 5 x 1 = 1, 6 x 1 = 1,
        7 x 1 = 1, 8 x 1 = 1, 9 x 1 = 1, 10 x 1 = 1, 11 x 1 = 1, 12 x 1 = 1,
        1 x 2 = 2, 2 x 2 = 2, 3 x 2 = 2, 4 x 2 = 2, 5 x 2 = 2, 6 x 2 = 2,
        7 x 2 = 2, 8 x 2 = 2, 9 x 2 = 2, 10 x 2 = 2, 11 x 2 = 2, 12 x 2 = 2,
    ]
}

#[cfg(target_arch = "aarch64")]
kernels! {
    neon, std::arch::aarch64::float32x4_t,
    #[target_feature(enable = "neon")]
    [1 x 1 = 4, 2 x 1 = 4, 3 x 1 = 4, 4 x 1 = 4, 5 x 1 = 4, 6 x 1 = 4, 1 x 2 = 8, 2 x 2 = 8]
}

/// Multiplies a panel of `rows` rows, at most [`FloatSet::rows_max`], with `tiles` tiles, at most
/// [`FloatSet::tiles`].
///
/// # Safety
///
/// The contract of [`Block`] holds for `rows` and `tiles`.
pub(super) unsafe fn multiply<E: Element>(isa: Isa, rows: usize, tiles: usize, block: &Block<E>) {
    // SAFETY: the processor has the instructions, by the token; the rest is passed on.
    unsafe {
        match isa.floats() {
            FloatSet::Plain => plain::multiply(rows, tiles, block),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx2 => avx2::multiply(rows, tiles, block),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx512 => avx512::multiply(rows, tiles, block),
            #[cfg(target_arch = "aarch64")]
            FloatSet::Neon => neon::multiply(rows, tiles, block),
        }
    }
}

/// Converts `len` weights, a multiple of 16, to f32.
///
/// # Safety
///
/// `from` and `to` have `len` values.
pub(super) unsafe fn convert<E: Element>(isa: Isa, from: *const E, to: *mut f32, len: usize) {
    // SAFETY: as above.
    unsafe {
        match isa.floats() {
            FloatSet::Plain => plain::convert(from, to, len),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx2 => avx2::convert(from, to, len),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx512 => avx512::convert(from, to, len),
            #[cfg(target_arch = "aarch64")]
            FloatSet::Neon => neon::convert(from, to, len),
        }
    }
}

/// Billions of multiplications and additions of f32 in a second that `team` does with operands in registers.
pub(crate) fn fma_peak(isa: Isa, team: &mut Team) -> f64 {
    // SAFETY: the processor has the instructions, by the token.
    roofline::best(team, || unsafe {
        match isa.floats() {
            FloatSet::Plain => plain::peak(),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx2 => avx2::peak(),
            #[cfg(target_arch = "x86_64")]
            FloatSet::Avx512 => avx512::peak(),
            #[cfg(target_arch = "aarch64")]
            FloatSet::Neon => neon::peak(),
        }
    })
}
