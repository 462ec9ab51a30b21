//! Saved and restored KV.

use super::forks::lengths;
use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::run::Run;
use exsa_core::SeqId;
use exsa_core::backend::{KvType, LoadProgress, SessionOptions};
use exsa_core::error::KvError;
use std::io::{self, Read, Write};

/// A session that can save and has two sequences, or the reason for a skip.
fn saving(fixture: &Fixture, options: &SessionOptions) -> Result<Result<Run, Outcome>, Failure> {
    let run = fixture.session_with(options)?;
    if !run.capabilities().save {
        return Ok(Err(Outcome::Skipped("the session declares that it cannot save".into())));
    }
    if run.capabilities().sequences_max < 2 {
        return Ok(Err(Outcome::Skipped("two sequences are required".into())));
    }
    Ok(Ok(run))
}

macro_rules! saving {
    ($fixture:expr, $options:expr) => {
        match saving($fixture, $options)? {
            Ok(run) => run,
            Err(skipped) => return Ok(skipped),
        }
    };
}

/// A sequence of any length, restored into another sequence or session, continues as the original.
pub fn save_and_restore(fixture: &Fixture) -> CaseResult {
    let mut run = saving!(fixture, &fixture.options());
    let mut other = fixture.session()?;
    let block = run.capabilities().block_tokens;
    let n = fixture.fitting(&run, 80) - 4;
    let (tokens, rest) = (fixture.tokens(n, 1)?, fixture.tokens(3, 2)?);
    let busy = fixture.tokens(block.min(n) + 1, 3)?;
    other.feed(0, 0, &busy, 0)?;
    for len in lengths(block, n) {
        run.feed(0, 0, &tokens[..len], 0)?;
        let input = format!("{len} tokens");
        let saved = check(clause::SAVE, format!("{input} saved")).works(run.save(0))?;
        let expected = plain(fixture, &[&tokens[..len], &rest[..]].concat())?.split_off(len);
        for (run, seq, place) in [(&mut run, 1, "in its session"), (&mut other, 1, "in another session")] {
            let check = check(clause::RESTORE, format!("{input} saved and restored {place}; then 3 more"));
            let restored = check.works(run.restore(seq, &saved))?;
            check.equal(restored, len)?;
            let rows = run.pass(&[(seq, len, &rest, 3)])?;
            check.same(&rows, &expected, fixture.row_tolerance())?;
            run.release(seq);
        }
        // Saving changes nothing.
        let rows = run.pass(&[(0, len, &rest, 3)])?;
        check(clause::SAVE, format!("{input} saved, then 3 more")).same(
            &rows,
            &expected,
            fixture.row_tolerance(),
        )?;
        run.release(0);
    }
    Ok(Outcome::Passed)
}

/// A restored sequence is a copy: it survives the original's release, and can be forked and truncated.
pub fn restored_sequences_stand_alone(fixture: &Fixture) -> CaseResult {
    let mut run = saving!(fixture, &fixture.options());
    let n = fixture.fitting(&run, 24).min(24) - 3;
    let (tokens, other) = (fixture.tokens(n, 1)?, fixture.tokens(n, 2)?);
    let next = fixture.tokens(2, 3)?;
    run.feed(0, 0, &tokens, 0)?;
    let check =
        check(clause::RESTORE, format!("{n} tokens saved, released, overwritten by others, restored"));
    let saved = check.works(run.save(0))?;
    run.release(0);
    run.feed(0, 0, &other, 0)?;
    check.equal(check.works(run.restore(1, &saved))?, n)?;
    let rows = run.pass(&[(0, n, &next, 2), (1, n, &next, 2)])?;
    let mut expected = plain(fixture, &[&other[..], &next].concat())?.split_off(n);
    expected.extend(plain(fixture, &[&tokens[..], &next].concat())?.split_off(n));
    check.same(&rows, &expected, fixture.tolerance)?;
    let capabilities = run.capabilities().clone();
    if capabilities.truncate && capabilities.fork && capabilities.sequences_max > 2 {
        check.works(run.truncate(1, n - 2))?;
        check.works(run.fork(1, 2, n - 4))?;
        let rows = run.pass(&[(1, n - 2, &next, 2), (2, n - 4, &next, 2)])?;
        let mut expected = plain(fixture, &[&tokens[..n - 2], &next].concat())?.split_off(n - 2);
        expected.extend(plain(fixture, &[&tokens[..n - 4], &next].concat())?.split_off(n - 4));
        check.same(&rows, &expected, fixture.tolerance)?;
    }
    Ok(Outcome::Passed)
}

/// Saved KV that is truncated or has changed bytes is refused; the target stays empty and usable.
pub fn damaged_saved_kv_is_refused(fixture: &Fixture) -> CaseResult {
    let mut run = saving!(fixture, &fixture.options());
    let n = fixture.fitting(&run, 20).min(20);
    let tokens = fixture.tokens(n, 1)?;
    let next = fixture.tokens(1, 2)?;
    run.feed(0, 0, &tokens, 0)?;
    let saved = check(clause::SAVE, format!("{n} tokens saved")).works(run.save(0))?;
    let mut cuts: Vec<usize> = (0..saved.len().min(80)).collect();
    cuts.extend((0..saved.len()).step_by((saved.len() / 40).max(1)));
    cuts.push(saved.len() - 1);
    let mut damaged: Vec<(String, Vec<u8>)> = cuts
        .into_iter()
        .map(|cut| (format!("the first {cut} of {} bytes", saved.len()), saved[..cut].to_vec()))
        .collect();
    damaged.push(("64 zero bytes".into(), vec![0; 64]));
    damaged.push(("4096 bytes of 0xff".into(), vec![0xff; 4096]));
    damaged
        .push(("text".into(), b"not saved KV at all, but text that is long enough to look like it".to_vec()));
    for (what, bytes) in damaged {
        let words = "KvError::Format";
        check(clause::RESTORE_REFUSED, format!("restore {what}")).refused(
            run.restore(1, &bytes),
            words,
            |error| matches!(error, KvError::Format(_)),
        )?;
    }
    // Any single changed byte: without a checksum it may go unnoticed, but nothing breaks.
    for at in (0..saved.len()).step_by((saved.len() / 200).max(1)) {
        let mut bytes = saved.clone();
        bytes[at] ^= 0x41;
        if let Ok(len) = run.restore(1, &bytes) {
            let check = check(clause::RESTORE_REFUSED, format!("byte {at} of {} changed", saved.len()));
            check.holds(!fixture.checksummed, "a refusal, as the fixture guarantees", "it was accepted")?;
            let context = run.capabilities().context_tokens_max;
            check.holds(len <= context, "a length within the context", len)?;
            // The result is not checked, only that the pass runs.
            run.try_pass(&[(1, len, &next, 1)]).ok();
            run.release(1);
        }
    }
    let check = check(clause::RESTORE_REFUSED, "the target after the refusals");
    check.equal(check.works(run.restore(1, &saved))?, n)?;
    let rows = run.pass(&[(0, n, &next, 1), (1, n, &next, 1)])?;
    let expected = plain(fixture, &[&tokens[..], &next].concat())?.split_off(n);
    check.same(&rows, &[expected.clone(), expected].concat(), fixture.tolerance)?;
    Ok(Outcome::Passed)
}

/// Non-empty targets, unknown ids, contexts and caches that are too small, KV of another model or type.
pub fn restores_that_are_refused(fixture: &Fixture) -> CaseResult {
    let mut run = saving!(fixture, &fixture.options());
    let beyond = run.capabilities().sequences_max as u32;
    let block = run.capabilities().block_tokens;
    let n = fixture.fitting(&run, (2 * block + 3).clamp(70, 200));
    let tokens = fixture.tokens(n, 1)?;
    run.feed(0, 0, &tokens, 0)?;
    run.feed(1, 0, &tokens[..3], 0)?;
    let saved = check(clause::SAVE, format!("{n} tokens saved")).works(run.save(0))?;
    for seq in [1, beyond, u32::MAX] {
        let words = format!("KvError::Sequence of sequence {seq}");
        let input = format!("restore into sequence {seq}, where 1 holds 3 tokens and ids end at {beyond}");
        check(clause::RESTORE_REFUSED, input).refused(
            run.restore(seq, &saved),
            &words,
            |error| matches!(error, KvError::Sequence { seq: s, .. } if *s == SeqId(seq)),
        )?;
    }
    for seq in [beyond, u32::MAX] {
        check(clause::RESTORE_REFUSED, format!("save sequence {seq} of {beyond}")).refused(
            run.save(seq),
            &format!("KvError::Sequence of sequence {seq}"),
            |error| matches!(error, KvError::Sequence { seq: s, .. } if *s == SeqId(seq)),
        )?;
    }
    let small = fixture.options().context_tokens(n / 2);
    let mut small = fixture.session_with(&small)?;
    if small.capabilities().context_tokens_max < n {
        let input =
            format!("restore {n} tokens into a context of {}", small.capabilities().context_tokens_max);
        check(clause::RESTORE_REFUSED, input).refused(
            small.restore(0, &saved),
            "KvError::Format",
            |error| matches!(error, KvError::Format(_) | KvError::Full { .. }),
        )?;
    }
    no_room(fixture, n, &saved)?;
    other_kv_types(fixture, &run, &saved)?;
    if let Some(source) = &fixture.other_model {
        let check = check(clause::RESTORE_REFUSED, "restore the saved KV of another model");
        let model =
            check.works(fixture.backend.load(source, &fixture.load_options, &mut LoadProgress::none()))?;
        let mut other = check.works(model.session(&fixture.options()))?;
        check.refused(other.restore(SeqId(0), &mut saved.as_slice()), "KvError::Format", |error| {
            matches!(error, KvError::Format(_))
        })?;
    }
    Ok(Outcome::Passed)
}

/// Saved KV is refused by sessions with other types of keys and values, if the backend supports several.
fn other_kv_types(fixture: &Fixture, saver: &Run, saved: &[u8]) -> Result<(), Failure> {
    let (f32, f16) = (KvType::F32, KvType::F16);
    for (keys, values) in [(f32, f32), (f32, f16), (f16, f32), (f16, f16), (KvType::Q8_0, KvType::Q8_0)] {
        let options = fixture.options().kv_types(keys, values);
        let Ok(session) = fixture.model()?.session(&options) else { continue };
        let mut other = Run::new(session, fixture.model()?.info().n_vocab);
        // Equal sizes mean the saver's own pair of types, or a backend without a choice of types.
        if other.session.kv_bytes_per_token() == saver.session.kv_bytes_per_token() {
            continue;
        }
        check(clause::RESTORE_REFUSED, format!("restore into keys of {keys} and values of {values}"))
            .refused(other.restore(0, saved), "KvError::Format", |error| {
                matches!(error, KvError::Format(_))
            })?;
    }
    Ok(())
}

/// A cache without enough room refuses with `Full`, and restores once there is room.
fn no_room(fixture: &Fixture, n: usize, saved: &[u8]) -> Result<(), Failure> {
    let options = fixture.options().kv_tokens(n);
    let mut run = fixture.session_with(&options)?;
    let capabilities = run.capabilities().clone();
    let taken = capabilities.kv_tokens_max - n + 1;
    if capabilities.sequences_max < 2 || capabilities.context_tokens_max < n.max(taken) {
        return Ok(());
    }
    let filler = fixture.tokens(taken, 8)?;
    run.feed(0, 0, &filler, 0)?;
    let input = format!("{taken} of {} tokens of KV are taken; restore {n}", capabilities.kv_tokens_max);
    check(clause::RESTORE_REFUSED, &input).refused(
        run.restore(1, saved),
        "KvError::Full, with more blocks needed than free",
        |error| matches!(error, KvError::Full { needed, free } if needed > free),
    )?;
    run.release(0);
    let check =
        check(clause::RESTORE_REFUSED, format!("{input}; then all is released, and it is restored again"));
    check.equal(check.works(run.restore(1, saved))?, n)
}

/// A reader that returns one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = to.len().min(1);
        self.0.read(&mut to[..n])
    }
}

/// A reader and writer that fails after this many bytes.
struct Broken(usize);

impl Broken {
    fn take(&mut self, n: usize) -> io::Result<usize> {
        let n = n.min(self.0);
        self.0 -= n;
        if n == 0 { Err(io::Error::other("the disk is gone")) } else { Ok(n) }
    }
}

impl Write for Broken {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if from.is_empty() { Ok(0) } else { self.take(from.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct BrokenRead<'a>(&'a [u8], Broken);

impl Read for BrokenRead<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = if to.is_empty() { 0 } else { self.1.take(to.len())? };
        self.0.read(&mut to[..n])
    }
}

/// Readers with short reads work; errors of readers and writers are reported, and nothing is lost.
pub fn streams_that_fail(fixture: &Fixture) -> CaseResult {
    let mut run = saving!(fixture, &fixture.options());
    let n = fixture.fitting(&run, 12).min(12);
    let tokens = fixture.tokens(n, 1)?;
    run.feed(0, 0, &tokens, 0)?;
    let saved = check(clause::SAVE, format!("{n} tokens saved")).works(run.save(0))?;
    let input = check(clause::RESTORE, "a reader that returns one byte at a time");
    input.equal(input.works(run.session.restore(SeqId(1), &mut Trickle(&saved)))?, n)?;
    run.release(1);
    for bytes in [0, 1, saved.len() / 2, saved.len() - 1] {
        let words = "KvError::Io";
        let gone = |error: &KvError| matches!(error, KvError::Io(_));
        let check_save = check(clause::SAVE, format!("a writer that fails after {bytes} bytes"));
        check_save.refused(run.session.save(SeqId(0), &mut Broken(bytes)), words, gone)?;
        let check_restore =
            check(clause::RESTORE_REFUSED, format!("a reader that fails after {bytes} bytes"));
        let mut reader = BrokenRead(&saved, Broken(bytes));
        check_restore.refused(run.session.restore(SeqId(1), &mut reader), words, gone)?;
    }
    let check = check(clause::RESTORE_REFUSED, "the target after the failures");
    check.equal(check.works(run.restore(1, &saved))?, n)?;
    Ok(Outcome::Passed)
}
