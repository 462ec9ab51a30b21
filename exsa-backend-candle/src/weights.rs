//! Tensors of a GGUF on their way to a device, with all checks of name, shape and type.

use crate::error::CandleError;
use crate::kernels::float::packed::{FloatMatrix, FloatType};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::{Isa, PackedMatrix, PackedType};
use crate::layers::embedding::Embedding;
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::layers::vector::Vector;
use crate::mapped_weights::{self, TableRows, WideRows};
use crate::mapping::Mapping;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use exsa_core::backend::{Fingerprint, LoadProgress};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, TensorInfo};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

/// Bytes between two reports of progress.
const REPORT_BYTES: usize = 16 << 20;

/// Bytes between two reads that bring a mapped file into memory.
const PAGE_BYTES: usize = 4096;

/// Called after each part of a matrix that is packed, with its bytes; can end it.
type PartDone<'a> = &'a mut dyn FnMut(Range<usize>) -> Result<(), LoadError>;

/// A packed matrix, if its type and lengths fit and it was not ended.
type Packed<M> = std::io::Result<Option<Result<M, LoadError>>>;

/// Takes tensors out of a mapped GGUF and puts them on a device.
pub(crate) struct Weights<'a, 'p> {
    gguf: &'a Gguf,
    mapping: Arc<Mapping>,
    device: Device,
    progress: &'a mut LoadProgress<'p>,
    taken: BTreeSet<&'a str>,
    done: u64,
    total: u64,
    fingerprint: Fingerprint,
    /// Instruction set of the host's kernels; `None` where passes run over tensors.
    isa: Option<Isa>,
    team: Team,
    /// Memory of packed matrices.
    memory: Arena,
}

impl<'a, 'p> Weights<'a, 'p> {
    /// The tensors of `gguf`, whose bytes are `mapping`, for passes on the host's kernels or over tensors on `device`.
    pub fn new(
        gguf: &'a Gguf,
        mapping: Arc<Mapping>,
        device: Device,
        host: bool,
        progress: &'a mut LoadProgress<'p>,
        team: Team,
    ) -> Result<Self, LoadError> {
        let total = gguf.tensors().iter().map(|tensor| tensor.bytes).sum();
        progress.report(0, total)?;
        let (taken, fingerprint) = (BTreeSet::new(), Fingerprint::default());
        let packed = if host { packed_bytes(gguf) } else { 0 };
        let (isa, memory) = (host.then(Isa::detect), Arena::new(packed));
        Ok(Self { gguf, mapping, device, progress, taken, done: 0, total, fingerprint, isa, team, memory })
    }

    /// Whether the file has tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// Number of rows of matrix `name`.
    pub fn rows(&self, name: &str) -> Result<usize, LoadError> {
        let tensor = self.find(name)?;
        match tensor.shape[..] {
            [_, rows] if rows > 0 => usize::try_from(rows).map_err(|_| wrong_shape(tensor, "a matrix")),
            _ => Err(wrong_shape(tensor, "a matrix")),
        }
    }

    /// The matrix `name` of `rows` rows and `columns` columns, on the device.
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Arc<QTensor>, LoadError> {
        let tensor = self.find_matrix(name, rows, columns)?;
        // Candle demands an alignment that the table has been checked for.
        let (_, start, bytes) = self.table(tensor, rows * columns)?;
        self.read_ahead(tensor, start, bytes)?;
        let data = Cow::Borrowed(&self.mapping.bytes()[start..start + bytes]);
        let storage = QStorage::from_data(data, &self.device, dtype(tensor)?).load()?;
        QTensor::new(storage, &[rows, columns]).map(Arc::new).load()
    }

    /// The vector `name` of `len` values, in f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Tensor, LoadError> {
        let tensor = self.find(name)?;
        if tensor.shape[..] != [len as u64] {
            return Err(wrong_shape(tensor, &format!("[{len}]")));
        }
        let (table, start, bytes) = self.table(tensor, len)?;
        self.read_ahead(tensor, start, bytes)?;
        let mut values = vec![0.0; len];
        table.row(0, &mut values);
        Tensor::from_vec(values, len, &self.device).load()
    }

    /// The vector `name` where the file has one.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Tensor>, LoadError> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// The projection of `columns` to `rows` values by `{name}.weight` and, where the file has one, `{name}.bias`.
    pub fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, LoadError> {
        let weight_name = format!("{name}.weight");
        let bias =
            self.optional_vector(&format!("{name}.bias"), rows)?.map(Vector::new).transpose().load()?;
        if let Some(isa) = self.isa
            && PackedMatrix::supports(self.find(&weight_name)?.dtype)
        {
            let weight =
                self.packed(&weight_name, rows, columns, |dtype, bytes, n, k, team, memory, done| {
                    PackedMatrix::pack_by_parts(dtype, bytes, n, k, team, memory, done)
                })?;
            return Ok(Linear::packed(weight, isa, bias));
        }
        if let Some(isa) = self.isa
            && FloatType::of(self.find(&weight_name)?.dtype).is_some()
        {
            let weight =
                self.packed(&weight_name, rows, columns, |dtype, bytes, n, k, team, memory, done| {
                    FloatMatrix::pack_by_parts(dtype, bytes, n, k, team, memory, done)
                })?;
            return Ok(Linear::float(weight, isa, bias));
        }
        if self.isa.is_some() {
            return Ok(Linear::wide(self.wide(&weight_name, rows, columns)?, [rows, columns], bias));
        }
        Linear::device(self.matrix(&weight_name, rows, columns)?, bias).load()
    }

    /// The matrix `name` where it lies in the file, of a type without a packed form.
    fn wide(&mut self, name: &str, rows: usize, columns: usize) -> Result<Arc<dyn WideRows>, LoadError> {
        let tensor = self.find_matrix(name, rows, columns)?;
        let dtype = dtype(tensor)?;
        let (start, bytes) = self.place_of(tensor, dtype, rows * columns)?;
        let weight = mapped_weights::wide_rows(&self.mapping, start, bytes, dtype);
        let weight = weight.ok_or_else(|| damaged(tensor))?;
        self.read_ahead(tensor, start, bytes)?;
        Ok(weight)
    }

    /// The matrix `name`, packed for our own products by `pack`.
    fn packed<M>(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        pack: impl FnOnce(GgmlType, &[u8], usize, usize, &mut Team, &mut Arena, PartDone<'_>) -> Packed<M>,
    ) -> Result<M, LoadError> {
        let tensor = self.find_matrix(name, rows, columns)?;
        let (start, bytes) = self.place(tensor)?;
        let mapping = Arc::clone(&self.mapping);
        let data = &mapping.bytes()[start..start + bytes];
        let counts = self.take(tensor, data);
        let progress = &mut *self.progress;
        let (done, total) = (&mut self.done, self.total);
        mapping.fetch(start, bytes.min(2 * REPORT_BYTES));
        let packed =
            pack(tensor.dtype, data, rows, columns, &mut self.team, &mut self.memory, &mut |part: Range<
                usize,
            >| {
                mapping.release(start + part.start, part.len());
                let ahead = part.end + REPORT_BYTES;
                mapping.fetch(start + ahead.min(bytes), REPORT_BYTES.min(bytes.saturating_sub(ahead)));
                if counts {
                    *done += part.len() as u64;
                }
                progress.report(*done, total)
            });
        let memory = |_| LoadError::Memory { what: "packed weights", needed: tensor.bytes, available: 0 };
        packed.map_err(memory)?.ok_or_else(|| damaged(tensor))?
    }

    /// The embeddings `name` of `rows` tokens, to be multiplied by `scale`.
    pub fn embedding(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        scale: f32,
    ) -> Result<Embedding, LoadError> {
        if self.isa.is_none() {
            return Ok(Embedding::device(self.matrix(name, rows, columns)?, scale));
        }
        // The table stays in the file: its pages come into memory with the rows that are read, and are not
        // there twice where the same tensor is a projection too.
        let tensor = self.find_matrix(name, rows, columns)?;
        let (table, start, bytes) = self.table(tensor, rows * columns)?;
        let mapping = Arc::clone(&self.mapping);
        if self.take(tensor, &mapping.bytes()[start..start + bytes]) {
            self.done += bytes as u64;
            self.progress.report(self.done, self.total)?;
        }
        Ok(Embedding::host(table, scale))
    }

    /// The norm by `{name}.weight`.
    pub fn norm(&mut self, name: &str, len: usize, epsilon: f32) -> Result<RmsNorm, LoadError> {
        let weight = Vector::new(self.vector(&format!("{name}.weight"), len)?).load()?;
        Ok(RmsNorm::new(weight, epsilon))
    }

    /// Refuses a file with tensors that nobody took: the model computes with something that is not known here. Returns the
    /// fingerprint of all tensors.
    pub fn finish(self) -> Result<Fingerprint, LoadError> {
        let left = self.gguf.tensors().iter().find(|tensor| !self.taken.contains(tensor.name.as_str()));
        match left {
            Some(tensor) => Err(LoadError::Tensor {
                name: tensor.name.clone(),
                problem: "the architecture knows no such tensor".to_owned(),
            }),
            None => Ok(self.fingerprint),
        }
    }

    fn find(&self, name: &str) -> Result<&'a TensorInfo, LoadError> {
        self.gguf
            .tensor(name)
            .ok_or_else(|| LoadError::Tensor { name: name.to_owned(), problem: "missing".to_owned() })
    }

    /// The tensor `name`, which is a matrix of `rows` rows and `columns` columns.
    fn find_matrix(&self, name: &str, rows: usize, columns: usize) -> Result<&'a TensorInfo, LoadError> {
        let tensor = self.find(name)?;
        if tensor.shape[..] != [columns as u64, rows as u64] {
            return Err(wrong_shape(tensor, &format!("[{columns}, {rows}]")));
        }
        Ok(tensor)
    }

    /// A tensor of `values` values as rows in the file, where it begins, and how many bytes it has.
    fn table(
        &self,
        tensor: &TensorInfo,
        values: usize,
    ) -> Result<(Arc<dyn TableRows>, usize, usize), LoadError> {
        let dtype = dtype(tensor)?;
        let (start, bytes) = self.place_of(tensor, dtype, values)?;
        let table = mapped_weights::table(&self.mapping, start, bytes, dtype);
        Ok((table.ok_or_else(|| damaged(tensor))?, start, bytes))
    }

    /// As [`place`](Self::place), of a tensor of `values` values of type `dtype`.
    fn place_of(
        &self,
        tensor: &TensorInfo,
        dtype: GgmlDType,
        values: usize,
    ) -> Result<(usize, usize), LoadError> {
        let (start, bytes) = self.place(tensor)?;
        if bytes != values / dtype.block_size() * dtype.type_size() {
            return Err(damaged(tensor));
        }
        Ok((start, bytes))
    }

    /// Start of a tensor in the mapping, and its length in bytes.
    fn place(&self, tensor: &TensorInfo) -> Result<(usize, usize), LoadError> {
        let start = usize::try_from(tensor.offset).map_err(|_| damaged(tensor))?;
        let bytes = usize::try_from(tensor.bytes).map_err(|_| damaged(tensor))?;
        let end = start.checked_add(bytes).filter(|end| *end <= self.mapping.bytes().len());
        end.map(|_| (start, bytes)).ok_or_else(|| damaged(tensor))
    }

    /// Notes that a tensor is used, and its first and last bytes; false if it was used before.
    fn take(&mut self, tensor: &'a TensorInfo, data: &[u8]) -> bool {
        // A tensor that two layers take counts once.
        if !self.taken.insert(&tensor.name) {
            return false;
        }
        self.fingerprint.update(tensor.name.as_bytes());
        self.fingerprint.update(format!("{:?} {:?}", tensor.shape, tensor.dtype).as_bytes());
        self.fingerprint.update(&data[..data.len().min(64)]);
        self.fingerprint.update(&data[data.len().saturating_sub(64)..]);
        true
    }

    /// Brings the bytes of a tensor into memory, so that progress is real and the first token does not wait for the disk.
    fn read_ahead(&mut self, tensor: &'a TensorInfo, start: usize, bytes: usize) -> Result<(), LoadError> {
        let mapping = Arc::clone(&self.mapping);
        let data = &mapping.bytes()[start..start + bytes];
        if !self.take(tensor, data) {
            return Ok(());
        }
        for part in data.chunks(REPORT_BYTES) {
            for byte in part.iter().step_by(PAGE_BYTES) {
                black_box(*byte);
            }
            self.done += part.len() as u64;
            self.progress.report(self.done, self.total)?;
        }
        Ok(())
    }
}

/// Matrices of `gguf` on the host: each with its tensor, rows and columns, and the type that it is packed as for integer kernels, if it is. The
/// embeddings are one where they are the output projection too.
pub(crate) fn matrices(gguf: &Gguf) -> impl Iterator<Item = (&TensorInfo, usize, usize, Option<PackedType>)> {
    let tied = gguf.tensor("output.weight").is_none();
    gguf.tensors().iter().filter_map(move |tensor| {
        let [columns, rows] = tensor.shape[..] else { return None };
        // Those without values have no bytes either, and their other length may be anything.
        let size = |size: u64| usize::try_from(size).ok().filter(|size| *size > 0);
        let used = tied || tensor.name != "token_embd.weight";
        used.then_some((tensor, size(rows)?, size(columns)?, PackedType::of(tensor.dtype)))
    })
}

/// Bytes of the packed matrices of `gguf`.
pub(crate) fn packed_bytes(gguf: &Gguf) -> usize {
    let packed = matrices(gguf).filter_map(|(tensor, rows, columns, kind)| {
        let bytes = match (kind, FloatType::of(tensor.dtype)) {
            (Some(kind), _) => PackedMatrix::packed_bytes(kind, rows, columns),
            (None, Some(kind)) => FloatMatrix::packed_bytes(kind, rows, columns),
            (None, None) => return None,
        };
        Some(Arena::step(bytes))
    });
    packed.fold(0, usize::saturating_add)
}

fn damaged(tensor: &TensorInfo) -> LoadError {
    LoadError::Tensor {
        name: tensor.name.clone(),
        problem: format!("its {} bytes at offset {} cannot be used", tensor.bytes, tensor.offset),
    }
}

fn wrong_shape(tensor: &TensorInfo, expected: &str) -> LoadError {
    LoadError::Tensor {
        name: tensor.name.clone(),
        problem: format!("its shape is {:?}, but {expected} is expected", tensor.shape),
    }
}

/// The type of `tensor` as candle calls it.
pub(crate) fn dtype(tensor: &TensorInfo) -> Result<GgmlDType, LoadError> {
    Ok(match tensor.dtype {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
        other => {
            return Err(LoadError::Unsupported {
                what: format!("tensor '{}' of type {other}", tensor.name),
                supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"
                    .to_owned(),
            });
        }
    })
}
