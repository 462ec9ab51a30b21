//! A pair of matrices of an adapter.

use super::{BaseMatrix, BaseModel, RANK_MAX};
use crate::gguf::GgmlType;

/// Supported data types of adapter matrices.
const TYPES: [GgmlType; 4] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];

/// One of the matrices of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// `[rank, columns]`.
    A,
    /// `[rows, rank]`.
    B,
}

/// A matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterTensor {
    /// Type of its values: F32, F16, BF16 or Q8_0.
    pub dtype: GgmlType,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Number of bytes in the file.
    pub bytes: u64,
}

impl AdapterTensor {
    pub(super) fn new(dtype: GgmlType, offset: u64, bytes: u64) -> Self {
        Self { dtype, offset, bytes }
    }
}

/// The adapter of one matrix of the model, which adds `scale · B (A x)` to its output.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdapterPair {
    /// Name of the model's matrix: `blk.0.attn_q.weight`.
    pub weight: String,
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// Columns of the model's matrix and of `A`.
    pub columns: usize,
    /// Rows of the model's matrix and of `B`.
    pub rows: usize,
    /// Properties of the model's matrix.
    pub base: BaseMatrix,
    /// Factor of the product, from the adapter's alpha and rank.
    pub scale: f32,
    /// The matrix `A`.
    pub a: AdapterTensor,
    /// The matrix `B`.
    pub b: AdapterTensor,
    /// Rows per head of `B`, if the halves of each head must be interleaved.
    head_rows: Option<usize>,
}

impl AdapterPair {
    /// The pair for the matrix `weight` of `base`, checked. Shapes are columns, then rows.
    pub(super) fn new(
        weight: &str,
        base: &BaseModel<'_>,
        (a, a_shape): (AdapterTensor, &[u64]),
        (b, b_shape): (AdapterTensor, &[u64]),
    ) -> Result<Self, String> {
        let matrix = (base.matrix)(weight)?;
        for tensor in [a, b] {
            if !TYPES.contains(&tensor.dtype) {
                let known = TYPES.map(GgmlType::name).join(", ");
                return Err(format!("its type is {}, but {known} are allowed", tensor.dtype.name()));
            }
        }
        let rank = b_shape.first().copied().unwrap_or(0);
        if !(1..=RANK_MAX as u64).contains(&rank) {
            return Err(format!("its rank is {rank}, but 1 to {RANK_MAX} is allowed"));
        }
        let expected = matrix.factors(rank);
        if !has_shape(a_shape, &expected[0]) || !has_shape(b_shape, &expected[1]) {
            let dimensions = if matrix.experts > 1 { 3 } else { 2 };
            return Err(format!(
                "the pair has the shapes {a_shape:?} and {b_shape:?}, but this model needs {:?} and {:?}",
                &expected[0][..dimensions],
                &expected[1][..dimensions]
            ));
        }
        let (BaseMatrix { columns, rows, .. }, rank) = (matrix, rank as usize);
        let weight = weight.to_owned();
        Ok(Self { weight, rank, columns, rows, base: matrix, scale: 1.0, a, b, head_rows: None })
    }

    /// Sets the scale, which must be finite.
    pub(super) fn scaled(mut self, scale: f32) -> Result<Self, String> {
        if !scale.is_finite() {
            return Err(format!("its scale is {scale}, but must be finite"));
        }
        self.scale = scale;
        Ok(self)
    }

    /// Interleaves the halves of each of the `heads` heads of `B`, as the converter did with the model's
    /// rows.
    #[cfg(feature = "peft")]
    pub(super) fn interleaved(mut self, heads: usize) -> Self {
        self.head_rows = self.rows.checked_div(heads).filter(|rows| *rows > 1 && rows.is_multiple_of(2));
        self
    }

    /// Shape of one of its matrices, the fastest dimension first.
    pub fn shape(&self, factor: Factor) -> [u64; 3] {
        let [a, b] = self.base.factors(self.rank as u64);
        match factor {
            Factor::A => a,
            Factor::B => b,
        }
    }

    /// One of its matrices.
    pub fn tensor(&self, factor: Factor) -> AdapterTensor {
        match factor {
            Factor::A => self.a,
            Factor::B => self.b,
        }
    }

    /// Refuses values that are not finite.
    pub(super) fn check_values(&self, factor: Factor, bytes: &[u8]) -> Result<(), String> {
        /// Whether all bits of the exponent are set in any value of `N` bytes.
        fn any<const N: usize>(bytes: &[u8], has: impl Fn(&[u8; N]) -> bool) -> bool {
            bytes.as_chunks::<N>().0.iter().any(has)
        }
        let f16 = |bits: [u8; 2]| u16::from_le_bytes(bits) & 0x7c00 == 0x7c00;
        let bad = match self.tensor(factor).dtype {
            GgmlType::F32 => any(bytes, |bits| !f32::from_le_bytes(*bits).is_finite()),
            GgmlType::F16 => any(bytes, |bits| f16(*bits)),
            GgmlType::BF16 => any(bytes, |bits| u16::from_le_bytes(*bits) & 0x7f80 == 0x7f80),
            // A block is an f16 scale and 32 integers.
            _ => any::<34>(bytes, |block| f16([block[0], block[1]])),
        };
        if bad {
            Err(format!("{}: {factor:?} holds values that are not finite", self.weight))
        } else {
            Ok(())
        }
    }

    /// Reorders the rows of `B` to match the model's.
    pub(super) fn order_rows(&self, factor: Factor, bytes: &mut [u8]) {
        let (Factor::B, Some(head_rows)) = (factor, self.head_rows) else { return };
        let row = bytes.len() / self.rows;
        let mut head = Vec::with_capacity(row * head_rows);
        for part in bytes.chunks_exact_mut(row * head_rows) {
            head.clear();
            let (first, second) = part.split_at(part.len() / 2);
            for (first, second) in first.chunks_exact(row).zip(second.chunks_exact(row)) {
                head.extend_from_slice(first);
                head.extend_from_slice(second);
            }
            part.copy_from_slice(&head);
        }
    }
}

/// Whether `shape` is `expected`; dimensions that are missing at its end are 1.
fn has_shape(shape: &[u64], expected: &[u64; 3]) -> bool {
    let len = shape.len().max(expected.len());
    let at = |shape: &[u64], i: usize| shape.get(i).copied().unwrap_or(1);
    (0..len).all(|i| at(shape, i) == at(expected, i))
}
