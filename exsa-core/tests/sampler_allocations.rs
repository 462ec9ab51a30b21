//! Sampling does not allocate in the steady state, unless top log probabilities are requested.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::TokenId;
use exsa_core::sampler::{
    Accepted, Candidates, SampleScratch, SamplerContext, SamplingError, SamplingParams, Step, Transform,
    TransformFactory,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

/// The system's allocator, counted for each thread, since the test harness allocates on its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: `ptr` came from `System` with this layout, and the caller keeps to the rest of the
        // contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const N_VOCAB: usize = 20_000;

/// Allows most tokens by a mask, removes the best of them, and requests log probabilities.
#[derive(Debug)]
struct Masked(Vec<u64>);

impl Transform for Masked {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.retain(&self.0);
        candidates.remove_best(3);
    }

    fn needs_logprob(&self) -> bool {
        true
    }

    fn accept(&mut self, accepted: &Accepted) {
        assert!(accepted.logprob.is_some_and(|p| p <= 0.0));
    }
}

#[derive(Debug)]
struct MaskedFactory;

impl TransformFactory for MaskedFactory {
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(Masked(vec![!0b1001; context.n_vocab().div_ceil(64)])))
    }
}

#[test]
fn sampling_takes_no_memory() {
    let logit = |seed: u32, i: u32| (i.wrapping_mul(0x9e37_79b9 + seed) >> 20) as f32 / 400.0;
    let rows: Vec<Vec<f32>> =
        (0..4).map(|seed| (0..N_VOCAB as u32).map(|i| logit(seed, i)).collect()).collect();
    let history: Vec<TokenId> = (0..200).collect();
    let open = || SamplingParams::default().top_k(None).top_p(1.0).min_p(0.0);
    let masked: Arc<dyn TransformFactory> = Arc::new(MaskedFactory);
    for (params, transforms) in [
        (SamplingParams::greedy(), vec![]),
        (SamplingParams::default().logprobs(true), vec![]),
        (open(), vec![masked.clone()]),
        (open().top_p(0.9).repetition_penalty(1.1), vec![masked.clone()]),
        (open().typical_p(0.9).dry_multiplier(0.8).dry_sequence_breakers([""]).dynatemp_range(0.4), vec![]),
        (open().top_n_sigma(2.0).xtc_probability(0.5).xtc_threshold(0.001), vec![masked]),
    ] {
        let mut sampler = params.build_with(&SamplerContext::new(N_VOCAB), &transforms).unwrap();
        let mut scratch = SampleScratch::default();
        let mut run = |positions: std::ops::Range<u64>| {
            let before = ALLOCATIONS.get();
            for position in positions {
                let row = &rows[position as usize % rows.len()];
                let sampled = sampler.sample(row, &history, position, &mut scratch).unwrap();
                sampler.accept(sampled.token);
            }
            ALLOCATIONS.get() - before
        };
        run(0..8);
        assert_eq!(run(8..40), 0, "{params:?}");
    }
}
