//! Once a session is warm, a forward pass allocates nothing.
//!
//! A binary of its own, because it counts for the whole process.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/adapter.rs"]
mod adapter;
mod support;

use exsa_backend_candle::CandleBackend;
use exsa_core::SeqId;
use exsa_core::backend::{
    AdapterLimits, InferenceBackend, KvType, LoadOptions, LoadProgress, ModelSource, SessionOptions,
    ThreadOptions, ThreadTeam,
};
use exsa_core::batch::{Batch, Span, SpanAdapter};
use exsa_core::gguf::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Prefills in chunks beside decodes, twice, with adapters for some spans or for none; returns the
/// allocations of the second time.
fn allocations(name: &str, options: &SessionOptions, adapted: bool) -> usize {
    let source = ModelSource::file(support::data(&format!("{name}.gguf")));
    let backend = CandleBackend::new();
    let model = backend.load(&source, &LoadOptions::default(), &mut LoadProgress::none()).unwrap();
    let mut session = model.session(options).unwrap();
    let base = support::edit_of(name);
    let Some(Value::Str(architecture)) = base.get("general.architecture") else { panic!() };
    let load = |(rank, seed)| {
        let adapter = adapter::gguf(architecture, 1.0, &adapter::pairs(&base, rank, seed, |_| true));
        let loaded = model.load_adapter(&adapter::source(&adapter), &AdapterLimits::new()).unwrap();
        SpanAdapter { id: loaded.id, scale: 1.0 }
    };
    let adapters = [(8, 1), (64, 2)].map(load);
    let adapters = if adapted { &adapters[..] } else { &[] };
    let first = &adapters[..adapters.len().min(1)];
    let tokens: Vec<u32> = (0..200).map(|i| 3 + i * 37 % 500).collect();
    let mut batches = Vec::new();
    for step in 0..60 {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), step, &tokens[step..step + 1]).rows(1).adapters(first));
        batch.push(Span::tokens(SeqId(1), step, &tokens[step..step + 1]).rows(1));
        if step < 4 {
            let rows = usize::from(step == 3);
            let span = Span::tokens(SeqId(2), step * 50, &tokens[step * 50..][..50]).rows(rows);
            batch.push(span.adapters(adapters));
            let span = Span::tokens(SeqId(3), step * 20, &tokens[step * 20..][..20]).rows(20);
            batch.push(span.adapters(first));
        }
        batches.push(batch);
    }
    let mut counts = [0; 2];
    for count in &mut counts {
        (0..4).for_each(|seq| session.release(SeqId(seq)));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for batch in &batches {
            assert_eq!(session.forward(batch).unwrap().rows(), batch.rows());
        }
        *count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    }
    assert!(counts[0] > 0, "the first time there is something to count");
    counts[1]
}

/// Types whose products are ours alone; what candle multiplies, it allocates for. Weights that are widened to
/// f32 are so in memory that a thread takes when it first has some to multiply, which with several threads
/// may be at any time.
#[test]
fn steady_state() {
    let packed = [
        "llama-q8_0",
        "llama-q4_k_m",
        "llama-q5_0",
        "llama-f16",
        "llama-bf16",
        "gemma3-f32",
        "phi3-f32",
        "granite-f32",
        "olmo3-f32",
        "cohere2-f32",
        "starcoder2-f32",
        "lfm2-f32",
        "qwen35-f32",
        "qwen3moe-q8_0",
        "qwen2moe-f32",
        "gpt-oss-mxfp4",
        "glm4moe-f32",
    ]
    .map(|name| (name, [1, 2].as_slice()));
    let widened = ["llama-q5_1"].map(|name| (name, [1].as_slice()));
    for (name, threads) in packed.into_iter().chain(widened) {
        for &threads in threads {
            for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
                let threads = ThreadOptions::compute(threads);
                let options = SessionOptions::new().kv_type(kv_type);
                for adapted in [false, true] {
                    let own = allocations(name, &options.clone().threads(threads), adapted);
                    assert_eq!(own, 0, "{name}, {kv_type:?}, {threads:?}, adapters: {adapted}");
                }
                let shared = allocations(name, &options.team(&ThreadTeam::new(threads)), true);
                assert_eq!(shared, 0, "{name}, {kv_type:?}, {threads:?}, a shared team");
            }
        }
    }
}
