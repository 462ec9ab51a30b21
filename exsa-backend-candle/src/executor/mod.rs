//! What runs a [`Transformer`](crate::transformer::Transformer): our own kernels on slices on the CPU, candle's operations on
//! tensors elsewhere.
//!
//! Both read the same description of the layers. They differ in the form of the weights, which is settled when a model
//! is loaded, and in where keys and values lie, which each owns.

mod host;
mod layer;
mod room;
mod tensors;

pub(crate) use host::HostExecutor;
pub(crate) use tensors::TensorExecutor;

use crate::kv::{BlockCopy, BlockId, BlockTables, SavedHeader};
use crate::layers::rope::Rope;
use crate::load::LoadedModel;
use exsa_core::backend::Interrupt;
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, StepError};
use std::io::{Read, Write};

/// RoPE of the layers that see everything, and of those with a window.
pub(crate) struct Ropes {
    /// Of the layers that see everything.
    pub full: Rope,
    /// Of the layers with a window.
    pub windowed: Rope,
}

/// What a pass needs to know beside the batch.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The model.
    pub model: &'a LoadedModel,
    /// Which blocks belong to which sequence, the batch's tokens included.
    pub tables: &'a BlockTables,
    /// RoPE.
    pub ropes: &'a Ropes,
    /// Ends a pass early.
    pub interrupt: &'a Interrupt,
}

/// Runs forward passes, and holds keys and values.
pub(crate) trait Executor: Send {
    /// Runs `batch`, which is not empty and has its blocks; its logits are `[rows, n_vocab]`.
    fn forward(&mut self, batch: &Batch, context: Context<'_>) -> Result<&[f32], StepError>;

    /// Copies the start of a block to another, in every layer.
    fn copy(&mut self, copy: &BlockCopy) -> Result<(), StepError>;

    /// Writes `header` and the keys and values of the first `len` tokens in `blocks`.
    fn save(
        &self,
        header: &SavedHeader,
        blocks: &[BlockId],
        len: usize,
        to: &mut dyn Write,
    ) -> Result<(), KvError>;

    /// Reads what [`save`](Self::save) wrote after `header` into `blocks`.
    fn restore(
        &mut self,
        header: &SavedHeader,
        blocks: &[BlockId],
        len: usize,
        from: &mut dyn Read,
    ) -> Result<(), KvError>;
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::kernels::cache::Format;
    use crate::load::LoadedModel;
    use crate::mapping::Mapping;
    use crate::session::CandleSession;
    use crate::weights::Weights;
    use crate::{compute, load};
    use candle_core::Device;
    use exsa_core::SeqId;
    use exsa_core::backend::{LoadProgress, ModelSource, Session, SessionOptions};
    use exsa_core::batch::Batch;
    use exsa_core::gguf::Gguf;
    use std::io::Cursor;
    use std::path::Path;
    use std::sync::Arc;

    fn loaded(name: &str, host: bool) -> Arc<LoadedModel> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.gguf"));
        let mapping = Arc::new(Mapping::open(&ModelSource::file(path)).unwrap());
        let gguf = Gguf::read(&mut Cursor::new(mapping.bytes())).unwrap();
        let config = Config::from_metadata(gguf.metadata()).unwrap();
        let (mut progress, team) = (LoadProgress::none(), compute::team(&Default::default()).unwrap());
        let weights = Weights::new(&gguf, mapping, Device::Cpu, host, &mut progress, team).unwrap();
        Arc::new(load::load(config, 1, weights).unwrap())
    }

    /// Chunks of two sequences, with and without logits, and one that was forked.
    fn logits(name: &str, device: Option<Device>, format: Format) -> Vec<f32> {
        let model = loaded(name, device.is_none());
        let mut session = CandleSession::new(model, device, format, &SessionOptions::default()).unwrap();
        let tokens: Vec<u32> = (0..90).map(|i| 3 + i * 37 % 500).collect();
        let mut all = Vec::new();
        let mut run = |session: &mut CandleSession, spans: &[(u32, usize, usize, usize)]| {
            let mut batch = Batch::new();
            for &(seq, position, len, rows) in spans {
                batch.push(SeqId(seq), position, &tokens[position..position + len], rows);
            }
            let logits = session.forward(&batch).unwrap();
            (0..logits.rows()).for_each(|row| all.extend_from_slice(logits.row(row).unwrap()));
        };
        run(&mut session, &[(0, 0, 50, 0), (1, 0, 7, 2)]);
        session.fork(SeqId(0), SeqId(2), 45).unwrap();
        run(&mut session, &[(0, 50, 40, 3), (1, 7, 1, 1), (2, 45, 5, 5)]);
        run(&mut session, &[(1, 8, 1, 0)]);
        let mut saved = Vec::new();
        session.save(SeqId(0), &mut saved).unwrap();
        session.release(SeqId(2));
        session.restore(SeqId(2), &mut saved.as_slice()).unwrap();
        session.truncate(SeqId(2), 80).unwrap();
        run(&mut session, &[(2, 80, 3, 3)]);
        all
    }

    /// What runs on GPUs, on candle's CPU device, against our kernels.
    #[test]
    fn both_executors_agree() {
        for name in [
            "llama-f32",
            "llama3-f32",
            "llama-bias-f32",
            "qwen2-f32",
            "qwen3-f32",
            "gemma2-f32",
            "gemma3-f32",
            "phi3-f32",
        ] {
            for format in [Format::F32, Format::F16] {
                let host = logits(name, None, format);
                let tensors = logits(name, Some(Device::Cpu), format);
                assert_eq!(host.len(), tensors.len());
                let scale = host.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
                let worst = host.iter().zip(&tensors).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let tolerance = if format == Format::F32 { 1e-5 } else { 2e-3 };
                assert!(worst < tolerance * scale, "{name} {format:?}: {worst} of {scale}");
            }
        }
    }
}
