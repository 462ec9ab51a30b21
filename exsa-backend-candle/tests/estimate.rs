//! Estimates of memory against what loading a model and running its largest batch takes, from the allocator
//! and from the system.
//!
//! A binary of its own with a single test that measures, because it counts for the whole process.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::{CandleBackend, bench_hooks};
use exsa_conformance::edit::Tensor;
use exsa_conformance::test_data;
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource, SessionOptions,
    ThreadOptions, ThreadTeam,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::gguf::{GgmlType, Gguf, TensorInfo, Value};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::edit_of;

struct Counting;

/// Bytes that are allocated.
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocated bytes and bytes of pages.
fn taken() -> (u64, u64) {
    (LIVE.load(Ordering::Relaxed) as u64, bench_hooks::page_bytes() as u64)
}

/// Types of weights that are packed.
const PACKED: [GgmlType; 25] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2K,
    GgmlType::Q3K,
    GgmlType::Q4K,
    GgmlType::Q5K,
    GgmlType::Q6K,
    GgmlType::Iq4Nl,
    GgmlType::Iq4Xs,
    GgmlType::Mxfp4,
    GgmlType::Iq3Xxs,
    GgmlType::Iq3S,
    GgmlType::Iq2Xxs,
    GgmlType::Iq2Xs,
    GgmlType::Iq2S,
    GgmlType::Iq1S,
    GgmlType::Iq1M,
    GgmlType::Tq1_0,
    GgmlType::Tq2_0,
];

/// Bytes that are read where they lie in the file: embeddings, and matrices of types that are not packed.
fn bytes_in_place(gguf: &Gguf) -> u64 {
    let in_place = gguf.tensors().iter().filter(|tensor| {
        tensor.name == "token_embd.weight" || tensor.shape.len() > 1 && !PACKED.contains(&tensor.dtype)
    });
    in_place.map(|tensor| tensor.bytes).sum()
}

fn gguf(source: &ModelSource) -> Gguf {
    match source {
        ModelSource::File(path) => Gguf::read(&mut Cursor::new(std::fs::read(path).unwrap())).unwrap(),
        ModelSource::Memory(bytes) => Gguf::read(&mut Cursor::new(bytes)).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Loads the model; returns it with the bytes that it took.
fn load(source: &ModelSource) -> (Arc<dyn Model>, u64) {
    let gguf = gguf(source);
    let (before, _) = taken();
    let tokenizer = exsa_core::tokenizer::load(gguf.metadata()).unwrap();
    let tokenizer_bytes = taken().0 - before;
    drop(tokenizer);
    let (heap, pages) = taken();
    let model = CandleBackend::new().load(source, &LoadOptions::new(), &mut LoadProgress::none()).unwrap();
    let (heap_now, pages_now) = taken();
    (model, heap_now - heap - tokenizer_bytes + pages_now - pages + bytes_in_place(&gguf))
}

/// Runs the largest batch, of all sequences, and a small one; the bytes of KV and of everything else.
fn session_bytes(model: &Arc<dyn Model>, options: &SessionOptions) -> (u64, u64) {
    let len = options.batch_tokens_max / options.sequences_max;
    let tokens: Vec<u32> = (0..len + 1).map(|i| 3 + i as u32 * 37 % 500).collect();
    let batch = |sequences: usize, start: usize, len: usize| {
        let mut batch = Batch::new();
        for seq in 0..sequences {
            batch.push(Span::tokens(SeqId(seq as u32), start, &tokens[start..start + len]).rows(1));
        }
        batch
    };
    let batches = [batch(options.sequences_max, 0, len), batch(1, len, 1)];
    assert_eq!(batches[0].len(), options.batch_tokens_max);
    let (heap, pages) = taken();
    let mut session = model.session(options).unwrap();
    for batch in &batches {
        session.forward(batch).unwrap();
    }
    let (heap_now, pages_now) = taken();
    (pages_now - pages, heap_now - heap)
}

fn sources() -> Vec<(String, ModelSource)> {
    let names = [
        "llama-bias-f32",
        "llama-f16",
        "llama-bf16",
        "llama-q2_k",
        "llama-q3_k",
        "llama-q4_0",
        "llama-q4_1",
        "llama-q4_k",
        "llama-q4_k_m",
        "llama-q5_0",
        "llama-q5_1",
        "llama-q5_k",
        "llama-q6_k",
        "llama-q8_0",
        "qwen3moe-q8_0",
        "gpt-oss-mxfp4",
    ];
    let mut sources: Vec<_> = support::ARCHITECTURES
        .into_iter()
        .chain(names)
        .map(|name| (name.to_owned(), ModelSource::file(support::data(&format!("{name}.gguf")))))
        .collect();
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");
    sources.push(("exsa-tiny-q8_0".to_owned(), ModelSource::file(built_in)));
    for name in ["exsa-tiny-f16.gguf", "exsa-tiny-q4_k_m.gguf", "stories260K-q8_0.gguf"] {
        sources.extend(test_data::model(name).map(|path| (name.to_owned(), ModelSource::file(path))));
    }
    for dtype in [GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q5_1] {
        sources.push((format!("135M shape in {dtype}"), generated(&[576, 9, 3, 1536, 4, 49_152], dtype)));
    }
    for dtype in [GgmlType::Q4K, GgmlType::Q6K] {
        sources.push((format!("1B shape in {dtype}"), generated(&[2048, 32, 8, 8192, 1, 8192], dtype)));
    }
    sources
}

/// A llama of that width, heads, heads of keys and values, MLP, layers and vocabulary, of zeros.
fn generated(
    &[n_embd, n_head, n_head_kv, n_ff, n_layer, n_vocab]: &[u64; 6],
    dtype: GgmlType,
) -> ModelSource {
    let mut edit = edit_of("llama-f32");
    edit.tensors.clear();
    for (key, value) in [
        ("embedding_length", n_embd),
        ("attention.head_count", n_head),
        ("attention.head_count_kv", n_head_kv),
        ("feed_forward_length", n_ff),
        ("block_count", n_layer),
        ("rope.dimension_count", n_embd / n_head),
        ("attention.key_length", n_embd / n_head),
        ("attention.value_length", n_embd / n_head),
    ] {
        edit = edit.set(&format!("llama.{key}"), Value::U32(value as u32));
    }
    let mut add = |name: String, shape: &[u64]| {
        let dtype = if shape.len() == 1 { GgmlType::F32 } else { dtype };
        let bytes = shape.iter().product::<u64>() / dtype.block_len() * dtype.block_bytes();
        edit.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, data: vec![0; bytes as usize] });
    };
    let width_kv = n_embd / n_head * n_head_kv;
    add("token_embd.weight".to_owned(), &[n_embd, n_vocab]);
    add("output_norm.weight".to_owned(), &[n_embd]);
    for layer in 0..n_layer {
        for (part, shape) in [
            ("attn_norm", [n_embd].as_slice()),
            ("ffn_norm", &[n_embd]),
            ("attn_q", &[n_embd, n_embd]),
            ("attn_k", &[n_embd, width_kv]),
            ("attn_v", &[n_embd, width_kv]),
            ("attn_output", &[n_embd, n_embd]),
            ("ffn_gate", &[n_embd, n_ff]),
            ("ffn_up", &[n_embd, n_ff]),
            ("ffn_down", &[n_ff, n_embd]),
        ] {
            add(format!("blk.{layer}.{part}.weight"), shape);
        }
    }
    edit.source()
}

/// Short texts for many users, long ones for few, types of keys and values, and threads. The scratch memory
/// for weights that are not packed is taken when a thread first has such a product, which a second one need
/// not have: then there is one.
fn sessions(source: &ModelSource) -> Vec<SessionOptions> {
    let packed = |tensor: &TensorInfo| tensor.shape.len() < 2 || PACKED.contains(&tensor.dtype);
    let threads = if gguf(source).tensors().iter().all(packed) { 2 } else { 1 };
    let one = SessionOptions::new().threads(ThreadOptions::compute(1));
    let two = SessionOptions::new().threads(ThreadOptions::compute(threads));
    vec![
        one.clone().sequences(8).batch_tokens(128),
        one.clone().sequences(1).context_tokens(100).batch_tokens(64).kv_type(KvType::F32),
        two.sequences(2).idle_sequences(3).kv_tokens(333).batch_tokens(32).kv_type(KvType::Q8_0),
        one.sequences(3).batch_tokens(51).team(&ThreadTeam::new(ThreadOptions::compute(threads))),
    ]
}

fn estimate(source: &ModelSource, options: &SessionOptions) -> MemoryEstimate {
    CandleBackend::new().estimate(source, &LoadOptions::new(), options).unwrap()
}

fn assert_close(what: &str, estimated: u64, taken: u64, tolerance: f64) {
    let difference = estimated.abs_diff(taken) as f64 / taken as f64;
    println!("{what}: {estimated} estimated, {taken} taken, {:.2} %", 100.0 * difference);
    assert!(difference < tolerance, "{what}: {estimated} estimated, {taken} taken");
}

#[test]
fn estimates_are_what_is_taken() {
    for (name, source) in sources() {
        let options = sessions(&source);
        let (before, pages) = taken();
        let estimates: Vec<_> =
            options.iter().map(|options| (options.clone(), estimate(&source, options))).collect();
        assert_eq!(taken().1, pages, "an estimate takes no memory");
        assert!(taken().0 - before < 1 << 16, "an estimate takes no memory");
        let (model, weights) = load(&source);
        for (options, estimate) in estimates {
            assert_close(&format!("{name}, weights"), estimate.weights, weights, 0.1);
            // Each on a thread of its own, since some scratch memory belongs to the thread.
            let (kv, scratch) =
                std::thread::scope(|scope| scope.spawn(|| session_bytes(&model, &options)).join().unwrap());
            assert_eq!(estimate.kv, kv, "{name}, {options:?}");
            assert_close(&format!("{name}, scratch, {options:?}"), estimate.scratch, scratch, 0.1);
        }
    }
}
