//! Plain Rust: for processors that there are no kernels for, and the reference for those that there are.

use super::args::Args;
use super::lanes::{Lanes, multiply};
use super::layout::{PackedType, TILE};
use exsa_quant::codebook::SIGNS;
use half::f16;

multiply! {
    /// Multiplies the panel with the tile.
    ///
    /// # Safety
    ///
    /// `args` were made for weights of `kind`.
    pub(super) multiply, Scalar
}

/// Arrays.
pub(super) struct Scalar;

fn map2<A: Copy, B: Copy, T>(a: [A; TILE], b: [B; TILE], f: impl Fn(A, B) -> T) -> [T; TILE] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Two numbers of 16 bits as one of 32, the first in the low half.
fn pair_of(numbers: [i16; 2]) -> i32 {
    i32::from(numbers[0]) & 0xffff | i32::from(numbers[1]) << 16
}

/// The two numbers of [`pair_of`].
fn numbers_of(pair: i32) -> [i16; 2] {
    [pair as i16, (pair >> 16) as i16]
}

impl Lanes for Scalar {
    type Bytes = [u8; 64];
    type Ints = [i32; TILE];
    type Floats = [f32; TILE];
    type Partial = [i32; TILE];
    type Scale = [i32; TILE];
    const SIGNED: bool = false;
    const PARTIAL_MAX: usize = usize::MAX;
    const ROWS: usize = 4;

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

    unsafe fn dot_full(mut sum: [i32; TILE], w: [u8; 64], a: *const i8) -> [i32; TILE] {
        // SAFETY: the caller says that four bytes are there.
        let a = unsafe { a.cast::<[i8; 4]>().read() }.map(i32::from);
        for (sum, w) in sum.iter_mut().zip(w.chunks_exact(4)) {
            for (w, a) in w.iter().zip(a) {
                *sum += i32::from(*w) * a;
            }
        }
        sum
    }

    unsafe fn field<const RIGHT: i32, const LEFT: i32>(bytes: [u8; 64], mask: u8) -> [u8; 64] {
        bytes.map(|byte| byte >> RIGHT << LEFT & mask)
    }

    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    unsafe fn lookup(table: &[u8; 16], bytes: [u8; 64]) -> [u8; 64] {
        bytes.map(|byte| table[usize::from(byte)])
    }

    unsafe fn store(p: *mut u8, bytes: [u8; 64]) {
        // SAFETY: the caller says that there is room for 64 bytes.
        unsafe { p.cast::<[u8; 64]>().write(bytes) }
    }

    unsafe fn unzip(p: *const u8) -> [[u8; 64]; 2] {
        // SAFETY: the caller says that 128 bytes are there.
        let bytes = unsafe { p.cast::<[u8; 128]>().read() };
        [0, 4].map(|half| std::array::from_fn(|i| bytes[i / 4 * 8 + half + i % 4]))
    }

    unsafe fn spread(p: *const u8) -> [u8; 64] {
        // SAFETY: the caller says that 16 bytes are there.
        let bytes = unsafe { p.cast::<[u8; TILE]>().read() };
        std::array::from_fn(|i| bytes[i / 4])
    }

    unsafe fn sign_codes<const SHIFT: i32>(p: *const u8) -> [u8; 64] {
        // SAFETY: the caller says that 64 bytes are there.
        let words = unsafe { p.cast::<[[u8; 4]; TILE]>().read() };
        let codes = words.map(|word| SIGNS[(u32::from_le_bytes(word) >> SHIFT) as usize & 127]);
        std::array::from_fn(|i| codes[i / 4])
    }

    unsafe fn signed<const HALF: usize>(mut bytes: [u8; 64], signs: [u8; 64], offset: u8) -> [u8; 64] {
        for (i, byte) in bytes.iter_mut().enumerate() {
            let negative = signs[i] >> (HALF * 4 + i % 4) & 1 == 1;
            *byte = if negative { offset.wrapping_sub(*byte) } else { offset.wrapping_add(*byte) };
        }
        bytes
    }

    unsafe fn digit(fractions: [u8; 64]) -> [u8; 64] {
        fractions.map(|fraction| ((u16::from(fraction) * 3) >> 8) as u8)
    }

    unsafe fn triple(fractions: [u8; 64]) -> [u8; 64] {
        fractions.map(|fraction| fraction.wrapping_mul(3))
    }

    unsafe fn open(sum: [i32; TILE]) -> [i32; TILE] {
        sum
    }

    unsafe fn partial(sum: [i32; TILE], w: [u8; 64], a: *const i8) -> [i32; TILE] {
        // SAFETY: as promised to this function.
        unsafe { Self::dot_full(sum, w, a) }
    }

    unsafe fn close(_: [i32; TILE], partial: [i32; TILE]) -> [i32; TILE] {
        partial
    }

    unsafe fn close_scaled(sum: [i32; TILE], partial: [i32; TILE], scale: [i32; TILE]) -> [i32; TILE] {
        // SAFETY: no instructions are needed.
        unsafe { Self::mul_add(sum, partial, scale) }
    }

    unsafe fn scales(p: *const u8) -> [i32; TILE] {
        // SAFETY: the caller says that 16 bytes are there.
        unsafe { p.cast::<[u8; TILE]>().read() }.map(i32::from)
    }

    unsafe fn pairs(p: *const u8) -> [i32; TILE] {
        // SAFETY: the caller says that 32 bytes are there.
        unsafe { p.cast::<[[u8; 2]; TILE]>().read() }.map(|pair| pair_of(pair.map(i16::from)))
    }

    unsafe fn signed_pairs(p: *const u8) -> [i32; TILE] {
        // SAFETY: the caller says that 32 bytes are there.
        unsafe { p.cast::<[[i8; 2]; TILE]>().read() }.map(|pair| pair_of(pair.map(i16::from)))
    }

    unsafe fn pair_nibbles(pairs: [i32; TILE], plane: usize) -> [i32; TILE] {
        pairs.map(|pair| pair_of(numbers_of(pair).map(|number| number >> (plane * 4) & 15)))
    }

    unsafe fn of_pairs(pairs: [i32; TILE], which: usize) -> [i32; TILE] {
        pairs.map(|pair| i32::from(numbers_of(pair)[which]))
    }

    unsafe fn ints_of_pairs(pairs: [i32; TILE], which: usize) -> [i32; TILE] {
        // SAFETY: no instructions are needed.
        unsafe { Self::of_pairs(pairs, which) }
    }

    unsafe fn pair_dot(sum: [i32; TILE], pairs: [i32; TILE], a: *const i16) -> [i32; TILE] {
        // SAFETY: the caller says that two numbers are there.
        let a = unsafe { a.cast::<[i16; 2]>().read() };
        map2(sum, pairs, |sum, pair| {
            let pair = numbers_of(pair);
            sum + i32::from(pair[0]) * i32::from(a[0]) + i32::from(pair[1]) * i32::from(a[1])
        })
    }

    unsafe fn splat(value: i32) -> [i32; TILE] {
        [value; TILE]
    }

    unsafe fn mul_add(sum: [i32; TILE], a: [i32; TILE], b: [i32; TILE]) -> [i32; TILE] {
        std::array::from_fn(|i| sum[i] + a[i] * b[i])
    }

    unsafe fn floats(ints: [i32; TILE]) -> [f32; TILE] {
        ints.map(|int| int as f32)
    }

    unsafe fn powers(p: *const u8) -> [f32; TILE] {
        // SAFETY: the caller says that 16 bytes are there.
        unsafe { p.cast::<[u8; TILE]>().read() }.map(|exponent| {
            let exponent = u32::from(exponent);
            f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
        })
    }

    unsafe fn halves(p: *const u8) -> [f32; TILE] {
        // SAFETY: the caller says that 32 bytes are there.
        let bytes = unsafe { p.cast::<[[u8; 2]; TILE]>().read() };
        bytes.map(|bytes| f16::from_le_bytes(bytes).to_f32())
    }

    unsafe fn splat_float(value: f32) -> [f32; TILE] {
        [value; TILE]
    }

    unsafe fn load_floats(p: *const f32) -> [f32; TILE] {
        // SAFETY: the caller says that 16 floats are there.
        unsafe { p.cast::<[f32; TILE]>().read() }
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
