//! Memory that a thread works in beside registers, kept between products.

#[cfg(target_arch = "x86_64")]
pub use tiles::{Line, Scratch, Sums};

/// No kernel needs any.
#[cfg(not(target_arch = "x86_64"))]
pub type Scratch = ();

/// Bytes of the scratch memory of one thread.
#[cfg(not(target_arch = "x86_64"))]
pub fn scratch_bytes() -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
mod tiles {
    use crate::kernels::quantized::layout::TILE;

    #[repr(C, align(64))]
    #[derive(Clone, Copy, Debug)]
    pub struct Line(pub [u8; 64]);

    /// Scratch memory of a thread, sized once.
    #[derive(Debug)]
    pub struct Scratch {
        pub unpacked: Vec<Line>,
        /// `[tile of the group][row][16]` f32.
        pub sums: Vec<Line>,
        pub ints: Box<[Sums; 2]>,
    }

    /// Integer sums as tile registers leave them, four times `[16, 16]`.
    #[derive(Debug)]
    #[repr(C, align(64))]
    pub struct Sums(pub [[i32; TILE * TILE]; 4]);

    impl Default for Sums {
        fn default() -> Self {
            Self([[0; TILE * TILE]; 4])
        }
    }
}
