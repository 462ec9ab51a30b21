//! The values to which a weight can be rounded, before scaling.

use crate::codebook::IQ4_VALUES;

/// A set of levels; the scale of a block multiplies them.
pub(super) trait Levels: Copy {
    /// The lowest level.
    fn low(self) -> f32;
    /// The highest level.
    fn high(self) -> f32;
    /// The level nearest to `x`; [`low`](Self::low) for a NaN.
    fn nearest(self, x: f32) -> f32;
    /// The code of the level nearest to `x`, as blocks store it.
    fn code(self, x: f32) -> u8;
}

/// All integers from `LOW` to `HIGH`; the code is the distance from `LOW`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Integers<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Levels for Integers<LOW, HIGH> {
    fn low(self) -> f32 {
        LOW as f32
    }

    fn high(self) -> f32 {
        HIGH as f32
    }

    #[inline]
    fn nearest(self, x: f32) -> f32 {
        round(x.max(LOW as f32).min(HIGH as f32))
    }

    #[inline]
    fn code(self, x: f32) -> u8 {
        (self.nearest(x) as i32 - LOW) as u8
    }
}

/// [`IQ4_VALUES`]; the code is the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Iq4Levels;

impl Levels for Iq4Levels {
    fn low(self) -> f32 {
        f32::from(IQ4_VALUES[0])
    }

    fn high(self) -> f32 {
        f32::from(IQ4_VALUES[15])
    }

    #[inline]
    fn nearest(self, x: f32) -> f32 {
        f32::from(IQ4_VALUES[usize::from(self.code(x))])
    }

    #[inline]
    fn code(self, x: f32) -> u8 {
        // NaN is preserved by `clamp`, and becomes index 0.
        IQ4_NEAREST[((2.0 * x).clamp(-256.0, 255.0) + 256.0) as usize & 511]
    }
}

/// Index of the nearest of [`IQ4_VALUES`] by half steps: entry `i` is for numbers from `(i - 256) / 2` to
/// half a step above. The middle between two of the values is a multiple of 1/2, so no entry is ambiguous.
static IQ4_NEAREST: [u8; 512] = {
    let mut nearest = [0; 512];
    let mut i = 0;
    while i < 512 {
        let doubled = i as i32 - 256;
        let mut code = 0;
        while code < 15 && doubled >= IQ4_VALUES[code] as i32 + IQ4_VALUES[code + 1] as i32 {
            code += 1;
        }
        nearest[i] = code as u8;
        i += 1;
    }
    nearest
};

/// The nearest integer, ties to even, of a number below 2^22: the sum leaves no bits for a fraction. Unlike
/// `f32::round_ties_even` it needs no instruction beyond the baseline of x86-64.
#[inline]
pub(super) fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_levels() {
        for i in -2700..2700 {
            let x = i as f32 * 0.05;
            let distance = |level: f32| (level - x).abs();
            let nearest = IQ4_VALUES.iter().map(|value| distance(f32::from(*value))).fold(f32::MAX, f32::min);
            assert_eq!(distance(Iq4Levels.nearest(x)), nearest, "{x}");
            let levels = Integers::<-8, 7>;
            assert_eq!(levels.nearest(x), x.round_ties_even().clamp(-8.0, 7.0));
            assert_eq!(f32::from(levels.code(x)), levels.nearest(x) + 8.0);
        }
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            assert!(Iq4Levels.code(x) < 16);
            assert!(Integers::<0, 3>.code(x) < 4);
        }
    }
}
