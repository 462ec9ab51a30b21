//! Adapters that a model has loaded, in the form of the host's kernels.

use crate::kernels::float::packed::{FloatMatrix, FloatType, LowRank};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::load::LoadedModel;
use exsa_core::AdapterId;
use exsa_core::adapter::{AdapterFile, AdapterPair, BaseMatrix, BaseModel, Factor};
use exsa_core::backend::{AdapterInfo, AdapterLimits, Fingerprint, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::GgmlType;
use exsa_models::Config;
use exsa_models::architecture::MlpKind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Projections of a layer that take an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projection {
    /// Queries, or queries, keys and values by one matrix.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Output of the attention.
    AttentionOutput,
    /// Gate of the MLP.
    Gate,
    /// Up projection of the MLP, or gate and up by one matrix.
    Up,
    /// Down projection of the MLP.
    Down,
}

/// Number of [`Projection`]s.
const PROJECTIONS: usize = 7;

/// A projection of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a layer.
    Layer(usize, Projection),
    /// The output.
    Output,
}

/// An adapter, ready to run.
pub(crate) struct LoadedAdapter {
    info: AdapterInfo,
    layers: Vec<[Option<LowRank>; PROJECTIONS]>,
    output: Option<LowRank>,
}

impl LoadedAdapter {
    /// Its id.
    pub fn id(&self) -> AdapterId {
        self.info.id
    }

    /// Its largest rank.
    pub fn rank(&self) -> usize {
        self.info.rank
    }

    /// Its matrices for the projection at `place`.
    pub fn low_rank(&self, place: Place) -> Option<&LowRank> {
        match place {
            Place::Layer(layer, projection) => self.layers.get(layer)?[projection as usize].as_ref(),
            Place::Output => self.output.as_ref(),
        }
    }

    fn slot(&mut self, place: Place) -> Option<&mut Option<LowRank>> {
        match place {
            Place::Layer(layer, projection) => {
                self.layers.get_mut(layer).map(|layer| &mut layer[projection as usize])
            }
            Place::Output => Some(&mut self.output),
        }
    }
}

/// The loaded adapters of a model. A pass holds those that it uses, so that they can be removed meanwhile.
#[derive(Default)]
pub(crate) struct Adapters {
    loaded: RwLock<Vec<Arc<LoadedAdapter>>>,
    next: AtomicU32,
}

impl Adapters {
    /// Adds an adapter and gives it an id.
    pub fn insert(&self, mut adapter: LoadedAdapter) -> AdapterInfo {
        adapter.info.id = AdapterId(self.next.fetch_add(1, Ordering::Relaxed));
        let info = adapter.info;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(adapter));
        info
    }

    /// Removes the adapter `id`.
    pub fn remove(&self, id: AdapterId) {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let removed = loaded.iter().position(|adapter| adapter.id() == id).map(|at| loaded.swap_remove(at));
        drop(loaded);
        // Its memory goes back to the system without the lock.
        drop(removed);
    }

    /// The adapter `id`.
    pub fn get(&self, id: AdapterId) -> Option<Arc<LoadedAdapter>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().find(|adapter| adapter.id() == id).cloned()
    }
}

/// Loads the adapter `source` of `model`, which has no id yet.
pub(crate) fn load(
    model: &LoadedModel,
    architecture: &str,
    source: &ModelSource,
    limits: &AdapterLimits,
) -> Result<LoadedAdapter, LoadError> {
    if model.isa.is_none() {
        return Err(LoadError::Unsupported {
            what: "adapters on a device other than the CPU".to_owned(),
            supported: "adapters on the CPU".to_owned(),
        });
    }
    let config = &model.config;
    let matrix = |name: &str| place(model, name).map(|(_, [columns, rows])| BaseMatrix::new(columns, rows));
    let base =
        BaseModel { architecture, n_head: config.n_head, n_head_kv: config.n_head_kv, matrix: &matrix };
    let mut file = AdapterFile::open(source, &base)?;
    let rank = file.rank();
    let parts: Vec<usize> = file.pairs().iter().flat_map(packed_bytes).collect();
    let bytes = parts.iter().fold(0, |sum: usize, bytes| sum.saturating_add(Arena::step(*bytes)));
    file.check_limits(limits, bytes as u64)?;
    let mut packer = Packer { memory: Arena::new(bytes), team: one_thread()?, bytes: Vec::new() };
    let mut fingerprint = Fingerprint::default();
    let layers = (0..config.n_layer).map(|_| Default::default()).collect();
    let mut adapter = LoadedAdapter { info: AdapterInfo::new(AdapterId(0)), layers, output: None };
    for index in 0..file.pairs().len() {
        let pair = file.pairs()[index].clone();
        fingerprint.update(pair.weight.as_bytes());
        fingerprint.update(&pair.scale.to_le_bytes());
        let a = packer.pack(&mut file, index, Factor::A, &mut fingerprint)?;
        let b = packer.pack(&mut file, index, Factor::B, &mut fingerprint)?;
        let (at, _) = place(model, &pair.weight).map_err(|problem| file.refuse(problem))?;
        let damaged = || file.refuse(format!("{}: its matrices do not fit", pair.weight));
        *adapter.slot(at).ok_or_else(damaged)? = Some(LowRank::new(a, b, pair.scale).ok_or_else(damaged)?);
    }
    adapter.info = adapter.info.rank(rank).bytes(bytes as u64).fingerprint(fingerprint);
    Ok(adapter)
}

fn one_thread() -> Result<Team, LoadError> {
    Team::new(1).map_err(|error| LoadError::Backend(error.to_string()))
}

/// Type of a matrix in memory.
fn packed_type(dtype: GgmlType) -> GgmlType {
    if FloatType::of(dtype).is_some() { dtype } else { GgmlType::F32 }
}

/// Bytes of the packed matrices of a pair.
fn packed_bytes(pair: &AdapterPair) -> [usize; 2] {
    let bytes = |dtype: GgmlType, n: usize, k: usize| {
        FloatType::of(packed_type(dtype)).map_or(0, |kind| FloatMatrix::packed_bytes(kind, n, k))
    };
    [bytes(pair.a.dtype, pair.rank, pair.columns), bytes(pair.b.dtype, pair.rows, pair.rank)]
}

/// Reads matrices and packs them for the kernels.
struct Packer {
    memory: Arena,
    team: Team,
    bytes: Vec<u8>,
}

impl Packer {
    fn pack(
        &mut self,
        file: &mut AdapterFile,
        index: usize,
        factor: Factor,
        fingerprint: &mut Fingerprint,
    ) -> Result<FloatMatrix, LoadError> {
        file.read(index, factor, &mut self.bytes)?;
        fingerprint.update(&self.bytes);
        let pair = &file.pairs()[index];
        let (n, k) = match factor {
            Factor::A => (pair.rank, pair.columns),
            Factor::B => (pair.rows, pair.rank),
        };
        let dtype = pair.tensor(factor).dtype;
        fingerprint.update(dtype.name().as_bytes());
        if packed_type(dtype) != dtype {
            let mut values = vec![0.0; n * k];
            exsa_quant::dequantize(dtype, &self.bytes, &mut values)
                .map_err(|error| file.refuse(format!("{}: {error}", pair.weight)))?;
            self.bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        }
        let packed =
            FloatMatrix::pack(packed_type(dtype), &self.bytes, n, k, &mut self.team, &mut self.memory);
        let needed = self.bytes.len() as u64;
        let packed = packed.map_err(|_| LoadError::Memory { what: "the adapter", needed, available: 0 })?;
        packed.ok_or_else(|| file.refuse(format!("{}: its bytes cannot be used", pair.weight)))
    }
}

/// Place, columns and rows of the matrix `name` of `model`, or why it takes no adapter.
fn place(model: &LoadedModel, name: &str) -> Result<(Place, [usize; 2]), String> {
    let &Config { n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = &model.config;
    let architecture = model.config.architecture;
    let unknown = || format!("the model has no tensor {name} that takes an adapter");
    match name {
        "token_embd.weight" => {
            return Err("adapters of the token embedding are not supported; those of layers are".to_owned());
        }
        "output.weight" if model.has_output => return Ok((Place::Output, [n_embd, model.n_vocab])),
        "output.weight" => {
            return Err("the model's output has the weights of the token embedding, whose adapters are not \
                        supported; those of layers are"
                .to_owned());
        }
        _ => {}
    }
    let (layer, part) =
        name.strip_prefix("blk.").and_then(|name| name.split_once('.')).ok_or_else(unknown)?;
    let layer: usize = layer.parse().ok().filter(|layer| *layer < n_layer).ok_or_else(unknown)?;
    let (width, width_kv) = (n_head * head_dim, n_head_kv * head_dim);
    let (fused_qkv, mlp) = (architecture.fused_qkv, architecture.mlp);
    let up = if mlp == MlpKind::FusedGate { 2 * n_ff } else { n_ff };
    let (projection, shape) = match part {
        "attn_qkv.weight" if fused_qkv => (Projection::Query, [n_embd, width + 2 * width_kv]),
        "attn_q.weight" if !fused_qkv => (Projection::Query, [n_embd, width]),
        "attn_k.weight" if !fused_qkv => (Projection::Key, [n_embd, width_kv]),
        "attn_v.weight" if !fused_qkv => (Projection::Value, [n_embd, width_kv]),
        "attn_output.weight" => (Projection::AttentionOutput, [width, n_embd]),
        "ffn_gate.weight" if mlp == MlpKind::Gated => (Projection::Gate, [n_embd, n_ff]),
        "ffn_up.weight" => (Projection::Up, [n_embd, up]),
        "ffn_down.weight" => (Projection::Down, [n_ff, n_embd]),
        _ => return Err(unknown()),
    };
    Ok((Place::Layer(layer, projection), shape))
}
