//! Matrices of a packed file, for a model that is loaded.

use super::file::PackedFile;
use crate::kernels::MatrixShape;
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::memory::weight_memory::WeightMemory;
use crate::packed_tensor::PackedTensor;
use exsa_core::backend::WeightPages;
use exsa_core::error::LoadError;
use exsa_core::gguf::TensorInfo;

/// Bytes that are read, or copied, between two reports of progress.
const PART: usize = 16 << 20;

/// Bytes that a thread copies at a time.
const COPIED: usize = 1 << 20;

/// Gives out the matrices of a packed file, mapped or copied.
pub(crate) struct CachedMatrices {
    file: PackedFile,
    pages: WeightPages,
}

impl CachedMatrices {
    /// The matrices of `file` in memory of that kind.
    pub fn new(file: PackedFile, pages: WeightPages) -> Self {
        Self { file, pages }
    }

    /// The packed form of `tensor`, of that shape; `None` if the file has none. Calls `done`
    /// with bytes of the tensor that are there, which can end it.
    pub fn take(
        &self,
        tensor: &TensorInfo,
        shape: MatrixShape,
        team: &mut Team,
        memory: &mut Arena,
        done: &mut dyn FnMut(u64) -> Result<(), LoadError>,
    ) -> Result<Option<PackedTensor>, LoadError> {
        let entry = self.file.entry(&tensor.name);
        let entry = entry.filter(|entry| entry.dtype == tensor.dtype && entry.shape == shape);
        let Some((entry, mapped)) = entry.and_then(|entry| Some((entry, self.file.memory(entry)?))) else {
            return Ok(None);
        };
        let len = entry.bytes.len();
        let mut told = 0;
        // Progress counts bytes of the model's file, of which there are about as many.
        let mut tell = |end: usize| {
            let bytes = (u128::from(tensor.bytes) * end as u128 / len.max(1) as u128) as u64;
            let more = bytes - told;
            told = bytes;
            done(more)
        };
        self.file.fetch(entry.bytes.start, len.min(2 * PART));
        let parts = (0..len).step_by(PART).map(|start| start..len.min(start + PART));
        let fetch = |start: usize| {
            self.file.fetch(entry.bytes.start + start.min(len), PART.min(len.saturating_sub(start)));
        };
        let data: WeightMemory = match self.pages {
            WeightPages::Huge => {
                let error =
                    |_| LoadError::Memory { what: "packed weights", needed: len as u64, available: 0 };
                let mut copy = memory.take(len).map_err(error)?;
                for part in parts {
                    let from = &mapped.as_slice()[part.clone()];
                    let (to, start) =
                        (&mut copy.as_mut_slice()[part.clone()], entry.bytes.start + part.start);
                    team.for_each_run(to, COPIED, |i, to| {
                        to.copy_from_slice(&from[i * COPIED..][..to.len()])
                    });
                    self.file.release(start, part.len());
                    fetch(part.end + PART);
                    tell(part.end)?;
                }
                copy.into()
            }
            _ => {
                for part in parts {
                    self.file.populate(entry.bytes.start + part.start, part.len());
                    fetch(part.end + PART);
                    tell(part.end)?;
                }
                mapped
            }
        };
        Ok(PackedTensor::from_packed(tensor.dtype, shape, data))
    }
}
