//! Products against f64, and all instruction sets, batches and teams against each other.

use super::kernel::BLOCK;
use super::{
    FloatActivations, FloatMatrix, FloatProduct, FloatSizes, FloatType, multiply_float_groups,
    multiply_floats,
};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::Isa;
use crate::kernels::{ExpertRows, MatrixShape};
use exsa_core::gguf::GgmlType;
use half::{bf16, f16};
use proptest::prelude::*;

const TYPES: [GgmlType; 3] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];

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

    /// From -1 to 1, of sizes that differ.
    fn value(&mut self) -> f32 {
        let value = (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        value * f32::powi(2.0, -((self.next() % 12) as i32))
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

/// Weights as in a file, and their values.
fn encode(dtype: GgmlType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        GgmlType::F16 => {
            let values: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (bytes, values.into_iter().map(f32::from).collect())
        }
        GgmlType::BF16 => {
            let values: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (bytes, values.into_iter().map(f32::from).collect())
        }
        _ => (values.iter().flat_map(|value| value.to_le_bytes()).collect(), values.to_vec()),
    }
}

fn packed(dtype: GgmlType, bytes: &[u8], n: usize, k: usize, team: &mut Team) -> Option<FloatMatrix> {
    FloatMatrix::pack(dtype, bytes, n, k, team, &mut Arena::default()).unwrap()
}

fn product(matrix: &FloatMatrix, isa: Isa, x: &[f32], team: &mut Team) -> Vec<f32> {
    let mut acts = FloatActivations::default();
    acts.fill(x, matrix.k, isa, team);
    let mut out = vec![f32::NAN; x.len() / matrix.k * matrix.n];
    multiply_floats(isa, &[Some(FloatProduct::new(matrix, &mut out))], &mut acts, team);
    out
}

/// The definition of the arithmetic: sums of blocks in the order of `k`.
fn reference(x: &[f32], weights: &[f32]) -> f32 {
    let mut total = None;
    for (x, weights) in x.chunks(BLOCK).zip(weights.chunks(BLOCK)) {
        let sum = x.iter().zip(weights).fold(0.0f32, |sum, (x, w)| x.mul_add(*w, sum));
        total = Some(total.map_or(sum, |total| total + sum));
    }
    total.unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_have_the_defined_bits_and_are_near_the_exact_ones(
        n in 1..150usize,
        k in prop_oneof![1..40usize, 240..300usize, 500..1100usize],
        m in 1..40usize,
        which in 0..3usize,
        seed: u64,
    ) {
        let (mut random, mut team) = (Random(seed), Team::new(2).unwrap());
        let (bytes, weights) = encode(TYPES[which], &random.values(n * k));
        let x = random.values(m * k);
        let matrix = packed(TYPES[which], &bytes, n, k, &mut team).unwrap();
        let mut expected = Vec::new();
        for x in x.chunks_exact(k) {
            for weights in weights.chunks_exact(k) {
                let sum = reference(x, weights);
                let terms = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let error = (terms.clone().sum::<f64>() - f64::from(sum)).abs();
                prop_assert!(error <= terms.map(f64::abs).sum::<f64>() * 2e-6, "{error}");
                expected.push(sum);
            }
        }
        for isa in Isa::available() {
            prop_assert_eq!(bits(&product(&matrix, isa, &x, &mut team)), bits(&expected), "{:?}", isa);
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_batch_on_any_number_of_threads(
        n in 1..90usize,
        m in 1..80usize,
        which in 0..3usize,
        seed: u64,
    ) {
        let (k, mut random) = (600, Random(seed));
        let (mut one, mut three) = (Team::new(1).unwrap(), Team::new(3).unwrap());
        let (bytes, _) = encode(TYPES[which], &random.values(n * k));
        let x = random.values(m * k);
        let matrix = packed(TYPES[which], &bytes, n, k, &mut three).unwrap();
        let isa = Isa::detect();
        let together = product(&matrix, isa, &x, &mut three);
        for (x, expected) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
            prop_assert_eq!(bits(&product(&matrix, isa, x, &mut one)), bits(expected));
        }
    }

    #[test]
    fn products_of_several_matrices_are_those_of_each(
        sizes in proptest::array::uniform3((1..60usize, 0..3usize)),
        m in 1..30usize,
        seed: u64,
    ) {
        let (k, mut random, mut team) = (300, Random(seed), Team::new(2).unwrap());
        let x = random.values(m * k);
        let matrices = sizes.map(|(n, which)| {
            let (bytes, _) = encode(TYPES[which], &random.values(n * k));
            packed(TYPES[which], &bytes, n, k, &mut team).unwrap()
        });
        let isa = Isa::detect();
        let mut outputs = sizes.map(|(n, _)| vec![f32::NAN; m * n]);
        let mut acts = FloatActivations::default();
        acts.fill(&x, k, isa, &mut team);
        let [a, b, c] = outputs.each_mut();
        let products = [(0, a), (1, b), (2, c)].map(|(i, out)| Some(FloatProduct::new(&matrices[i], out)));
        multiply_floats(isa, &products, &mut acts, &mut team);
        for (matrix, out) in matrices.iter().zip(&outputs) {
            prop_assert_eq!(bits(&product(matrix, isa, &x, &mut team)), bits(out));
        }
    }
}

/// Every number of rows up to several panels, with tiles that kernels take together, alone and in part.
#[test]
fn every_kernel_of_every_instruction_set() {
    let (k, n, mut random, mut team) = (BLOCK + 7, 16 * 5 + 3, Random(5), Team::new(1).unwrap());
    for dtype in TYPES {
        let (bytes, weights) = encode(dtype, &random.values(n * k));
        let matrix = packed(dtype, &bytes, n, k, &mut team).unwrap();
        for m in 1..28 {
            let x = random.values(m * k);
            let expected: Vec<f32> = x
                .chunks_exact(k)
                .flat_map(|x| weights.chunks_exact(k).map(|weights| reference(x, weights)))
                .collect();
            for isa in Isa::available() {
                let out = product(&matrix, isa, &x, &mut team);
                assert_eq!(bits(&out), bits(&expected), "{dtype}, {m} rows, {isa:?}");
            }
        }
    }
}

/// All finite values of both half types are exact in f32, subnormal ones too.
#[test]
fn every_half_has_its_value() {
    let mut team = Team::new(1).unwrap();
    let every: Vec<u16> = (0..=u16::MAX).collect();
    let bytes: Vec<u8> = every.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    for dtype in [GgmlType::F16, GgmlType::BF16] {
        let matrix = packed(dtype, &bytes, every.len(), 1, &mut team).unwrap();
        for isa in Isa::available() {
            for m in [1, 30] {
                let out = product(&matrix, isa, &vec![1.0; m], &mut team);
                for (bits, out) in every.iter().zip(&out) {
                    let value = match dtype {
                        GgmlType::F16 => f16::from_bits(*bits).to_f32(),
                        _ => bf16::from_bits(*bits).to_f32(),
                    };
                    assert!(*out == value || out.is_nan() && value.is_nan(), "{dtype} {bits:x} {isa:?}");
                }
            }
        }
    }
}

#[test]
fn activations_that_are_no_numbers_show_in_the_product() {
    let mut team = Team::new(1).unwrap();
    let (bytes, _) = encode(GgmlType::F16, &[0.5; 64]);
    let matrix = packed(GgmlType::F16, &bytes, 1, 64, &mut team).unwrap();
    for isa in Isa::available() {
        let mut x = vec![1.0; 128];
        x[64 + 3] = f32::NAN;
        let out = product(&matrix, isa, &x, &mut team);
        assert!(out[0] == 32.0 && out[1].is_nan());
    }
}

#[test]
fn weights_that_do_not_fit_are_not_packed() {
    let mut team = Team::new(1).unwrap();
    let mut fits = |dtype, bytes: &[u8], n, k| packed(dtype, bytes, n, k, &mut team).is_some();
    assert!(fits(GgmlType::F32, &[0; 128], 2, 16));
    assert!(fits(GgmlType::BF16, &[0; 6], 3, 1));
    assert!(!fits(GgmlType::F32, &[0; 127], 2, 16));
    assert!(!fits(GgmlType::F16, &[], 0, 16));
    assert!(!fits(GgmlType::F16, &[0; 4], usize::MAX, 4));
    assert!(!fits(GgmlType::Q8_0, &[0; 34], 1, 32));
}

#[test]
fn parts_cover_the_bytes_and_packing_can_be_ended() {
    let (n, k, mut team) = (9000, 1024, Team::new(2).unwrap());
    let bytes = vec![1; n * k * 4];
    let shape = MatrixShape::one(n, k);
    let mut end = 0;
    let done = |part: std::ops::Range<usize>| {
        assert_eq!(part.start, end);
        end = part.end;
        Ok::<_, ()>(())
    };
    let memory = &mut Arena::default();
    let matrix = FloatMatrix::pack_by_parts(GgmlType::F32, &bytes, shape, &mut team, memory, done);
    let matrix = matrix.unwrap().unwrap().unwrap();
    assert_eq!(end, bytes.len());
    assert_eq!(matrix.bytes().len(), FloatMatrix::packed_bytes(FloatType::F32, shape));
    let ended = FloatMatrix::pack_by_parts(GgmlType::F32, &bytes, shape, &mut team, memory, |_| Err(7));
    assert_eq!(ended.unwrap().unwrap().err(), Some(7));
}

/// A row of a group is that of a product with the matrix of its expert alone, to the bit.
#[test]
fn groups_are_multiplied_by_their_experts() {
    let mut random = Random(5);
    for (dtype, n, k) in [(GgmlType::F32, 20, 300), (GgmlType::F16, 16, 40), (GgmlType::BF16, 35, 513)] {
        let (experts, x_rows) = (6, 9);
        let (bytes, _) = encode(dtype, &random.values(experts * n * k));
        let x = random.values(x_rows * k);
        let (mut groups, mut sources) = (Vec::new(), Vec::new());
        for (expert, len) in [(0, 1), (2, 50), (3, 2), (5, 13)] {
            groups.push(ExpertRows { expert, rows: sources.len()..sources.len() + len });
            sources.extend((0..len).map(|_| (random.next() % x_rows as u64) as u32));
        }
        let shape = MatrixShape { count: experts, rows: n, columns: k };
        let (done, memory) = (|_| Ok::<_, ()>(()), &mut Arena::default());
        let mut team = Team::new(2).unwrap();
        let stack = FloatMatrix::pack_by_parts(dtype, &bytes, shape, &mut team, memory, done);
        let stack = stack.unwrap().unwrap().unwrap();
        let alone: Vec<FloatMatrix> = bytes
            .chunks_exact(bytes.len() / experts)
            .map(|bytes| packed(dtype, bytes, n, k, &mut team).unwrap())
            .collect();
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut team = Team::new(threads).unwrap();
                let mut acts = FloatActivations::default();
                acts.reserve(&FloatSizes::grouped(sources.len(), groups.len(), k, stack.kind, isa));
                let mut out = vec![f32::NAN; sources.len() * n];
                acts.fill_groups(&x, k, (&groups, Some(&sources)), isa, &mut team);
                let products = [Some(FloatProduct::new(&stack, &mut out))];
                multiply_float_groups(isa, &products, &groups, &mut acts, &mut team);
                let sizes = FloatSizes::grouped(sources.len(), groups.len(), k, stack.kind, isa);
                assert!(acts.bytes() <= sizes.bytes(threads), "the sizes suffice");
                for ExpertRows { expert, rows } in &groups {
                    for row in rows.clone() {
                        let source = sources[row] as usize;
                        let expected = product(&alone[*expert], isa, &x[source * k..][..k], &mut team);
                        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&out[row * n..][..n]), bits(&expected), "{dtype} {isa:?} {row}");
                    }
                }
            }
        }
    }
}

#[test]
fn sizes_are_those_of_the_memory() {
    let (isa, k) = (Isa::detect(), 300);
    for (dtype, m) in [(GgmlType::F16, 3), (GgmlType::F16, 50), (GgmlType::F32, 50)] {
        let mut team = Team::new(2).unwrap();
        let (bytes, _) = encode(dtype, &vec![1.0; 20 * k]);
        let matrix = packed(dtype, &bytes, 20, k, &mut team).unwrap();
        let mut acts = FloatActivations::default();
        acts.fill(&vec![1.0; m * k], k, isa, &mut team);
        multiply_floats(
            isa,
            &[Some(FloatProduct::new(&matrix, &mut vec![0.0; m * 20]))],
            &mut acts,
            &mut team,
        );
        let sizes = FloatSizes::new(m, k, matrix.kind, isa);
        assert_eq!(acts.bytes(), sizes.bytes(2), "{dtype}, {m} rows");
    }
}
