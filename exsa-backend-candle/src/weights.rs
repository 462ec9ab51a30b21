//! Tensors of a GGUF on their way to a device, with the checks of type and place.

use crate::error::CandleError;
use crate::kernels::MatrixShape;
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::Isa;
use crate::layers::embedding::Embedding;
use crate::layers::experts::ExpertLinear;
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::layers::vector::Vector;
use crate::load_steps::LoadSteps;
use crate::mapped_weights::MappedRows;
use crate::mapping::Mapping;
use crate::model_files::ModelFiles;
use crate::packed_cache::CachedMatrices;
use crate::packed_tensor::{PackedTensor, damaged};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, TensorInfo};
use exsa_models::tensors::{self, ExpertProjection, Matrix, Projection};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

/// Bytes between two reports of progress.
const REPORT_BYTES: usize = 16 << 20;

/// Bytes between two reads that bring a mapped file into memory.
const PAGE_BYTES: usize = 4096;

/// Takes tensors out of a mapped GGUF and puts them on a device.
pub(crate) struct Weights<'a, 'p> {
    files: &'a ModelFiles,
    device: Device,
    steps: LoadSteps<'a, 'p>,
    taken: BTreeSet<&'a str>,
    /// Types of matrices without a packed form.
    slow: BTreeSet<GgmlType>,
    fingerprint: Fingerprint,
    /// Instruction set of the host's kernels; `None` where passes run over tensors.
    isa: Option<Isa>,
    team: Team,
    /// Memory of packed matrices.
    memory: Arena,
    /// Matrices that are packed already.
    cached: Option<CachedMatrices>,
}

impl<'a, 'p> Weights<'a, 'p> {
    /// The tensors of `files`, for passes on the host's kernels of `isa` or, without, over tensors on
    /// `device`.
    pub fn new(
        files: &'a ModelFiles,
        device: Device,
        isa: Option<Isa>,
        steps: LoadSteps<'a, 'p>,
        team: Team,
    ) -> Self {
        let gguf = files.gguf();
        let (taken, slow, fingerprint) = (BTreeSet::new(), BTreeSet::new(), Fingerprint::default());
        let packed = if isa.is_some() { packed_bytes(gguf) } else { 0 };
        let (memory, cached) = (Arena::new(packed), None);
        Self { files, device, steps, taken, slow, fingerprint, isa, team, memory, cached }
    }

    /// Takes matrices from `cached` where it has them, in place of packing them.
    pub fn cached(mut self, cached: Option<CachedMatrices>) -> Self {
        self.cached = cached;
        self
    }

    /// Instruction set of the host's kernels; `None` over tensors.
    pub fn isa(&self) -> Option<Isa> {
        self.isa
    }

    /// `matrix`, on the device.
    fn matrix(&mut self, matrix: Matrix<'a>) -> Result<Arc<QTensor>, LoadError> {
        let Matrix { tensor, rows, columns } = matrix;
        let dtype = candle_dtype(tensor)?;
        let (_, mapping, place) = self.table(tensor, rows, columns)?;
        let data = &mapping.bytes()[place];
        self.read_ahead(tensor, data)?;
        // Candle reads blocks where they lie, which it wants aligned.
        if !(data.as_ptr() as usize).is_multiple_of(size_of::<f32>()) {
            return Err(damaged(tensor));
        }
        let storage = QStorage::from_data(Cow::Borrowed(data), &self.device, dtype).load()?;
        QTensor::new(storage, &[rows, columns]).map(Arc::new).load()
    }

    /// The values of `vector`, in f32.
    pub fn values(&mut self, vector: tensors::Vector<'a>) -> Result<Vec<f32>, LoadError> {
        let (table, mapping, place) = self.table(vector.tensor, 1, vector.len)?;
        self.read_ahead(vector.tensor, &mapping.bytes()[place])?;
        let mut values = vec![0.0; vector.len];
        table.row(0, &mut values);
        Ok(values)
    }

    /// The values of `matrix`, in f32, row by row.
    pub fn matrix_values(&mut self, matrix: Matrix<'a>) -> Result<Vec<f32>, LoadError> {
        let Matrix { tensor, rows, columns } = matrix;
        let (table, mapping, place) = self.table(tensor, rows, columns)?;
        self.read_ahead(tensor, &mapping.bytes()[place])?;
        let mut values = vec![0.0; rows * columns];
        values.chunks_exact_mut(columns).enumerate().for_each(|(row, values)| table.row(row, values));
        Ok(values)
    }

    /// `vector`, in f32.
    pub fn vector(&mut self, vector: tensors::Vector<'a>) -> Result<Vector, LoadError> {
        let values = self.values(vector)?;
        Tensor::from_vec(values, vector.len, &self.device).and_then(Vector::new).load()
    }

    /// The linear layer of `projection`.
    pub fn linear(&mut self, projection: Projection<'a>) -> Result<Linear, LoadError> {
        let bias = projection.bias.map(|bias| self.vector(bias)).transpose()?;
        let weight @ Matrix { tensor, rows, columns } = projection.weight;
        let Some(isa) = self.isa else { return Linear::device(self.matrix(weight)?, bias).load() };
        if !is_packed(tensor.dtype) {
            return Ok(Linear::wide(self.wide(tensor, rows, columns)?, rows, bias));
        }
        Ok(match self.packed(tensor, MatrixShape::one(rows, columns))? {
            PackedTensor::Quantized(weight) => Linear::packed(weight, isa, bias),
            PackedTensor::Float(weight) => Linear::float(weight, isa, bias),
        })
    }

    /// The linear layers of all experts of `projection`, on the host's kernels alone.
    pub fn expert_linear(&mut self, projection: ExpertProjection<'a>) -> Result<ExpertLinear, LoadError> {
        let ExpertProjection { tensor, experts, rows, columns, bias } = projection;
        let Some(isa) = self.isa else {
            return Err(LoadError::Unsupported {
                what: "a mixture of experts on a device other than the CPU".to_owned(),
                supported: "mixtures of experts on the CPU".to_owned(),
            });
        };
        let bias = bias.map(|bias| self.matrix_values(bias)).transpose()?;
        let shape = MatrixShape { count: experts, rows, columns };
        if is_packed(tensor.dtype) {
            return Ok(match self.packed(tensor, shape)? {
                PackedTensor::Quantized(weight) => ExpertLinear::packed(weight, isa, bias),
                PackedTensor::Float(weight) => ExpertLinear::float(weight, isa, bias),
            });
        }
        let all_rows = shape.all_rows().ok_or_else(|| damaged(tensor))?;
        Ok(ExpertLinear::wide(self.wide(tensor, all_rows, columns)?, shape, bias))
    }

    /// Rows of `columns` values where they lie in the file, of a type without a packed form.
    fn wide(&mut self, tensor: &'a TensorInfo, rows: usize, columns: usize) -> Result<MappedRows, LoadError> {
        let (weight, mapping, place) = self.table(tensor, rows, columns)?;
        self.read_ahead(tensor, &mapping.bytes()[place])?;
        if self.slow.insert(tensor.dtype) {
            log::warn!(
                "weights of type {} have no kernel of their own: products with them are several times slower \
                 (first such tensor: '{}')",
                tensor.dtype,
                tensor.name
            );
        }
        Ok(weight)
    }

    /// The matrices of `tensor`, packed for our own products: from the packed cache where they are there.
    fn packed(&mut self, tensor: &'a TensorInfo, shape: MatrixShape) -> Result<PackedTensor, LoadError> {
        let (mapping, place) = self.files.tensor(tensor, &mut self.team)?;
        let counts = self.take(tensor, &mapping.bytes()[place.clone()]);
        let Self { steps, team, memory, cached, .. } = self;
        let mut done = |bytes: u64| if counts { steps.add(bytes) } else { steps.report() };
        if let Some(cached) = cached
            && let Some(matrix) = cached.take(tensor, shape, team, memory, &mut done)?
        {
            return Ok(matrix);
        }
        PackedTensor::pack(tensor, shape, (&mapping, place), team, memory, done)
    }

    /// The embeddings `table`, to be multiplied by `scale`.
    pub fn embedding(&mut self, table: Matrix<'a>, scale: f32) -> Result<Embedding, LoadError> {
        if self.isa.is_none() {
            return Ok(Embedding::device(self.matrix(table)?, scale));
        }
        let Matrix { tensor, rows, columns } = table;
        // The table stays in the file: its pages come into memory with the rows that are read, and are not
        // there twice where the same tensor is a projection too.
        let (table, mapping, place) = self.table(tensor, rows, columns)?;
        if self.take(tensor, &mapping.bytes()[place.clone()]) {
            self.steps.add(place.len() as u64)?;
        }
        Ok(Embedding::host(Arc::new(table), scale))
    }

    /// RMSNorm by `weight`.
    pub fn rms_norm(&mut self, weight: tensors::Vector<'a>, epsilon: f32) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm::new(self.vector(weight)?, epsilon))
    }

    /// Fingerprint of the tensors that were taken.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A tensor as `rows` rows of `columns` values, and its place in a mapping.
    fn table(
        &mut self,
        tensor: &TensorInfo,
        rows: usize,
        columns: usize,
    ) -> Result<(MappedRows, Arc<Mapping>, Range<usize>), LoadError> {
        check_type(tensor)?;
        let (mapping, place) = self.files.tensor(tensor, &mut self.team)?;
        let table = MappedRows::new(&mapping, place.start, (rows, columns), tensor.dtype);
        Ok((table.ok_or_else(|| damaged(tensor))?, mapping, place))
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

    /// Brings the bytes of a tensor into memory, so that progress is real and the first token does not wait
    /// for the disk.
    fn read_ahead(&mut self, tensor: &'a TensorInfo, data: &[u8]) -> Result<(), LoadError> {
        if !self.take(tensor, data) {
            return Ok(());
        }
        for part in data.chunks(REPORT_BYTES) {
            for byte in part.iter().step_by(PAGE_BYTES) {
                black_box(*byte);
            }
            self.steps.add(part.len() as u64)?;
        }
        Ok(())
    }
}

/// Matrices of `gguf` on the host, with their tensors; those of all experts of a layer are in one. The
/// embeddings are one where they are the output projection too.
pub(crate) fn matrices(gguf: &Gguf) -> impl Iterator<Item = (&TensorInfo, MatrixShape)> {
    let tied = gguf.tensor("output.weight").is_none();
    gguf.tensors().iter().filter_map(move |tensor| {
        if !tensors::is_operand(tensor) {
            return None;
        }
        let (columns, rows, count) = match tensor.shape[..] {
            [columns, rows] => (columns, rows, 1),
            [columns, rows, count] => (columns, rows, count),
            _ => return None,
        };
        let size = |size: u64| usize::try_from(size).ok();
        let shape = MatrixShape { count: size(count)?, rows: size(rows)?, columns: size(columns)? };
        let used = tied || tensor.name != "token_embd.weight";
        // Those without values have no bytes either, and their other lengths may be anything.
        (used && !shape.is_empty()).then_some((tensor, shape))
    })
}

/// Whether matrices of that type are packed.
fn is_packed(dtype: GgmlType) -> bool {
    PackedTensor::packed_bytes(dtype, MatrixShape::one(1, 1)).is_some()
}

/// Bytes of the packed matrices of `gguf`.
pub(crate) fn packed_bytes(gguf: &Gguf) -> usize {
    let packed = matrices(gguf)
        .filter_map(|(tensor, shape)| PackedTensor::packed_bytes(tensor.dtype, shape).map(Arena::step));
    packed.fold(0, usize::saturating_add)
}

/// Refuses tensors of types that are no weights.
pub(crate) fn check_type(tensor: &TensorInfo) -> Result<(), LoadError> {
    // Types of activations are in no file.
    let activations = matches!(tensor.dtype, GgmlType::Q8_1 | GgmlType::Q8K);
    if !activations && exsa_quant::dequantize(tensor.dtype, &[], &mut []).is_ok() {
        return Ok(());
    }
    Err(unsupported(
        tensor,
        "F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, IQ3_XXS, IQ3_S, \
         IQ2_XXS, IQ2_XS, IQ2_S, IQ1_S, IQ1_M, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0",
    ))
}

fn unsupported(tensor: &TensorInfo, supported: &str) -> LoadError {
    LoadError::Unsupported {
        what: format!("tensor '{}' of type {}", tensor.name, tensor.dtype),
        supported: supported.to_owned(),
    }
}

/// The type of `tensor` as candle calls it, for passes over tensors.
fn candle_dtype(tensor: &TensorInfo) -> Result<GgmlDType, LoadError> {
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
        _ => {
            let supported = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";
            return Err(unsupported(tensor, supported));
        }
    })
}
