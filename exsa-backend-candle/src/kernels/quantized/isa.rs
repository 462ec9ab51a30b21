//! Instruction sets of the kernels, as a proof that the processor has them.

use super::args::Args;
use super::layout::PackedType;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx2, avx512};
use crate::kernels::float::packed::FloatSet;

/// An instruction set that this processor has. Results are the same with all of them, to the bit.
///
/// A value is a proof: [`available`](Self::available) makes the only ones, after it asked the processor. Safe
/// functions that take an `Isa` rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

/// Instruction sets with kernels. Private, so that no other module makes an [`Isa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// Plain Rust.
    Scalar,
    /// AVX2 with FMA and F16C.
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
    /// Plain Rust, which every processor runs.
    pub const SCALAR: Self = Self(Set::Scalar);

    /// Instruction sets of this processor, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let others = {
            let (avx2, vnni) = avx2::available();
            [
                (avx2, Set::Avx2),
                (vnni, Set::AvxVnni),
                (avx512::available(), Set::Avx512Vnni),
                (amx::available(), Set::Amx),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let others = [(true, Set::Neon), (neon::has_dotprod(), Set::NeonDotProd)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let others: [(bool, Set); 0] = [];
        let others = others.into_iter().filter(|(has, _)| *has).map(|(_, set)| Self(set));
        [Self::SCALAR].into_iter().chain(others)
    }

    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::SCALAR)
    }

    /// Its name, as options of programs have it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Set::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Set::NeonDotProd => "neon-dotprod",
        }
    }

    /// The instruction set called `name`; `None` if this processor lacks it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().find(|isa| isa.name() == name)
    }

    /// Whether AMX tiles are part of it.
    #[cfg(target_arch = "x86_64")]
    pub fn has_amx(self) -> bool {
        self.0 == Set::Amx
    }

    /// Kernels of float weights that this processor has with it.
    pub(crate) fn floats(self) -> FloatSet {
        match self.0 {
            Set::Scalar => FloatSet::Plain,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 | Set::AvxVnni => FloatSet::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni | Set::Amx => FloatSet::Avx512,
            #[cfg(target_arch = "aarch64")]
            Set::Neon | Set::NeonDotProd => FloatSet::Neon,
        }
    }

    /// Multiplies one panel with one tile.
    ///
    /// # Safety
    ///
    /// `args` were made for weights of `kind`, and their contract holds.
    pub(super) unsafe fn multiply(self, kind: PackedType, args: &Args) {
        // SAFETY: the processor has the instructions, by the token; the rest is passed on.
        unsafe {
            match self.0 {
                Set::Scalar => scalar::multiply(kind, args),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => avx2::multiply(kind, args),
                #[cfg(target_arch = "x86_64")]
                Set::AvxVnni => avx2::multiply_vnni(kind, args),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512Vnni | Set::Amx => avx512::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Set::Neon => neon::multiply(kind, args),
                #[cfg(target_arch = "aarch64")]
                Set::NeonDotProd => neon::multiply_dotprod(kind, args),
            }
        }
    }
}
