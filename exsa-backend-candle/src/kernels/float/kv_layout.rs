//! How keys and values lie in a block in host memory.
//!
//! A block holds the tokens of each head by themselves. The keys lie transposed, in groups of [`GROUP`]
//! tokens: `[tokens / 16][head_dim][16]`, so that a vector register holds one coordinate of many keys and
//! scores need no sums across lanes. The values lie token by token: `[tokens][head_dim]`, with room up to a
//! multiple of 16. What is held in bytes has an f32 scale for every [`SCALED`] coordinates of a token, behind
//! the bytes: `[tokens / 16][head_dim / 32][16]` for keys and `[tokens][head_dim / 32]` for values.

use crate::kernels::simd::{Simd, dispatch};
use crate::shape::BLOCK_TOKENS;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Tokens whose keys lie side by side.
pub(crate) const GROUP: usize = 16;

/// Coordinates of a key or value that share a scale.
pub(crate) const SCALED: usize = 32;

/// Bytes that each part of a block begins at a multiple of.
const ALIGN: usize = 64;

const _: () = assert!(BLOCK_TOKENS.is_multiple_of(GROUP));

/// Element type of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// f32.
    F32,
    /// f16.
    F16,
    /// Bytes, with an f32 scale for every 32.
    Q8,
}

/// Layout of the part of a block that belongs to one head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLayout {
    /// Element type of keys and values.
    pub format: Format,
    /// Coordinates of a key or value.
    pub head_dim: usize,
    key_scales: usize,
    values: usize,
    value_scales: usize,
    /// Bytes in all.
    pub bytes: usize,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Keys.
    Keys,
    /// Values.
    Values,
}

impl Format {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8 => 1,
        }
    }
}

impl HeadLayout {
    /// The layout for heads of `head_dim` coordinates in `format`.
    pub fn new(format: Format, head_dim: usize) -> Self {
        let scales = if format == Format::Q8 { BLOCK_TOKENS * head_dim.div_ceil(SCALED) * 4 } else { 0 };
        let scales = scales.next_multiple_of(ALIGN);
        let key_scales = (BLOCK_TOKENS * head_dim * format.bytes()).next_multiple_of(ALIGN);
        let values = key_scales + scales;
        let padded = head_dim.next_multiple_of(GROUP);
        let value_scales = values + (BLOCK_TOKENS * padded * format.bytes()).next_multiple_of(ALIGN);
        Self { format, head_dim, key_scales, values, value_scales, bytes: value_scales + scales }
    }

    /// Room for a value, in numbers.
    pub fn value_room(&self) -> usize {
        self.head_dim.next_multiple_of(GROUP)
    }

    /// Scales of a key or value.
    pub fn scales(&self) -> usize {
        self.head_dim.div_ceil(SCALED)
    }

    /// Byte that the keys' scales begin at; the keys begin at 0.
    pub fn key_scales(&self) -> usize {
        self.key_scales
    }

    /// Byte that the values begin at.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Byte that the values' scales begin at.
    pub fn value_scales(&self) -> usize {
        self.value_scales
    }

    /// Byte of coordinate `i` of a token.
    fn number(&self, part: Part, token: usize, i: usize) -> usize {
        let bytes = self.format.bytes();
        match part {
            Part::Keys => ((token / GROUP * self.head_dim + i) * GROUP + token % GROUP) * bytes,
            Part::Values => self.values + (token * self.value_room() + i) * bytes,
        }
    }

    /// Byte of scale `i` of a token.
    fn scale(&self, part: Part, token: usize, i: usize) -> usize {
        match part {
            Part::Keys => self.key_scales + ((token / GROUP * self.scales() + i) * GROUP + token % GROUP) * 4,
            Part::Values => self.value_scales + (token * self.scales() + i) * 4,
        }
    }

    /// Calls `visit` with the bytes that make up the key or value of a token, in the order in which they are
    /// saved: begin and number of each run of them. The numbers follow each other; in front of every 32 bytes
    /// comes their scale.
    pub fn visit(&self, part: Part, token: usize, mut visit: impl FnMut(usize, usize)) {
        for i in 0..self.head_dim {
            if self.format == Format::Q8 && i % SCALED == 0 {
                visit(self.scale(part, token, i / SCALED), 4);
            }
            visit(self.number(part, token, i), self.format.bytes());
        }
    }

    /// Bytes of a key, or value, where it is saved.
    pub fn saved_bytes(&self) -> usize {
        let scales = if self.format == Format::Q8 { self.scales() * 4 } else { 0 };
        self.head_dim * self.format.bytes() + scales
    }

    /// Writes the key and the value of a token.
    ///
    /// # Safety
    ///
    /// `head` points to `self.bytes` bytes, aligned to 4, in which nobody else uses this token's; `token` is
    /// below [`BLOCK_TOKENS`].
    pub unsafe fn write(&self, head: *mut u8, token: usize, key: &[f32], value: &[f32]) {
        assert!(key.len() == self.head_dim && value.len() == self.head_dim && token < BLOCK_TOKENS);
        let keys = head.wrapping_add(self.number(Part::Keys, token, 0));
        let values = head.wrapping_add(self.number(Part::Values, token, 0));
        match self.format {
            // SAFETY: the numbers of a token lie within the part, at these distances.
            Format::F32 => unsafe {
                let keys = keys.cast::<f32>();
                for (i, x) in key.iter().enumerate() {
                    *keys.add(i * GROUP) = *x;
                }
                values.cast::<f32>().copy_from_nonoverlapping(value.as_ptr(), value.len());
            },
            Format::F16 => {
                let (keys, values) = (keys.cast::<f16>(), values.cast::<f16>());
                let mut halves = [f16::ZERO; GROUP];
                for (c, (key, value)) in key.chunks(GROUP).zip(value.chunks(GROUP)).enumerate() {
                    let halves = &mut halves[..key.len()];
                    halves.convert_from_f32_slice(key);
                    for (i, x) in halves.iter().enumerate() {
                        // SAFETY: as above.
                        unsafe { *keys.add((c * GROUP + i) * GROUP) = *x };
                    }
                    halves.convert_from_f32_slice(value);
                    // SAFETY: as above.
                    unsafe { values.add(c * GROUP).copy_from_nonoverlapping(halves.as_ptr(), halves.len()) };
                }
            }
            Format::Q8 => {
                for (c, (key, value)) in key.chunks(SCALED).zip(value.chunks(SCALED)).enumerate() {
                    let mut bytes = [0i8; SCALED];
                    let mut scale = 0.0;
                    let mut put = |part, x: &[f32], start: *mut u8, distance: usize| {
                        quantize(x, &mut bytes, &mut scale);
                        for (i, q) in bytes[..x.len()].iter().enumerate() {
                            // SAFETY: as above.
                            unsafe { *start.cast::<i8>().add((c * SCALED + i) * distance) = *q };
                        }
                        let at = head.wrapping_add(self.scale(part, token, c)).cast::<f32>();
                        // SAFETY: as above, and scales are aligned as `head` is.
                        unsafe { *at = scale };
                    };
                    put(Part::Keys, key, keys, GROUP);
                    put(Part::Values, value, values, 1);
                }
            }
        }
    }
}

dispatch! {
    /// Up to 32 values as bytes times a scale. The scale is not a number if one of the values is none.
    quantize = quantize_body(values: &[f32], bytes: &mut [i8; SCALED], scale: &mut f32)
}

#[inline(always)]
fn quantize_body<S: Simd>(values: &[f32], bytes: &mut [i8; SCALED], scale: &mut f32) {
    let (mut largest, mut poison) = (0.0f32, 0.0f32);
    for x in values {
        largest = largest.max(x.abs());
        poison += x * 0.0;
    }
    *scale = largest / 127.0 + poison;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (q, x) in bytes.iter_mut().zip(values) {
        *q = (x * inverse).round_ties_even() as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(layout: &HeadLayout, bytes: &[u8], part: Part, token: usize, i: usize) -> f32 {
        let (at, scale) = (layout.number(part, token, i), layout.scale(part, token, i / SCALED));
        let f32_at = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        match layout.format {
            Format::F32 => f32_at(at),
            Format::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Format::Q8 => f32::from(bytes[at] as i8) * f32_at(scale),
        }
    }

    #[test]
    fn what_is_written_is_there_and_nothing_overlaps() {
        for format in [Format::F32, Format::F16, Format::Q8] {
            for head_dim in [2, 16, 40, 64, 80] {
                let layout = HeadLayout::new(format, head_dim);
                let mut words = vec![0u64; layout.bytes / 8];
                let head = words.as_mut_ptr().cast::<u8>();
                let value = |token: usize, i: usize| ((token * 31 + i * 7) % 61) as f32 - 30.0;
                for token in 0..BLOCK_TOKENS {
                    let key: Vec<f32> = (0..head_dim).map(|i| value(token, i)).collect();
                    let negative: Vec<f32> = key.iter().map(|x| -x).collect();
                    // SAFETY: the block is as large as the layout says.
                    unsafe { layout.write(head, token, &key, &negative) };
                }
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let mut seen = vec![false; layout.bytes];
                for token in 0..BLOCK_TOKENS {
                    for i in 0..head_dim {
                        let key = number(&layout, &bytes, Part::Keys, token, i);
                        assert!((key - value(token, i)).abs() < 0.15, "{format:?} {head_dim}");
                        assert_eq!(-key, number(&layout, &bytes, Part::Values, token, i));
                    }
                    for part in [Part::Keys, Part::Values] {
                        let mut saved = 0;
                        layout.visit(part, token, |at, len| {
                            saved += len;
                            seen[at..at + len].iter_mut().for_each(|seen| {
                                assert!(!*seen);
                                *seen = true;
                            });
                        });
                        assert_eq!(saved, layout.saved_bytes());
                    }
                }
            }
        }
    }
}
