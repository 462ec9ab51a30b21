//! Tensors whose bytes in the file are not those of the model: of another type, with rows in another order,
//! or with 1 added.

use crate::kernels::memory::team::Team;
use crate::mapping::Mapping;
use crate::packed_tensor::damaged;
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, TensorInfo};
use exsa_core::model_file::{Conversion, TensorSource};
use exsa_quant::{dequantize, quantize};
use std::sync::Mutex;

/// Values that a thread converts at a time, at least one row.
const VALUES: usize = 1 << 16;

/// The bytes of `tensor`, made from those of its file, which are `stored`.
pub(crate) fn convert(
    tensor: &TensorInfo,
    source: &TensorSource,
    stored: &[u8],
    team: &mut Team,
) -> Result<Mapping, LoadError> {
    let (Some(rows), Some(needed)) = (Rows::of(tensor, source), usize::try_from(tensor.bytes).ok()) else {
        return Err(damaged(tensor));
    };
    if stored.len() as u64 != source.bytes
        || rows.count.checked_mul(rows.stored_bytes) != Some(stored.len())
        || rows.count.checked_mul(rows.bytes) != Some(needed)
    {
        return Err(damaged(tensor));
    }
    let problem = Mutex::new(None);
    let mapping = Mapping::filled(needed, |out| {
        let step = (VALUES / rows.len).max(1);
        team.for_each_run(out, step * rows.bytes, |run, out| {
            if let Err(error) = rows.convert(run * step, stored, out) {
                problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
        });
    })?;
    match problem.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(problem) => Err(LoadError::Tensor { name: tensor.name.clone(), problem }),
        None => Ok(mapping),
    }
}

/// The rows of a tensor, in its file and in the model.
struct Rows {
    count: usize,
    /// Values in a row.
    len: usize,
    from: GgmlType,
    to: GgmlType,
    stored_bytes: usize,
    bytes: usize,
    conversion: Conversion,
    /// Rows of a head; all rows where they are not reordered.
    head: usize,
}

impl Rows {
    /// `None` for a shape that does not fit the types or the conversion.
    fn of(tensor: &TensorInfo, source: &TensorSource) -> Option<Self> {
        let len = match (source.conversion, &tensor.shape[..]) {
            // Values of a bias are rows of one value.
            (Conversion::PairRows { .. }, [_]) => 1,
            _ => usize::try_from(*tensor.shape.first()?).ok().filter(|len| *len > 0)?,
        };
        let count = usize::try_from(tensor.elements()).ok()? / len;
        let bytes = |dtype: GgmlType| {
            let (values, bytes) = (dtype.block_len() as usize, dtype.block_bytes() as usize);
            len.is_multiple_of(values).then(|| (len / values).checked_mul(bytes)).flatten()
        };
        let head = match source.conversion {
            Conversion::PairRows { heads } => {
                let heads = usize::try_from(heads).ok().filter(|heads| *heads > 0)?;
                (count.is_multiple_of(heads) && (count / heads).is_multiple_of(2)).then_some(count / heads)?
            }
            _ => count,
        };
        let (from, to) = (source.dtype, tensor.dtype);
        let (stored_bytes, bytes) = (bytes(from)?, bytes(to)?);
        Some(Self { count, len, from, to, stored_bytes, bytes, conversion: source.conversion, head })
    }

    /// The row of the file that row `row` of the model is.
    fn stored_row(&self, row: usize) -> usize {
        match self.conversion {
            Conversion::PairRows { .. } => {
                let (head, row) = (row / self.head, row % self.head);
                head * self.head + row % 2 * (self.head / 2) + row / 2
            }
            _ => row,
        }
    }

    /// Makes the rows from `first` on that `out` holds.
    fn convert(&self, first: usize, stored: &[u8], out: &mut [u8]) -> Result<(), String> {
        let copies = self.from == self.to && self.conversion != Conversion::AddOne;
        let (mut values, mut blocks) = (Vec::new(), Vec::new());
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.bytes.max(1))) {
            let row_of_file = &stored[self.stored_row(row) * self.stored_bytes..][..self.stored_bytes];
            if copies {
                out.copy_from_slice(row_of_file);
                continue;
            }
            let failed = |error: exsa_quant::QuantError| format!("row {row}: {error}");
            values.resize(self.len, 0.0);
            dequantize(self.from, row_of_file, &mut values).map_err(failed)?;
            if self.conversion == Conversion::AddOne {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            blocks.clear();
            quantize(self.to, &values, self.len, None, &mut blocks).map_err(failed)?;
            out.copy_from_slice(blocks.get(..self.bytes).ok_or("its blocks have another length")?);
        }
        Ok(())
    }
}
