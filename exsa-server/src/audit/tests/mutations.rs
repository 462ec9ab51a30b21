//! Verification: each mutation of a log is found.

use super::disk::Disk;
use super::durability::{open, options};
use crate::audit::checkpoint::{PublicKey, SigningKey};
use crate::audit::log::{Fsync, Log};
use crate::audit::record::{Act, Record};
use crate::audit::verify::{Finding, Summary, Verifier, VerifyOptions};
use proptest::prelude::*;
use std::time::SystemTime;

pub(super) type Files = Vec<(String, Vec<u8>)>;

pub(super) fn verify(
    files: &Files,
    checkpoints: Option<&str>,
    options: VerifyOptions,
) -> (Summary, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut verifier =
        Verifier::new(options, checkpoints.map(str::as_bytes), |finding| findings.push(finding));
    for (name, bytes) in files {
        verifier.file(name, &bytes[..]).unwrap();
    }
    let summary = verifier.end().unwrap();
    (summary, findings)
}

pub(super) fn findings(files: &Files) -> Vec<String> {
    verify(files, None, VerifyOptions::default()).1.iter().map(ToString::to_string).collect()
}

/// A log of `lines` lines, and the checkpoints of a second place, one each 5 lines.
fn log(lines: u64, key: Option<SigningKey>) -> (Files, String) {
    let (disk, now) = (Disk::default(), SystemTime::now());
    let (mut log, _) =
        Log::open(disk.clone(), crate::audit::log::LogOptions { key, ..options(Fsync::Every) }, now).unwrap();
    let mut checkpoints = String::new();
    while log.count() < lines {
        match log.count() % 5 {
            4 => {
                let checkpoint = log.checkpoint(now).unwrap();
                checkpoints += &(serde_json::to_string(&checkpoint).unwrap() + "\n");
            }
            _ => drop(log.push(&Record::new(Act::Request).detail(format!("line {}", log.count() + 1)), now)),
        }
        log.write(now).unwrap();
    }
    (disk.log(), checkpoints)
}

/// The files with `change` made to their lines.
fn changed(files: &Files, change: impl FnOnce(&mut Vec<(usize, Vec<u8>)>)) -> Files {
    let mut lines = Vec::new();
    for (file, (_, bytes)) in files.iter().enumerate() {
        lines.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(|line| (file, line.to_vec())));
    }
    change(&mut lines);
    let bytes =
        |file| lines.iter().filter(|(of, _)| *of == file).flat_map(|(_, line)| line.clone()).collect();
    files.iter().enumerate().map(|(file, (name, _))| (name.clone(), bytes(file))).collect()
}

fn key() -> SigningKey {
    SigningKey::read(&SigningKey::generate().unwrap()).unwrap()
}

fn signed_by(key: PublicKey) -> VerifyOptions {
    VerifyOptions::default().key(key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_altered_byte_is_found(lines in 3_u64..40, at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let (files, checkpoints) = log(lines, None);
        let mut hit = 0;
        let altered = changed(&files, |lines| {
            hit = at.index(lines.len());
            let line = &mut lines[hit].1;
            let byte = at.index(line.len());
            line[byte] ^= flip;
        });
        let (_, found) = verify(&altered, Some(&checkpoints), VerifyOptions::default());
        let unchecked_end = hit as u64 + 1 == lines && found.is_empty();
        // The last line has no successor and no checkpoint: only its form or number can tell.
        prop_assert!(!found.is_empty() || unchecked_end, "line {} of {}", hit + 1, lines);
    }

    #[test]
    fn an_altered_fact_names_its_line(lines in 4_u64..40, at in any::<prop::sample::Index>()) {
        let (files, _) = log(lines, None);
        let hit = at.index(lines as usize - 2);
        let altered = changed(&files, |lines| {
            let text = String::from_utf8(lines[hit].1.clone()).unwrap();
            lines[hit].1 = text.replace("\"act\":\"", "\"act\":\"x").into_bytes();
        });
        let (_, found) = verify(&altered, None, VerifyOptions::default());
        prop_assert!(matches!(&found[..], [Finding::Altered { seq, .. }] if *seq == hit as u64 + 1), "{:?}", found);
    }

    #[test]
    fn a_missing_line_is_named(lines in 3_u64..40, at in any::<prop::sample::Index>(), count in 1_usize..4) {
        let (files, _) = log(lines, None);
        let first = at.index(lines as usize - 1);
        let last = (first + count).min(lines as usize - 1);
        let cut = changed(&files, |lines| drop(lines.drain(first..last)));
        let (_, found) = verify(&cut, None, VerifyOptions::default());
        let named = matches!(
            &found[..],
            [Finding::Missing { first: a, last: b, .. }] if (*a, *b) == (first as u64 + 1, last as u64)
        );
        prop_assert!(named, "{:?}", found);
    }

    #[test]
    fn reordered_lines_are_named(lines in 3_u64..40, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (files, _) = log(lines, None);
        let (a, b) = (a.index(lines as usize), b.index(lines as usize));
        prop_assume!(a != b);
        let swapped = changed(&files, |lines| {
            let moved = lines[a].1.clone();
            lines[a].1 = std::mem::replace(&mut lines[b].1, moved);
        });
        let (_, found) = verify(&swapped, None, VerifyOptions::default());
        let reordered = |finding: &Finding| matches!(finding, Finding::Reordered { .. });
        prop_assert!(found.iter().any(reordered), "{:?}", found);
    }

    #[test]
    fn a_repeated_line_is_named(lines in 2_u64..40, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let (files, _) = log(lines, None);
        let (from, to) = (from.index(lines as usize), to.index(lines as usize + 1));
        prop_assume!(to > from);
        let repeated = changed(&files, |lines| {
            let line = lines[from].clone();
            let file = lines[to - 1].0;
            lines.insert(to, (file, line.1));
        });
        let (_, found) = verify(&repeated, None, VerifyOptions::default());
        let named = matches!(&found[..], [Finding::Repeated { seq, .. }] if *seq == from as u64 + 1);
        prop_assert!(named, "{:?}", found);
    }

    #[test]
    fn truncation_is_found_by_the_checkpoints(lines in 6_u64..40, keep in any::<prop::sample::Index>(), torn in 0_usize..40) {
        let (files, checkpoints) = log(lines, None);
        let checkpointed = lines / 5 * 5 - 1;
        let keep = keep.index(checkpointed as usize);
        let cut = changed(&files, |lines| {
            lines.truncate(keep + 1);
            let last = lines.last_mut().unwrap();
            last.1.truncate(torn);
            if last.1.is_empty() {
                lines.pop();
            }
        });
        let (_, found) = verify(&cut, Some(&checkpoints), VerifyOptions::default());
        let truncated = |finding: &Finding| matches!(finding, Finding::Truncated { count, .. } if *count == checkpointed);
        prop_assert!(found.iter().any(truncated), "{:?}", found);
        let torn = found.iter().any(|finding| matches!(finding, Finding::Torn { .. }));
        prop_assert_eq!(torn, cut.iter().any(|(_, bytes)| bytes.last().is_some_and(|byte| *byte != b'\n')));
    }

    /// A verification of hostile bytes ends and does not panic.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), checkpoints in ".{0,200}") {
        verify(&vec![("a".into(), bytes)], Some(&checkpoints), VerifyOptions::default());
    }
}

#[test]
fn a_whole_log_has_no_findings() {
    let key = key();
    let options = signed_by(key.public());
    let (files, checkpoints) = log(38, Some(key));
    assert!(files.len() > 3, "rotated");
    let (summary, found) = verify(&files, Some(&checkpoints), options);
    assert_eq!(found, []);
    assert_eq!((summary.lines, summary.first, summary.last), (38, 1, 38));
    assert_eq!((summary.checkpoints, summary.signed), (14, 34));
}

#[test]
fn a_chain_that_was_computed_anew_is_found_by_signatures() {
    let key = key();
    let options = signed_by(key.public());
    let (_, checkpoints) = log(20, Some(key));
    // Another key signs the forged chain, or none.
    for forger in [None, Some(self::key())] {
        let (forged, _) = log(20, forger);
        let (_, found) = verify(&forged, None, options.clone());
        assert!(matches!(found.last(), Some(Finding::Unsigned)), "{found:?}");
        let (_, found) = verify(&forged, Some(&checkpoints), options.clone());
        assert!(found.iter().any(|finding| matches!(finding, Finding::Checkpoint { .. })), "{found:?}");
    }
}

#[test]
fn forged_checkpoints_raise_no_alarm_of_truncation() {
    let key = key();
    let options = signed_by(key.public());
    let (files, checkpoints) = log(9, Some(key));
    let forged = checkpoints.clone() + &checkpoints.replace("\"count\":4,", "\"count\":99,");
    let (_, found) = verify(&files, Some(&forged), options);
    assert!(matches!(&found[..], [Finding::Signature { count: 99, .. }]), "{found:?}");
}

#[test]
fn the_first_files_may_be_archived() {
    let (files, checkpoints) = log(38, None);
    let rest = files[1..].to_vec();
    let (_, found) = verify(&rest, Some(&checkpoints), VerifyOptions::default());
    assert!(matches!(&found[..], [Finding::Missing { first: 1, .. }]), "{found:?}");
    let (_, found) = verify(&rest, Some(&checkpoints), VerifyOptions::default().partial(true));
    assert_eq!(found, []);
}

#[test]
fn an_empty_log_is_no_whole_log() {
    let (_, found) = verify(&vec![], None, VerifyOptions::default());
    assert_eq!(found, [Finding::Empty]);
    let disk = Disk::default();
    let mut log = open(&disk, Fsync::Never);
    log.push(&Record::new(Act::Start), SystemTime::now());
    log.write(SystemTime::now()).unwrap();
    assert_eq!(findings(&disk.log()), Vec::<String>::new());
}
