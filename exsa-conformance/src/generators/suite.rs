//! The list of cases for generators.

use super::GeneratorFixture;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::suite::Report;

/// A case: a test of a part of the contract on a generator.
#[derive(Clone, Copy, Debug)]
pub struct GeneratorCase {
    /// Name of the function in [`generators`](crate::generators).
    pub name: &'static str,
    /// The function.
    pub run: fn(&GeneratorFixture) -> CaseResult,
}

/// Runs every case in turn.
pub fn run_all(fixture: &GeneratorFixture) -> Report {
    let mut report = Report::default();
    for case in GENERATOR_CASES {
        match (case.run)(fixture) {
            Ok(Outcome::Passed) => report.passed.push(case.name),
            Ok(Outcome::Skipped(reason)) => report.skipped.push((case.name, reason)),
            Err(failure) => report.failed.push((case.name, failure)),
        }
    }
    report
}

/// Runs one case as a test; skips are printed. For [`mount_generator!`](crate::mount_generator).
#[doc(hidden)]
pub fn run_mounted(
    run: fn(&GeneratorFixture) -> CaseResult,
    fixture: impl Into<Option<GeneratorFixture>>,
) -> Result<(), Failure> {
    match fixture.into() {
        None => eprintln!("skipped: the fixture is not available"),
        Some(fixture) => {
            if let Outcome::Skipped(reason) = run(&fixture)? {
                eprintln!("skipped: {reason}");
            }
        }
    }
    Ok(())
}

macro_rules! list {
    ($($case:ident),+ $(,)?) => {
        /// Every case, in the order of [`run_all`].
        pub const GENERATOR_CASES: &[GeneratorCase] =
            &[$(GeneratorCase { name: stringify!($case), run: crate::generators::$case }),+];

        #[doc(hidden)]
        #[macro_export]
        macro_rules! __generator_tests {
            ($fixture:expr) => {
                $(
                    #[test]
                    fn $case() -> ::std::result::Result<(), $crate::Failure> {
                        $crate::generators::run_mounted($crate::generators::$case, $fixture)
                    }
                )+
            };
        }
    };
}

/// Turns every generator case into a test, for one or several fixtures.
///
/// A fixture is an expression of type [`GeneratorFixture`] or `Option<GeneratorFixture>`; with `None` the
/// tests report a skip. It is evaluated for every test. The [module](crate::generators) has an example.
#[macro_export]
macro_rules! mount_generator {
    ($($name:ident: $fixture:expr),+ $(,)?) => {
        $(
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                $crate::__generator_tests!($fixture);
            }
        )+
    };
}

list! {
    the_models_are_named,
    wrong_requests_are_refused,
    check_agrees_with_submit,
    every_request_ends_once,
    a_cancelled_request_ends,
    a_dropped_stream_ends_its_request,
    time_limits_end_requests,
    greedy_answers_do_not_change,
    answers_are_reproducible,
    limits_of_tokens_hold,
    usage_counts_the_tokens,
    stop_strings_are_no_part_of_the_text,
    several_answers_end_once,
    an_answer_resumes_after_any_token,
    many_requests_at_once_are_those_alone,
    a_consumer_that_does_not_read_delays_no_other,
}
