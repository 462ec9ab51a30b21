//! Packed products against dequantized weights, and all instruction sets against each other.

use super::activations::{ActivationSizes, Activations};
use super::{Isa, PackedMatrix, PackedType, Product, multiply_groups};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::{ExpertRows, MatrixShape};
use exsa_core::gguf::GgmlType;
use half::f16;
use proptest::prelude::*;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Blocks of random quants with scales of a sane size.
    fn weights(&mut self, dtype: GgmlType, n: usize, k: usize) -> Vec<u8> {
        let block = dtype.block_bytes() as usize;
        let mut bytes: Vec<u8> =
            (0..n * k / dtype.block_len() as usize * block).map(|_| self.next() as u8).collect();
        for bytes in bytes.chunks_mut(block) {
            let at: &[usize] = match dtype {
                GgmlType::Mxfp4 => {
                    // From 2^-12 to 2^-5.
                    bytes[0] = 116 + bytes[0] % 8;
                    &[]
                }
                GgmlType::Q6K => &[208],
                GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q4_1 | GgmlType::Q5_1 => &[0, 2],
                GgmlType::Q2K => &[80, 82],
                GgmlType::Q3K => &[108],
                GgmlType::Tq1_0 => &[52],
                GgmlType::Tq2_0 => &[64],
                GgmlType::Iq1M => {
                    // The scale, up to 2^-6, has the highest four bits of each of the last four words.
                    for (i, byte) in [1, 3, 5, 7].into_iter().enumerate() {
                        let nibble = if i == 3 { 1 + bytes[48 + byte] % 2 } else { bytes[48 + byte] % 16 };
                        bytes[48 + byte] = bytes[48 + byte] & 15 | nibble << 4;
                    }
                    &[]
                }
                _ => &[0],
            };
            for at in at {
                bytes[*at..at + 2].copy_from_slice(&f16::from_f32(self.value() * 0.01).to_le_bytes());
            }
        }
        bytes
    }
}

fn dequantized(dtype: GgmlType, bytes: &[u8], n: usize, k: usize) -> Vec<f32> {
    let mut values = vec![0.0; n * k];
    exsa_quant::dequantize(dtype, bytes, &mut values).unwrap();
    values
}

fn product(matrix: &PackedMatrix, isa: Isa, x: &[f32], team: &mut Team) -> Vec<f32> {
    let mut acts = Activations::default();
    matrix.quantize(x, team, &mut acts);
    let mut out = vec![f32::NAN; x.len() / matrix.k * matrix.n];
    matrix.multiply(isa, &mut acts, team, &mut out);
    out
}

/// Root of the mean square.
fn size(values: &[f32]) -> f32 {
    (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_those_of_the_dequantized_weights(
        n in 1..70usize,
        blocks in 1..12usize,
        m in 1..40usize,
        which in 0..PackedType::ALL.len(),
        seed: u64,
    ) {
        let dtype = PackedType::ALL[which].dtype();
        let k = blocks * dtype.block_len() as usize;
        let mut random = Random(seed);
        let bytes = random.weights(dtype, n, k);
        // Whole numbers up to 127, with a 127 in every block, are their own quantization to 8 bits.
        let value = |i: usize, x: u64| if i % 32 == 5 { 127.0 } else { (x % 255) as f32 - 127.0 };
        let x: Vec<f32> = (0..m * k).map(|i| value(i, random.next())).collect();
        let mut team = Team::new(2).unwrap();
        let matrix = PackedMatrix::pack(dtype, &bytes, n, k, &mut team, &mut Arena::default()).unwrap().unwrap();
        let out = product(&matrix, Isa::SCALAR, &x, &mut team);
        let weights = dequantized(dtype, &bytes, n, k);
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact(n)) {
            for (w, out) in weights.chunks_exact(k).zip(out) {
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let error = (terms.clone().sum::<f64>() - f64::from(*out)).abs();
                prop_assert!(error <= terms.map(f64::abs).sum::<f64>() * 1e-6, "{error}");
            }
        }
        let y: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
        let dense: Vec<f32> = y
            .chunks_exact(k)
            .flat_map(|y| weights.chunks_exact(k).map(move |w| w.iter().zip(y).map(|(w, y)| w * y).sum::<f32>()))
            .collect();
        // A sum of k products of about this size has this magnitude; activations of 8 bits have an error of
        // at most 1/254 of a block's greatest value each.
        let scale = size(&weights) * size(&y) * (k as f32).sqrt();
        let error = worst(&product(&matrix, Isa::SCALAR, &y, &mut team), &dense);
        prop_assert!(error <= scale * 0.05, "{error} of {scale}");
    }

    #[test]
    fn all_instruction_sets_agree_to_the_bit(
        n in 1..70usize,
        blocks in 1..12usize,
        m in 1..70usize,
        which in 0..PackedType::ALL.len(),
        extreme: bool,
        seed: u64,
    ) {
        let dtype = PackedType::ALL[which].dtype();
        let k = blocks * dtype.block_len() as usize;
        let mut random = Random(seed);
        let mut bytes = random.weights(dtype, n, k);
        let mut x: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
        if extreme {
            // Sums as great as they get: in f32 alone they would be rounded.
            bytes.iter_mut().for_each(|byte| *byte |= 0x88);
            x.fill(1.0);
            if dtype == GgmlType::Mxfp4 {
                // Exponents from 0 on: the first two make subnormal scales.
                bytes.chunks_mut(dtype.block_bytes() as usize).for_each(|block| block[0] &= 3);
            }
        }
        let mut team = Team::new(2).unwrap();
        let matrix = PackedMatrix::pack(dtype, &bytes, n, k, &mut team, &mut Arena::default()).unwrap().unwrap();
        let expected = bits(&product(&matrix, Isa::SCALAR, &x, &mut team));
        for isa in Isa::available() {
            prop_assert_eq!(bits(&product(&matrix, isa, &x, &mut team)), expected.clone(), "{:?}", isa);
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_batch_on_any_number_of_threads(
        n in 1..50usize,
        m in 1..80usize,
        which in 0..PackedType::ALL.len(),
        seed: u64,
    ) {
        let (dtype, k) = (PackedType::ALL[which].dtype(), 512);
        let mut random = Random(seed);
        let bytes = random.weights(dtype, n, k);
        let x: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
        let (mut one, mut three) = (Team::new(1).unwrap(), Team::new(3).unwrap());
        let matrix = PackedMatrix::pack(dtype, &bytes, n, k, &mut three, &mut Arena::default()).unwrap().unwrap();
        let isa = Isa::detect();
        let together = product(&matrix, isa, &x, &mut three);
        for (x, expected) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
            prop_assert_eq!(bits(&product(&matrix, isa, x, &mut one)), bits(expected));
        }
    }
}

/// A few rows or many for some of the experts, and the rows of `x` that they are.
fn routed(random: &mut Random, experts: usize, x_rows: usize) -> (Vec<ExpertRows>, Vec<u32>) {
    let (mut groups, mut sources) = (Vec::new(), Vec::new());
    for expert in 0..experts {
        let len = [0, 1, 1, 3, 9, 17, 70][random.next() as usize % 7];
        if len > 0 {
            groups.push(ExpertRows { expert, rows: sources.len()..sources.len() + len });
            sources.extend((0..len).map(|_| (random.next() % x_rows as u64) as u32));
        }
    }
    (groups, sources)
}

/// A row of a group is that of a product with the matrix of its expert alone, to the bit, with every
/// instruction set and any number of threads.
#[test]
fn groups_are_multiplied_by_their_experts() {
    let mut random = Random(17);
    for (kind, n, k) in [
        (PackedType::Q8_0, 20, 96),
        (PackedType::Q4_0, 33, 64),
        (PackedType::Q4K, 48, 512),
        (PackedType::Q6K, 7, 256),
        (PackedType::Mxfp4, 40, 128),
    ] {
        let (dtype, experts, x_rows) = (kind.dtype(), 9, 11);
        let shape = MatrixShape { count: experts, rows: n, columns: k };
        let bytes = random.weights(dtype, experts * n, k);
        let x: Vec<f32> = (0..x_rows * k).map(|_| random.value()).collect();
        let (groups, sources) = routed(&mut random, experts, x_rows);
        let (mut team, mut end) = (Team::new(3).unwrap(), 0);
        let done = |part: std::ops::Range<usize>| {
            assert_eq!(part.start, end);
            end = part.end;
            Ok::<_, ()>(())
        };
        let pack = PackedMatrix::pack_by_parts(dtype, &bytes, shape, &mut team, &mut Arena::default(), done);
        let stack = pack.unwrap().unwrap().unwrap();
        assert_eq!(end, bytes.len());
        let alone: Vec<PackedMatrix> = bytes
            .chunks_exact(bytes.len() / experts)
            .map(|bytes| {
                PackedMatrix::pack(dtype, bytes, n, k, &mut team, &mut Arena::default()).unwrap().unwrap()
            })
            .collect();
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut team = Team::new(threads).unwrap();
                let mut acts = Activations::default();
                acts.reserve(&ActivationSizes::grouped(sources.len(), groups.len(), k, kind));
                let reserved = acts.capacity();
                acts.quantize_groups(&x, (k, kind), (&groups, Some(&sources)), &mut team);
                assert_eq!(acts.capacity(), reserved, "the sizes suffice");
                let (mut first, mut second) =
                    (vec![f32::NAN; sources.len() * n], vec![f32::NAN; sources.len() * n]);
                let products =
                    [Some(Product::new(&stack, &mut first)), Some(Product::new(&stack, &mut second))];
                multiply_groups(isa, &products, &groups, &mut acts, &mut team);
                assert_eq!(bits(&first), bits(&second));
                for ExpertRows { expert, rows } in &groups {
                    for row in rows.clone() {
                        let source = sources[row] as usize;
                        let expected = product(&alone[*expert], isa, &x[source * k..][..k], &mut team);
                        assert_eq!(bits(&first[row * n..][..n]), bits(&expected), "{kind:?} {isa:?} {row}");
                    }
                }
            }
        }
        // One token, whose row all of its experts share.
        let groups: Vec<ExpertRows> = [1, 4, 8]
            .into_iter()
            .zip(0..)
            .map(|(expert, row)| ExpertRows { expert, rows: row..row + 1 })
            .collect();
        let (mut acts, mut out) = (Activations::default(), vec![f32::NAN; 3 * n]);
        acts.quantize_groups(&x[..k], (k, kind), (&groups, Some(&[0; 3])), &mut team);
        multiply_groups(
            Isa::detect(),
            &[Some(Product::new(&stack, &mut out))],
            &groups,
            &mut acts,
            &mut team,
        );
        for (group, out) in groups.iter().zip(out.chunks_exact(n)) {
            let expected = product(&alone[group.expert], Isa::detect(), &x[..k], &mut team);
            assert_eq!(bits(out), bits(&expected));
        }
    }
}

/// `scripts/check-isa` sets the variable: an emulator that lacks the instructions must not pass for a check
/// of them.
#[test]
fn the_best_instruction_set_is_the_expected_one() {
    let names: Vec<&str> = Isa::available().map(Isa::name).collect();
    println!("instruction sets: {names:?}");
    assert_eq!(Isa::available().last(), Some(Isa::detect()));
    assert_eq!(Isa::named("scalar"), Some(Isa::SCALAR));
    if let Ok(expected) = std::env::var("EXSA_EXPECTED_ISA") {
        assert_eq!(Isa::named(&expected), Some(Isa::detect()), "{expected} of {names:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_packed() {
    let mut team = Team::new(1).unwrap();
    let mut pack = |dtype, bytes: &[u8], n, k| {
        PackedMatrix::pack(dtype, bytes, n, k, &mut team, &mut Arena::default()).unwrap()
    };
    assert!(pack(GgmlType::F32, &[0; 128], 1, 32).is_none());
    assert!(pack(GgmlType::Q8_0, &[0; 34], 1, 33).is_none());
    assert!(pack(GgmlType::Q8_0, &[0; 33], 1, 32).is_none());
    assert!(pack(GgmlType::Q8_0, &[], 0, 32).is_none());
    assert!(pack(GgmlType::Q8_0, &[0; 34], 1, 32).is_some());
}

#[test]
fn activations_that_are_no_numbers_show_in_the_product() {
    let mut team = Team::new(1).unwrap();
    let matrix = PackedMatrix::pack(GgmlType::Q8_0, &[1; 34 * 2], 1, 64, &mut team, &mut Arena::default())
        .unwrap()
        .unwrap();
    for isa in Isa::available() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 64];
            x[3] = value;
            assert!(product(&matrix, isa, &x, &mut team)[0].is_nan());
        }
        assert!(product(&matrix, isa, &[1e30; 64], &mut team)[0].is_finite());
    }
}
