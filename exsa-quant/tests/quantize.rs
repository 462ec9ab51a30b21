//! Quantized rows: their error compared to ggml's quantizer, exactly representable values, and refused input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::gguf::GgmlType;
use exsa_quant::{QuantError, can_quantize, dequantize, quantize};
use proptest::prelude::*;

mod support;
use support::{SplitMix64, every_type, importance, relative_error};

fn round_trip(dtype: GgmlType, values: &[f32], columns: usize, importance: Option<&[f32]>) -> Vec<f32> {
    let mut blocks = Vec::new();
    quantize(dtype, values, columns, importance, &mut blocks).unwrap();
    assert_eq!(blocks.len() as u64, values.len() as u64 / dtype.block_len() * dtype.block_bytes());
    let mut found = vec![0.0; values.len()];
    dequantize(dtype, &blocks, &mut found).unwrap();
    found
}

/// `data/ggml_errors.txt` has the errors of ggml's quantizer on the same values, without and with importance
/// (`examples/errors.rs --reference`).
#[test]
fn errors_are_at_most_those_of_ggml() {
    let values = SplitMix64::new(1).bell_values(64 * 1024);
    let importance = importance(1024);
    for line in include_str!("data/ggml_errors.txt").lines() {
        let [name, plain, weighted] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let dtype = every_type().find(|dtype| dtype.name() == name).unwrap();
        for (importance, reference) in [(None, plain), (Some(&importance[..]), weighted)] {
            let found = round_trip(dtype, &values, 1024, importance);
            let error = relative_error(&values, &found, 1024, importance);
            let reference: f64 = reference.parse().unwrap();
            assert!(
                error <= reference,
                "{name}, importance {}: {error:e}, ggml {reference:e}",
                importance.is_some()
            );
        }
    }
}

#[test]
fn importance_lowers_the_weighted_error() {
    let values = SplitMix64::new(2).bell_values(16 * 1024);
    let importance = importance(512);
    for dtype in every_type().filter(|dtype| can_quantize(*dtype) && dtype.block_len() > 1) {
        let error = |used| {
            let found = round_trip(dtype, &values, 512, used);
            relative_error(&values, &found, 512, Some(&importance))
        };
        let (with, without) = (error(Some(&importance[..])), error(None));
        // A sign leaves no choice, and with few exponents most are already optimal.
        let slack = if dtype == GgmlType::Mxfp4 { 1.001 } else { 1.0 };
        assert!(with < without * slack, "{dtype}: {with:e} with, {without:e} without");
    }
}

#[test]
fn values_that_a_type_has_are_exact() {
    let mut random = SplitMix64::new(3);
    let mut ternary = |columns: usize| -> Vec<f32> {
        (0..columns).map(|_| (random.next() % 3) as f32 * 0.25 - 0.25).collect()
    };
    let row = ternary(512);
    for dtype in [GgmlType::Tq1_0, GgmlType::Tq2_0, GgmlType::Q2_0, GgmlType::Mxfp4] {
        assert_eq!(round_trip(dtype, &row, 512, None), row, "{dtype}");
    }
    for dtype in every_type().filter(|dtype| can_quantize(*dtype)) {
        let zeros = vec![0.0; 512];
        assert_eq!(round_trip(dtype, &zeros, 512, None), zeros, "{dtype}");
    }
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        assert_eq!(round_trip(dtype, &[1.5, -0.25, f32::INFINITY], 3, None), [1.5, -0.25, f32::INFINITY]);
    }
    // A constant row is exact where a minimum can hold it.
    for dtype in [GgmlType::Q4_1, GgmlType::Q5_1] {
        for constant in [0.5, -0.5] {
            let row = vec![constant; 64];
            assert_eq!(round_trip(dtype, &row, 64, None), row, "{dtype} {constant}");
        }
    }
}

#[test]
fn rows_are_independent() {
    let values = SplitMix64::new(4).bell_values(1024);
    let importance = importance(256);
    for dtype in every_type().filter(|dtype| can_quantize(*dtype)) {
        let mut whole = b"kept".to_vec();
        quantize(dtype, &values, 256, Some(&importance), &mut whole).unwrap();
        let mut rows = b"kept".to_vec();
        for row in values.chunks_exact(256) {
            quantize(dtype, row, 256, Some(&importance), &mut rows).unwrap();
        }
        assert!(whole == rows, "{dtype}");
    }
}

#[test]
fn input_is_checked() {
    let mut out = vec![1];
    let mut refused = |dtype, values: &[f32], columns, importance: Option<&[f32]>| {
        quantize(dtype, values, columns, importance, &mut out).unwrap_err()
    };
    assert_eq!(refused(GgmlType::Q8K, &[0.0; 256], 256, None), QuantError::NotQuantizable(GgmlType::Q8K));
    let partial = refused(GgmlType::Q4K, &[0.0; 128], 128, None);
    assert_eq!(partial, QuantError::PartialBlock { dtype: GgmlType::Q4K, values: 128 });
    let partial = refused(GgmlType::Q8_0, &[0.0; 65], 64, None);
    assert_eq!(partial.to_string(), "65 values are not whole rows of 64 columns");
    assert!(matches!(refused(GgmlType::Q8_0, &[], 0, None), QuantError::PartialRow { .. }));
    let mut values = vec![0.0; 64];
    values[33] = f32::NAN;
    let found = refused(GgmlType::Q8_0, &values, 32, None);
    assert_eq!(found.to_string(), "row 1, column 1 is NaN; finite values are allowed");
    let found = refused(GgmlType::Q8_0, &[0.0; 32], 32, Some(&[1.0; 31]));
    assert_eq!(found.to_string(), "importance: it has 31 numbers, but there are 32 columns");
    let found = refused(GgmlType::Q8_0, &[0.0; 32], 32, Some(&[-1.0; 32]));
    assert_eq!(found.to_string(), "importance: column 0 has -1; finite numbers of at least 0 are allowed");
    assert_eq!(out, [1], "nothing was appended");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Any finite values, of any magnitude, and any importance give whole blocks of finite values.
    #[test]
    fn finite_values_stay_finite(
        bits in prop::collection::vec(any::<u32>(), 512),
        seed in any::<u64>(),
        zero in any::<bool>(),
    ) {
        let finite = |bits: u32| f32::from_bits(bits & if bits >> 23 & 0xff == 0xff { 0xbfff_ffff } else { !0 });
        let values: Vec<f32> = bits.into_iter().map(finite).collect();
        let mut random = SplitMix64::new(seed);
        let scale = if zero { 0.0 } else { 1e30 };
        let importance: Vec<f32> = (0..256).map(|_| random.uniform() as f32 * scale).collect();
        for dtype in every_type().filter(|dtype| can_quantize(*dtype) && dtype.block_len() > 1) {
            let found = round_trip(dtype, &values, 256, Some(&importance));
            prop_assert!(found.iter().all(|x| x.is_finite()), "{dtype}");
        }
    }

    /// Values of usual magnitudes keep most of their energy.
    #[test]
    fn errors_are_bounded(seed in any::<u64>(), exponent in -6i32..4, offset in -1.0f32..1.0) {
        let factor = 10f32.powi(exponent);
        let values = SplitMix64::new(seed).bell_values(512);
        let values: Vec<f32> = values.iter().map(|x| (x + offset) * factor).collect();
        for dtype in every_type().filter(|dtype| can_quantize(*dtype) && dtype.block_len() > 1) {
            let bits = 8.0 * dtype.block_bytes() as f64 / dtype.block_len() as f64;
            // A bit halves the error's amplitude. Scales of f16 have fewer bits below 6e-5, those of NVFP4
            // below 0.016, and end at 448.
            let reach = if dtype == GgmlType::Nvfp4 { -1..2 } else { -3..4 };
            let beyond = if reach.contains(&exponent) { 0.0 } else { 2.0 };
            let bound = (8.0 * 4f64.powf(-(bits - 0.6))).min(0.85) + beyond;
            let found = round_trip(dtype, &values, 256, None);
            let error = relative_error(&values, &found, 256, None);
            prop_assert!(error < bound, "{dtype}: {error} of at most {bound}");
        }
    }
}
