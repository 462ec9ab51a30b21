//! Estimates against the memory that llama.cpp allocates: by its own account and by its log.

use crate::adapter::{Lora, Matrices};
use crate::estimate::{Wanted, estimate};
use crate::ffi::MemoryUse;
use crate::load;
use crate::log;
use crate::options::{ContextOptions, FlashAttention, KvLayout, ModelOptions};
use crate::pooling::PoolingFacts;
use crate::session::LlamaCppSession;
use crate::source::{self, Checked};
use exsa_core::SeqId;
use exsa_core::backend::{
    Fingerprint, KvType, LoadOptions, LoadProgress, MemoryEstimate, ModelSource, Pooling, Session,
    SessionOptions,
};
use exsa_core::batch::{Batch, Span, SpanAdapter};
use exsa_core::gguf::{GgmlType, GgufWriter, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// The log gives mebibytes with two decimals.
const LOG_ERROR: f64 = 0.005 * 1048576.0;

/// A model and a session to estimate and then to create.
#[derive(Clone)]
struct Case {
    model: ModelOptions,
    context: ContextOptions,
    session: SessionOptions,
    adapters: Vec<Lora>,
}

impl Default for Case {
    /// Without adapters of requests, whose memory no session takes before its first pass with one.
    fn default() -> Self {
        let session = SessionOptions::new().adapters(0, 0);
        Self {
            model: ModelOptions::default(),
            context: ContextOptions::default(),
            session,
            adapters: Vec::new(),
        }
    }
}

/// Bytes by kind, from the lines `... KIND buffer size = N MiB` of a log.
#[derive(Debug, Default)]
struct Logged {
    model: f64,
    kv: f64,
    compute: f64,
    output: f64,
    adapters: f64,
}

impl Logged {
    fn of(lines: &[String]) -> Self {
        let mut logged = Self::default();
        for line in lines {
            let Some((what, size)) = line.split_once(" buffer size =") else { continue };
            let mebibytes: f64 = size.trim().strip_suffix("MiB").unwrap().trim().parse().unwrap();
            let sum = match what.rsplit(' ').next().unwrap() {
                "model" => &mut logged.model,
                "KV" | "RS" => &mut logged.kv,
                "compute" => &mut logged.compute,
                "output" => &mut logged.output,
                "LoRA" => &mut logged.adapters,
                other => panic!("unknown buffer {other}: {line}"),
            };
            *sum += mebibytes * 1048576.0;
        }
        logged
    }
}

impl Case {
    fn estimate(&self, checked: &Checked<'_>) -> MemoryEstimate {
        let load = LoadOptions::new().device("cpu");
        let wanted = Wanted {
            model: &self.model,
            context: &self.context,
            adapters: &self.adapters,
            load: &load,
            session: &self.session,
        };
        let (estimate, lines) = log::with_lines(|| estimate(checked, &wanted).unwrap());
        // Nothing was allocated but rows of output.
        let logged = Logged::of(&lines);
        assert!(logged.model + logged.kv < 1.0, "{logged:?}");
        estimate
    }

    /// Creates model and session; the log of both.
    fn create(&self, checked: &Checked<'_>) -> (LlamaCppSession, Logged) {
        let load = LoadOptions::new().device("cpu");
        let (session, lines) = log::with_lines(|| {
            let mut model = load::load(checked, &self.model, &load, &mut LoadProgress::none()).unwrap();
            for adapter in &self.adapters {
                let read = adapter.open(&Matrices::of(checked)).unwrap();
                model.add_adapter(&read.gguf, adapter.scale).unwrap();
            }
            let pooling = PoolingFacts::of(&checked.gguf).unwrap().choose(self.session.pooling).unwrap();
            let (model, info) = (Arc::new(model), &checked.info);
            let (fingerprint, options) = (Fingerprint::default(), &self.session);
            LlamaCppSession::new(model, info, fingerprint, pooling, &self.context, options).unwrap()
        });
        (session, Logged::of(&lines))
    }
}

/// A pass over as many tokens as a batch holds, in as many sequences as there are.
fn run_largest(session: &mut LlamaCppSession) {
    let capabilities = session.capabilities().clone();
    let len =
        (capabilities.batch_tokens_max / capabilities.sequences_max).min(capabilities.context_tokens_max);
    let mut batch = Batch::new();
    for seq in 0..capabilities.sequences_max as u32 {
        batch.push(Span::tokens(SeqId(seq), 0, &vec![5; len]).rows(1));
    }
    session.forward(&batch).unwrap();
}

fn close(estimate: u64, actual: f64, percent: f64) -> bool {
    (estimate as f64 - actual).abs() <= actual * percent / 100.0 + LOG_ERROR
}

fn micro(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data")).join(name)
}

/// Models of several architectures and types in the repository, and those in the folder
/// `EXSA_ESTIMATE_MODELS`.
fn models() -> Vec<PathBuf> {
    let names =
        ["llama-f32", "llama-f16", "llama-q4_0", "llama-q8_0", "llama-q4_k_m", "gemma3-f32", "qwen3-f32"];
    let mut models: Vec<PathBuf> = names.iter().map(|name| micro(&format!("{name}.gguf"))).collect();
    models.push(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")));
    if let Some(folder) = std::env::var_os("EXSA_ESTIMATE_MODELS") {
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        models.extend(paths.filter(|path| path.extension().is_some_and(|ending| ending == "gguf")));
    }
    models
}

fn cases() -> Vec<Case> {
    let base = Case::default();
    let with = |change: fn(&mut Case)| {
        let mut case = base.clone();
        change(&mut case);
        case
    };
    vec![
        base.clone(),
        with(|case| case.model.mmap = false),
        with(|case| (case.model.mmap, case.model.repack) = (false, false)),
        with(|case| case.context.kv_layout = KvLayout::Unified),
        with(|case| (case.context.kv_layout, case.context.swa_full) = (KvLayout::Unified, false)),
        with(|case| case.context.flash_attention = FlashAttention::Off),
        with(|case| case.session.key_type = Some(KvType::Q8_0)),
        with(|case| {
            (case.session.key_type, case.session.value_type) = (Some(KvType::Q8_0), Some(KvType::Q4_0))
        }),
        with(|case| {
            (case.session.key_type, case.session.value_type) = (Some(KvType::F32), Some(KvType::Bf16))
        }),
        with(|case| case.context.ubatch_tokens_max = Some(64)),
        with(|case| case.session.sequences_max = 1),
        with(|case| case.session.context_tokens_max = Some(100)),
        with(|case| case.session.kv_tokens_max = Some(700)),
        with(|case| case.session.batch_tokens_max = 4096),
        with(|case| case.session.pooling = Some(Pooling::Mean)),
    ]
}

/// Whether the width of a head is a multiple of a quantized block.
fn has_whole_blocks(checked: &Checked<'_>) -> bool {
    let metadata = checked.gguf.metadata();
    let key = format!("{}.attention.key_length", checked.info.architecture);
    metadata.get::<u64>(&key).unwrap().is_none_or(|width| width % 32 == 0)
}

#[test]
fn estimates_are_what_llama_cpp_takes() {
    for path in models() {
        for (number, case) in cases().into_iter().enumerate() {
            let source = ModelSource::file(&path);
            let checked = source::open(&source).unwrap();
            if case.session.key_type == Some(KvType::Q8_0) && !has_whole_blocks(&checked) {
                continue;
            }
            let estimate = case.estimate(&checked);
            let (mut session, logged) = case.create(&checked);
            let name = format!("{} {number}: {estimate:?}, {logged:?}", path.display());

            // Its own account: to the byte.
            let MemoryUse { weights, kv, compute } = session.memory_use();
            assert_eq!(estimate.kv, kv, "{name}");
            assert!(estimate.scratch >= compute, "{name}: {compute}");
            if !case.model.mmap {
                assert_eq!(estimate.weights, weights, "{name}");
            }
            // Its log.
            assert!(close(estimate.kv, logged.kv, 1.0), "{name}");
            if case.model.mmap && weights > estimate.weights + estimate.weights / 20 {
                // Rearranged copies: the log counts the mapped file beside them.
                let file = checked.info.weights_bytes;
                assert!(logged.model <= (estimate.weights + file) as f64 + 2.0 * LOG_ERROR, "{name}");
                assert!(case.model.repack, "{name}");
            } else {
                assert!(close(estimate.weights, logged.model, 10.0), "{name}");
            }
            if case.session.pooling.is_none() {
                assert!(close(estimate.scratch, logged.compute + logged.output, 10.0), "{name}");
            }
            println!("{name}");

            // The largest pass takes no more. With large models of the folder it would take minutes.
            if case.session.pooling.is_none() && checked.info.parameters < 20_000_000 {
                run_largest(&mut session);
                let after = session.memory_use();
                assert_eq!((after.weights, after.kv), (weights, kv), "{name}");
                assert!(
                    close(estimate.scratch, after.compute as f64 + logged.output, 10.0),
                    "{name}: {after:?}"
                );
            }
        }
    }
}

/// From bytes in memory, as from the file.
#[test]
fn models_in_memory_take_as_much() {
    let bytes: Arc<[u8]> = std::fs::read(micro("llama-q4_0.gguf")).unwrap().into();
    let case = Case::default();
    let memory = ModelSource::Memory(bytes);
    let file = ModelSource::file(micro("llama-q4_0.gguf"));
    let of = |source: &ModelSource| case.estimate(&source::open(source).unwrap());
    assert_eq!(of(&memory), of(&file));
}

/// An adapter adds its matrices, and its products to passes.
#[test]
fn adapters_count() {
    let checked_source = ModelSource::file(micro("llama-f32.gguf"));
    let checked = source::open(&checked_source).unwrap();
    let target = "blk.0.ffn_up.weight";
    let shape = checked.tensor(target).unwrap().shape.clone();
    let rank = 64;
    let (a, b) = ([shape[0], rank], [rank, shape[1]]);
    let bytes_of = |shape: &[u64; 2]| vec![0; (shape[0] * shape[1] * 2) as usize];
    let gguf = GgufWriter::new()
        .key("general.type", Value::Str("adapter".into()))
        .key("general.architecture", Value::Str("llama".into()))
        .key("adapter.type", Value::Str("lora".into()))
        .tensor(&format!("{target}.lora_a"), &a, GgmlType::F16, bytes_of(&a))
        .tensor(&format!("{target}.lora_b"), &b, GgmlType::F16, bytes_of(&b));
    let path = std::env::temp_dir().join(format!("exsa-estimate-{}.gguf", std::process::id()));
    std::fs::write(&path, gguf.to_bytes()).unwrap();

    let plain = Case::default();
    let adapters = vec![Lora { path: path.clone(), scale: 1.0 }];
    let adapted = Case { adapters, ..plain.clone() };
    let (without, with) = (plain.estimate(&checked), adapted.estimate(&checked));
    assert_eq!(with.weights - without.weights, (shape[0] + shape[1]) * rank * 2);
    assert_eq!(with.kv, without.kv);

    let (mut session, logged) = adapted.create(&checked);
    run_largest(&mut session);
    let used = session.memory_use();
    let weights = used.weights as f64 + logged.adapters;
    assert!(close(with.weights, weights, 1.0), "{with:?}: {used:?}, {logged:?}");
    assert!(close(with.scratch, used.compute as f64 + logged.output, 10.0), "{with:?}: {used:?}, {logged:?}");
    std::fs::remove_file(path).unwrap();
}

/// Passes with adapters of requests take no more than was counted for them, and the session without them
/// counts nothing.
#[test]
fn adapters_of_requests_count() {
    for (name, context) in [("llama-f32.gguf", 512), ("qwen3-f32.gguf", 64)] {
        let source = ModelSource::file(micro(name));
        let checked = source::open(&source).unwrap();
        let rank = 64;
        let without = Case::default();
        let session = SessionOptions::new().adapters(4, rank).context_tokens(context);
        let with = Case { session, ..without.clone() };
        let architecture = Value::Str(checked.info.architecture.clone());
        let mut gguf = GgufWriter::new()
            .key("general.type", Value::Str("adapter".into()))
            .key("general.architecture", architecture)
            .key("adapter.type", Value::Str("lora".into()));
        for tensor in checked.tensors().filter(|t| t.name.starts_with("blk.") && t.shape.len() == 2) {
            for (end, shape) in
                [("lora_a", [tensor.shape[0], rank as u64]), ("lora_b", [rank as u64, tensor.shape[1]])]
            {
                let bytes = vec![0; (shape[0] * shape[1] * 2) as usize];
                gguf = gguf.tensor(&format!("{}.{end}", tensor.name), &shape, GgmlType::F16, bytes);
            }
        }
        let load = LoadOptions::new().device("cpu");
        let model = load::load(&checked, &with.model, &load, &mut LoadProgress::none()).unwrap();
        let model = Arc::new(model);
        let id = model.load_adapter(&gguf.to_bytes()).unwrap();
        let fingerprint = Fingerprint::default();
        let session = LlamaCppSession::new(
            model.clone(),
            &checked.info,
            fingerprint,
            None,
            &with.context,
            &with.session,
        );
        let mut session = session.unwrap();
        let len = session.capabilities().batch_tokens_max.min(session.capabilities().context_tokens_max);
        let before = session.memory_use().compute;
        for adapters in [&[][..], &[SpanAdapter { id, scale: 1.0 }][..]] {
            let mut batch = Batch::new();
            batch.push(Span::tokens(SeqId(0), 0, &vec![5; len]).rows(1).adapters(adapters));
            session.forward(&batch).unwrap();
            session.release(SeqId(0));
        }
        let (used, estimate) = (session.memory_use().compute, with.estimate(&checked).scratch);
        println!("{name}: {before} without, {used} with adapters, estimated {estimate}");
        assert!(used <= estimate, "{name}: {used}, but {estimate} was estimated");
        let plain = Case { session: with.session.clone().adapters(0, 0), ..with.clone() };
        assert!(plain.estimate(&checked).scratch <= estimate, "{name}");
    }
}
