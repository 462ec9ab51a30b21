//! The list of cases, and ways to run them.

use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::{Fixture, IntoFixture};

/// A case: a test of a part of the contract on a fixture.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name of the function in [`cases`](crate::cases).
    pub name: &'static str,
    /// The function.
    pub run: fn(&Fixture) -> CaseResult,
}

/// Results of [`run_all`].
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that passed.
    pub passed: Vec<&'static str>,
    /// Cases that were skipped, with the reasons.
    pub skipped: Vec<(&'static str, String)>,
    /// Cases that failed.
    pub failed: Vec<(&'static str, Failure)>,
}

/// Runs every case in turn; the model is loaded once.
pub fn run_all(fixture: &Fixture) -> Report {
    let mut report = Report::default();
    for case in CASES {
        match (case.run)(fixture) {
            Ok(Outcome::Passed) => report.passed.push(case.name),
            Ok(Outcome::Skipped(reason)) => report.skipped.push((case.name, reason)),
            Err(failure) => report.failed.push((case.name, failure)),
        }
    }
    report
}

/// Runs one case as a test; skips are printed. For [`mount!`](crate::mount).
#[doc(hidden)]
pub fn run_mounted(run: fn(&Fixture) -> CaseResult, fixture: impl IntoFixture) -> Result<(), Failure> {
    match fixture.into_fixture() {
        None => eprintln!("skipped: the fixture is not available"),
        Some(fixture) => {
            if let Outcome::Skipped(reason) = run(&fixture)? {
                eprintln!("skipped: {reason}");
            }
        }
    }
    Ok(())
}

/// Single list of case names, for `CASES` and for the macro.
macro_rules! list {
    ($($case:ident),+ $(,)?) => {
        /// Every case, in the order of [`run_all`].
        pub const CASES: &[Case] = &[$(Case { name: stringify!($case), run: crate::cases::$case }),+];

        #[doc(hidden)]
        #[macro_export]
        macro_rules! __tests {
            ($fixture:expr) => {
                $(
                    #[test]
                    fn $case() -> ::std::result::Result<(), $crate::Failure> {
                        $crate::run_mounted($crate::cases::$case, $fixture)
                    }
                )+
            };
        }
    };
}

/// Turns every case into a test, for one or several fixtures.
///
/// A fixture is an expression of type [`Fixture`] or `Option<Fixture>`; with `None` the tests report a skip.
/// It is evaluated for every test.
///
/// ```
/// use exsa_conformance::Fixture;
/// use exsa_core::backend::ModelSource;
/// use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
///
/// fn scripted(block_tokens: usize) -> Fixture {
///     let backend = ScriptedBackend::new(ScriptedModel::ngram(1).context(64).kv(1024, block_tokens));
///     Fixture::new(backend, ModelSource::Embedded(b"")).reads_no_files()
/// }
///
/// exsa_conformance::mount! {
///     cells: scripted(1),
///     blocks: scripted(16),
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! mount {
    ($($name:ident: $fixture:expr),+ $(,)?) => {
        $(
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                $crate::__tests!($fixture);
            }
        )+
    };
    ($fixture:expr) => {
        $crate::__tests!($fixture);
    };
}

list! {
    adapters_of_spans,
    adapters_that_are_refused,
    contexts_are_told_apart,
    all_sequences_at_once,
    chunked_prefill_at_every_split,
    largest_batch,
    prefill_in_pieces,
    ragged_batches,
    rows_do_not_depend_on_the_batch_in_any_bit,
    spans_in_any_order,
    a_batch_that_does_not_fit_changes_nothing,
    kv_capacity_reached,
    kv_runs_out_and_comes_back,
    shared_blocks_count_once,
    files_cut_short,
    impossible_headers,
    metadata_that_cannot_be,
    tensors_that_cannot_be,
    vocabularies_without_weights,
    embeddings_of_texts,
    embeds_that_are_refused,
    estimates_of_memory,
    flags_tell_the_truth,
    fork_outlives_its_source,
    fork_then_diverge,
    forks_that_are_refused,
    interrupt_in_mid_pass,
    raised_interrupt,
    devices,
    inspect_agrees_with_load,
    load_can_be_cancelled,
    load_progress,
    loads_at_the_same_time,
    missing_files,
    sources_give_the_same_model,
    unknown_device,
    memory_returns_after_a_thousand_sequences,
    capabilities_follow_the_options,
    options_that_are_refused,
    sessions_share_no_kv,
    context_reached,
    too_large_batches,
    wrong_positions,
    wrong_sequences,
    wrong_tokens,
    determinism,
    empty_batch,
    rows_asked_for,
    damaged_saved_kv_is_refused,
    restored_sequences_stand_alone,
    restores_that_are_refused,
    save_and_restore,
    streams_that_fail,
    results_by_number_of_threads,
    session_outlives_the_model_handle,
    sessions_on_several_threads,
    control_tokens_only_where_allowed,
    encode_adds_only_the_text,
    ids_and_roles,
    long_texts_are_encoded_in_time,
    one_tokenizer_on_several_threads,
    tokenizer_on_random_texts,
    tokenizer_round_trips,
    every_sequence_is_empty_at_the_start,
    release,
    truncate_again_and_again,
    truncate_then_go_on,
    truncations_that_are_refused,
}
