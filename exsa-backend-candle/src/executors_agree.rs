//! The executor on tensors, on candle's CPU device, against the kernels of the host.

#[path = "../tests/support/architectures.rs"]
mod architectures;

use crate::kernels::quantized::Isa;
use crate::load::LoadedModel;
use crate::load_steps::LoadSteps;
use crate::mapping::Mapping;
use crate::session::CandleSession;
use crate::weights::Weights;
use crate::{compute, load};
use architectures::ARCHITECTURES;
use candle_core::Device;
use exsa_core::SeqId;
use exsa_core::backend::{KvType, LoadProgress, ModelSource, Session, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::gguf::Gguf;
use exsa_models::ModelDescription;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

fn loaded(name: &str, host: bool) -> Arc<LoadedModel> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.gguf"));
    let mapping = Arc::new(Mapping::open(&ModelSource::file(path)).unwrap());
    let gguf = Gguf::read(&mut Cursor::new(mapping.bytes())).unwrap();
    let model = ModelDescription::read(&gguf, 1).unwrap();
    let (mut progress, team) = (LoadProgress::none(), compute::team(&Default::default()).unwrap());
    let steps = LoadSteps::new(&mut progress, 0).unwrap();
    let weights = Weights::new(&gguf, mapping, Device::Cpu, host.then(Isa::detect), steps, team);
    Arc::new(load::load(model, weights).unwrap())
}

/// Chunks of two sequences, with and without logits, and one that was forked.
fn logits(name: &str, device: Option<Device>, kv_type: KvType) -> Vec<f32> {
    let model = loaded(name, device.is_none());
    let host = device.is_none();
    let mut session = CandleSession::new(model, device, &SessionOptions::new().kv_type(kv_type)).unwrap();
    assert_eq!(session.capabilities().batch_invariant, host);
    let tokens: Vec<u32> = (0..90).map(|i| 3 + i * 37 % 500).collect();
    let mut all = Vec::new();
    let mut run = |session: &mut CandleSession, spans: &[(u32, usize, usize, usize)]| {
        let mut batch = Batch::new();
        for &(seq, position, len, rows) in spans {
            batch.push(Span::tokens(SeqId(seq), position, &tokens[position..position + len]).rows(rows));
        }
        let logits = session.forward(&batch).unwrap().logits().unwrap();
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

/// The executor of GPUs, on candle's CPU device, against our kernels.
#[test]
fn both_executors_agree() {
    for name in ARCHITECTURES.into_iter().chain(["llama-bias-f32"]) {
        for kv_type in [KvType::F32, KvType::F16] {
            let host = logits(name, None, kv_type);
            let tensors = logits(name, Some(Device::Cpu), kv_type);
            assert_eq!(host.len(), tensors.len());
            let scale = host.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
            let worst = host.iter().zip(&tensors).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let tolerance = if kv_type == KvType::F32 { 1e-5 } else { 2e-3 };
            assert!(worst < tolerance * scale, "{name} {kv_type:?}: {worst} of {scale}");
        }
    }
}
