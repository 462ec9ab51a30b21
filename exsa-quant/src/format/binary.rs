//! Q1_0, a sign per value and a scale per 128, and Q2_0, the values -1 to 2 and a scale per 64; the bits of
//! successive values start at the lowest bit of each byte.

use super::f16_at;

pub(crate) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        *out = if block[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
    }
}

pub(crate) fn q2_0(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = f16_at(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let q = block[2 + i / 4] >> (i % 4 * 2) & 3;
        *out = (f32::from(q) - 1.0) * d;
    }
}
