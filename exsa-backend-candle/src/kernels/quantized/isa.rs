//! Instruction sets that there are kernels for.

use super::args::Args;
use super::layout::Kind;
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx2, avx512};
use super::{lanes, scalar};

/// Instructions that the kernels use. Results are the same with all, to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Scalar,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// The same with AMX tiles for many rows.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with DotProd.
    #[cfg(target_arch = "aarch64")]
    NeonDotProd,
}

impl Isa {
    /// Those that this processor has, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let others = {
            let (avx2, vnni) = avx2::available();
            [
                (avx2, Self::Avx2),
                (vnni, Self::AvxVnni),
                (avx512::available(), Self::Avx512Vnni),
                (amx::available(), Self::Amx),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let others = [(true, Self::Neon), (neon::has_dotprod(), Self::NeonDotProd)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let others: [(bool, Self); 0] = [];
        [Self::Scalar].into_iter().chain(others.into_iter().filter(|(has, _)| *has).map(|(_, isa)| isa))
    }

    /// The best that this processor has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// Multiplies one panel with one tile.
    ///
    /// # Safety
    ///
    /// The processor has these instructions, and `args` are valid for `kind`.
    pub(super) unsafe fn multiply(self, kind: Kind, args: &Args) {
        // SAFETY: passed on.
        unsafe {
            match self {
                Self::Scalar => lanes::tile::<scalar::Scalar>(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2::multiply(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => avx2::multiply_vnni(kind, args),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni | Self::Amx => avx512::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => neon::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Self::NeonDotProd => neon::multiply_dotprod(kind, args),
            }
        }
    }
}
