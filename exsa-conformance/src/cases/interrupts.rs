//! Interrupted passes.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::run::{Part, Run};
use exsa_core::error::StepError;
use std::time::{Duration, Instant};

/// A raised interrupt ends every pass until cleared; then
/// the session continues from the state that core restores.
pub fn raised_interrupt(fixture: &Fixture) -> CaseResult {
    let options = fixture.options();
    let interrupt = options.interrupt.clone();
    let mut run = fixture.session_with(&options)?;
    let n = fixture.fitting(&run, 14) - 2;
    let (tokens, next) = (fixture.tokens(n, 1)?, fixture.tokens(2, 2)?);
    let sequences = run.capabilities().sequences_max.min(2) as u32;
    for seq in 0..sequences {
        run.feed(seq, 0, &tokens, 0)?;
    }
    interrupt.raise();
    for pass in 0..3 {
        let check = check(clause::INTERRUPT, format!("pass {pass} while the interrupt is raised"));
        check.refused(run.try_pass(&[(0, n, &next, 1)]), "StepError::Interrupted", |error| {
            matches!(error, StepError::Interrupted)
        })?;
        if !run.roll_back(0, n) {
            interrupt.clear();
            run.feed(0, 0, &tokens, 0)?;
            interrupt.raise();
        }
    }
    interrupt.clear();
    let expected = plain(fixture, &[&tokens[..], &next].concat())?.split_off(n);
    for seq in (0..sequences).rev() {
        let check = check(clause::AFTER_ERROR, format!("sequence {seq} after the interrupt was cleared"));
        let rows = check.works(run.try_pass(&[(seq, n, &next, 2)]))?;
        check.same(&rows, &expected, fixture.tolerance)?;
    }
    Ok(Outcome::Passed)
}

/// Interrupts from another thread at any time during a long pass: the pass returns its rows or reports the
/// interrupt, and the session continues to work.
pub fn interrupt_in_mid_pass(fixture: &Fixture) -> CaseResult {
    let options = fixture.options();
    let interrupt = options.interrupt.clone();
    let mut run = fixture.session_with(&options)?;
    let n = fixture.fitting(&run, 256) - 2;
    let tokens = fixture.tokens(n, 1)?;
    let head = 5.min(n / 2);
    let whole = plain(fixture, &tokens)?;
    run.feed(0, 0, &tokens[..head], 0)?;
    let rest: [Part<'_>; 1] = [(0, head, &tokens[head..], n - head)];
    // The fastest of three, since other load on the machine slows down passes.
    let mut time = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        run.pass(&rest)?;
        time = time.min(start.elapsed());
        put_back(&mut run, &tokens[..head])?;
    }
    let (mut interrupted, mut in_mid_pass) = (0, 0);
    const ATTEMPTS: u32 = 24;
    for attempt in 0..ATTEMPTS {
        let delay = time * attempt / ATTEMPTS;
        let (result, start, raised) = std::thread::scope(|scope| {
            let raise = scope.spawn(|| {
                std::thread::sleep(delay);
                interrupt.raise();
                Instant::now()
            });
            let start = Instant::now();
            let result = run.try_pass(&rest);
            (result, start, raise.join().ok())
        });
        interrupt.clear();
        let input = format!("a pass of {} tokens, interrupted after {delay:?} of about {time:?}", n - head);
        match result {
            Ok(rows) => {
                let check = check(clause::INTERRUPT, format!("{input}; it came to its end"));
                check.same(&rows, &whole[head..].to_vec(), fixture.tolerance)?;
            }
            Err(StepError::Interrupted) => {
                interrupted += 1;
                in_mid_pass += u32::from(raised.is_some_and(|raised| raised > start + time / 50));
            }
            Err(error) => {
                let check = check(clause::INTERRUPT, input);
                return Err(check.fail("its rows, or StepError::Interrupted", error.to_string()));
            }
        }
        put_back(&mut run, &tokens[..head])?;
    }
    // Short passes may end before the other thread runs, especially
    // on a busy machine, so only long passes must be interrupted.
    if time > Duration::from_millis(500) {
        let input = format!("{ATTEMPTS} passes of {time:?}, each interrupted at another moment");
        check(clause::INTERRUPT, input).holds(
            in_mid_pass > 0,
            "at least one that had begun is interrupted",
            format!("{interrupted} interrupted, none of them after it had begun"),
        )?;
    }
    let rows = run.pass(&[(0, head, &tokens[head..], n - head)])?;
    check(clause::AFTER_ERROR, format!("the same pass after {interrupted} interrupts")).same(
        &rows,
        &whole[head..].to_vec(),
        fixture.tolerance,
    )?;
    Ok(Outcome::Passed)
}

/// Rolls sequence 0 back to its first tokens.
fn put_back(run: &mut Run, head: &[u32]) -> Result<(), Failure> {
    if !run.roll_back(0, head.len()) {
        run.feed(0, 0, head, 0)?;
    }
    Ok(())
}
