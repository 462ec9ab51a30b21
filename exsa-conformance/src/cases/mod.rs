//! The cases: each tests a part of the contract on a [`Fixture`](crate::Fixture).
//!
//! A case creates its own sessions and leaves nothing behind. A case for an operation
//! that the capabilities exclude checks that it is refused, and is then skipped.

mod adapters;
mod batches;
mod capacity;
mod damage;
mod embeddings;
mod estimates;
mod forks;
mod interrupts;
mod loading;
mod memory;
mod options;
mod refusals;
mod rows;
mod saving;
mod threads;
mod tokenizers;
mod truncation;

pub use adapters::{adapters_of_spans, adapters_that_are_refused};
pub use batches::{
    all_sequences_at_once, chunked_prefill_at_every_split, largest_batch, prefill_in_pieces, ragged_batches,
    rows_do_not_depend_on_the_batch_in_any_bit, spans_in_any_order,
};
pub use capacity::{
    a_batch_that_does_not_fit_changes_nothing, kv_capacity_reached, kv_runs_out_and_comes_back,
    shared_blocks_count_once,
};
pub use damage::{
    files_cut_short, impossible_headers, metadata_that_cannot_be, tensors_that_cannot_be,
    vocabularies_without_weights,
};
pub use embeddings::{embeddings_of_texts, embeds_that_are_refused};
pub use estimates::estimates_of_memory;
pub use forks::{flags_tell_the_truth, fork_outlives_its_source, fork_then_diverge, forks_that_are_refused};
pub use interrupts::{interrupt_in_mid_pass, raised_interrupt};
pub use loading::{
    devices, inspect_agrees_with_load, load_can_be_cancelled, load_progress, loads_at_the_same_time,
    missing_files, sources_give_the_same_model, unknown_device,
};
pub use memory::memory_returns_after_a_thousand_sequences;
pub use options::{capabilities_follow_the_options, options_that_are_refused, sessions_share_no_kv};
pub use refusals::{context_reached, too_large_batches, wrong_positions, wrong_sequences, wrong_tokens};
pub use rows::{contexts_are_told_apart, determinism, empty_batch, rows_asked_for};
pub use saving::{
    damaged_saved_kv_is_refused, restored_sequences_stand_alone, restores_that_are_refused, save_and_restore,
    streams_that_fail,
};
pub use threads::{
    results_by_number_of_threads, session_outlives_the_model_handle, sessions_on_several_threads,
};
pub use tokenizers::{
    control_tokens_only_where_allowed, encode_adds_only_the_text, ids_and_roles,
    long_texts_are_encoded_in_time, one_tokenizer_on_several_threads, tokenizer_on_random_texts,
    tokenizer_round_trips,
};
pub use truncation::{
    every_sequence_is_empty_at_the_start, release, truncate_again_and_again, truncate_then_go_on,
    truncations_that_are_refused,
};
