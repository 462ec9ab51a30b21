//! An entry of the tensor directory.

use super::GgmlType;

/// Name, shape, type and location of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name: `blk.0.attn_q.weight`.
    pub name: String,
    /// One to four dimensions in the order of the file, the fastest-varying first: a matrix of `r` rows and
    /// `c` columns has `[c, r]`. None is 0.
    pub shape: Vec<u64>,
    /// Type of the elements.
    pub dtype: GgmlType,
    /// Offset of its data, in bytes from the start of its file.
    pub offset: u64,
    /// Length of its data in bytes; all of it lies in the file.
    pub bytes: u64,
    /// Number of its file, from 0 on: other than 0 only in a model of several files.
    pub file: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes that a tensor of this shape and type takes, or what is wrong with the shape.
    pub(crate) fn bytes_of(shape: &[u64], dtype: GgmlType) -> Result<u64, String> {
        let row = *shape.first().ok_or("it has no dimension; 1 to 4 are allowed")?;
        if shape.contains(&0) {
            return Err(format!("dimension 0 in the shape {shape:?}"));
        }
        if !row.is_multiple_of(dtype.block_len()) {
            return Err(format!(
                "rows of {row} elements are not whole blocks; {dtype} has blocks of {}",
                dtype.block_len()
            ));
        }
        let elements = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
        elements
            .and_then(|n| (n / dtype.block_len()).checked_mul(dtype.block_bytes()))
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or_else(|| format!("the shape {shape:?} has more bytes than can be counted"))
    }
}
