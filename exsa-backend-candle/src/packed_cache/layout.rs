//! The header that the packed file of a model has, and the places of its matrices.

use super::identity::ModelIdentity;
use crate::kernels::{self, MatrixShape};
use crate::packed_tensor::PackedTensor;
use crate::weights;
use exsa_core::gguf::{GgmlType, Gguf};
use std::collections::BTreeMap;
use std::ops::Range;

/// First bytes of a packed file.
const MAGIC: &[u8; 8] = b"EXSAPACK";

/// Version of the file's format.
const VERSION: u32 = 1;

/// Bytes of a matrix under one checksum.
pub(super) const BLOCK: usize = 1 << 20;

/// Alignment of the data in the file: whole pages, whatever their size.
const DATA_ALIGNMENT: usize = 64 << 10;

/// Alignment of a matrix in the file.
const MATRIX_ALIGNMENT: usize = 128;

/// A matrix of a packed file, or the stack of those of all experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedEntry {
    /// Its type.
    pub dtype: GgmlType,
    /// Its rows and columns, and the number of matrices.
    pub shape: MatrixShape,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
    /// Number of its first block.
    pub first_block: usize,
}

impl PackedEntry {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.bytes.len().div_ceil(BLOCK)
    }
}

/// Layout of the packed file of one model.
#[derive(Debug)]
pub(crate) struct PackedLayout {
    /// The header, without checksums.
    pub header: Vec<u8>,
    /// The matrices by the names of their tensors.
    pub entries: BTreeMap<String, PackedEntry>,
    /// Names in the order of the data.
    pub order: Vec<String>,
    /// Blocks of all matrices.
    pub blocks: usize,
    /// Bytes of the file.
    pub file_bytes: usize,
}

impl PackedLayout {
    /// Layout of the packed file of `gguf`, which is the model `identity`; `None` if nothing of it is packed.
    pub fn new(gguf: &Gguf, identity: &ModelIdentity) -> Option<Self> {
        let mut matrices = Vec::new();
        for (tensor, shape) in weights::matrices(gguf) {
            if let Some(len) = PackedTensor::packed_bytes(tensor.dtype, shape) {
                matrices.push((tensor, shape, len));
            }
        }
        // Places depend on the length of the header, which does not depend on them.
        let encode = |data: usize| {
            let (mut header, mut entries, mut order) = (Vec::new(), BTreeMap::new(), Vec::new());
            header.extend_from_slice(MAGIC);
            header.extend_from_slice(&VERSION.to_le_bytes());
            header.extend_from_slice(&kernels::LAYOUT_VERSION.to_le_bytes());
            header.extend_from_slice(&identity.file_bytes.to_le_bytes());
            header.extend_from_slice(&identity.modified.to_le_bytes());
            header.extend_from_slice(&identity.content.0.to_le_bytes());
            put(&mut header, BLOCK);
            put(&mut header, matrices.len());
            let (mut at, mut blocks) = (data, 0usize);
            for &(tensor, shape, len) in &matrices {
                for text in [tensor.name.as_str(), tensor.dtype.name()] {
                    put(&mut header, text.len());
                    header.extend_from_slice(text.as_bytes());
                }
                let end = at.checked_add(len)?;
                let MatrixShape { count, rows, columns } = shape;
                [rows, columns, at, len].into_iter().for_each(|number| put(&mut header, number));
                // The tensor's name tells which have one.
                if count != 1 {
                    put(&mut header, count);
                }
                let entry = PackedEntry { dtype: tensor.dtype, shape, bytes: at..end, first_block: blocks };
                blocks += entry.blocks();
                at = end.checked_next_multiple_of(MATRIX_ALIGNMENT)?;
                entries.insert(tensor.name.clone(), entry);
                order.push(tensor.name.clone());
            }
            Some(Self { header, entries, order, blocks, file_bytes: at })
        };
        let header_bytes = encode(0)?.header_bytes();
        let layout = encode(header_bytes.checked_next_multiple_of(DATA_ALIGNMENT)?)?;
        (layout.blocks > 0).then_some(layout)
    }

    /// Bytes of the header with its checksums.
    pub fn header_bytes(&self) -> usize {
        self.header.len() + (self.blocks + 1) * size_of::<u64>()
    }

    /// Bytes of all matrices.
    pub fn matrix_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes.len() as u64).sum()
    }
}

fn put(header: &mut Vec<u8>, number: usize) {
    header.extend_from_slice(&(number as u64).to_le_bytes());
}
