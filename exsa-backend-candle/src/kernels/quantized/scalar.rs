//! Plain Rust: for processors that there are no kernels for, and the reference for those that there are.

use super::lanes::Lanes;
use super::layout::TILE;
use half::f16;

/// Arrays.
pub(super) struct Scalar;

fn map2<A: Copy, B: Copy, T>(a: [A; TILE], b: [B; TILE], f: impl Fn(A, B) -> T) -> [T; TILE] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Scalar {
    type Bytes = [u8; 64];
    type Ints = [i32; TILE];
    type Floats = [f32; TILE];
    const SIGNED: bool = false;

    unsafe fn bytes(p: *const u8) -> [u8; 64] {
        // SAFETY: the caller says that 64 bytes are there.
        unsafe { p.cast::<[u8; 64]>().read() }
    }

    unsafe fn nibbles(bytes: [u8; 64], plane: usize) -> [u8; 64] {
        bytes.map(|byte| byte >> (plane * 4) & 15)
    }

    unsafe fn add_fifth(mut bytes: [u8; 64], mask: u64) -> [u8; 64] {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte |= ((mask >> i & 1) as u8) << 4;
        }
        bytes
    }

    unsafe fn add_pairs(mut bytes: [u8; 64], high: [u8; 64], shift: usize) -> [u8; 64] {
        for (byte, high) in bytes.iter_mut().zip(high) {
            *byte |= (high >> shift & 3) << 4;
        }
        bytes
    }

    unsafe fn dot(mut sum: [i32; TILE], w: [u8; 64], a: *const i8) -> [i32; TILE] {
        // SAFETY: the caller says that four bytes are there.
        let a = unsafe { a.cast::<[i8; 4]>().read() }.map(i32::from);
        for (sum, w) in sum.iter_mut().zip(w.chunks_exact(4)) {
            for (w, a) in w.iter().zip(a) {
                *sum += i32::from(*w) * a;
            }
        }
        sum
    }

    unsafe fn dot_full(sum: [i32; TILE], w: [u8; 64], a: *const i8) -> [i32; TILE] {
        // SAFETY: as promised to this function.
        unsafe { Self::dot(sum, w, a) }
    }

    unsafe fn splat(value: i32) -> [i32; TILE] {
        [value; TILE]
    }

    unsafe fn mul_add(sum: [i32; TILE], a: [i32; TILE], b: [i32; TILE]) -> [i32; TILE] {
        std::array::from_fn(|i| sum[i] + a[i] * b[i])
    }

    unsafe fn ints(p: &[i32; TILE]) -> [i32; TILE] {
        *p
    }

    unsafe fn floats(ints: [i32; TILE]) -> [f32; TILE] {
        ints.map(|int| int as f32)
    }

    unsafe fn halves(p: *const u8) -> [f32; TILE] {
        // SAFETY: the caller says that 32 bytes are there.
        let bytes = unsafe { p.cast::<[[u8; 2]; TILE]>().read() };
        bytes.map(|bytes| f16::from_le_bytes(bytes).to_f32())
    }

    unsafe fn splat_float(value: f32) -> [f32; TILE] {
        [value; TILE]
    }

    unsafe fn mul(a: [f32; TILE], b: [f32; TILE]) -> [f32; TILE] {
        map2(a, b, |a, b| a * b)
    }

    unsafe fn fma(a: [f32; TILE], b: [f32; TILE], c: [f32; TILE]) -> [f32; TILE] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    unsafe fn fnma(a: [f32; TILE], b: [f32; TILE], c: [f32; TILE]) -> [f32; TILE] {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    unsafe fn array(floats: [f32; TILE]) -> [f32; TILE] {
        floats
    }
}
