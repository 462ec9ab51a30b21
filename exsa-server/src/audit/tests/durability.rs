//! Crashes: no line that was reported as stable is lost, and the chain verifies.

use super::disk::Disk;
use super::mutations::{findings, verify};
use crate::audit::log::{Fsync, Log, LogOptions};
use crate::audit::record::{Act, Record};
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

pub(super) fn options(fsync: Fsync) -> LogOptions {
    let name = "test".into();
    LogOptions { fsync, rotate_bytes: 2000, rotate_age: None, pending_max: 1 << 20, name, key: None }
}

/// Opens a log and writes the records of its repair.
pub(super) fn open(disk: &Disk, fsync: Fsync) -> Log<Disk> {
    let now = SystemTime::now();
    let (mut log, repairs) = Log::open(disk.clone(), options(fsync), now).unwrap();
    for record in &repairs {
        log.push(record, now);
    }
    log
}

fn record(name: u64) -> Record {
    Record::new(Act::KeyCreated).detail(format!("<{name}>"))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Write,
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![Just(Step::Push), Just(Step::Write), Just(Step::Sync)], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The process is killed and the disk loses what was not synced, several times.
    #[test]
    fn stable_lines_survive_crashes(lives in prop::collection::vec((steps(), 0_usize..500, any::<bool>()), 1..5)) {
        let mut disk = Disk::default();
        let mut acknowledged = Vec::new();
        let mut next = 0;
        for (steps, kept, every) in lives {
            let fsync = if every { Fsync::Every } else { Fsync::Interval(Duration::from_secs(1)) };
            let mut log = open(&disk, fsync);
            let mut pending = Vec::new();
            for step in steps {
                match step {
                    Step::Push => {
                        prop_assert!(log.push(&record(next), SystemTime::now()));
                        pending.push(next);
                        next += 1;
                    }
                    Step::Write => log.write(SystemTime::now()).unwrap(),
                    Step::Sync => {
                        log.write(SystemTime::now()).unwrap();
                        log.sync().unwrap();
                    }
                }
                if log.is_stable() {
                    acknowledged.append(&mut pending);
                }
            }
            drop(log);
            disk = disk.crashed(kept);
        }
        let mut log = open(&disk, Fsync::Every);
        log.push(&record(next), SystemTime::now());
        log.write(SystemTime::now()).unwrap();
        let text = disk.text();
        for name in acknowledged {
            prop_assert_eq!(text.matches(&format!("<{name}>")).count(), 1, "line {}", name);
        }
        prop_assert_eq!(findings(&disk.log()), Vec::<String>::new());
    }

    /// Operations of the disk fail from some point on, for a while.
    #[test]
    fn lines_are_complete_after_failures(
        points in prop::collection::vec((0_u64..12, 0_usize..300, 1_u64..6), 1..12),
    ) {
        let disk = Disk::default();
        let mut log = open(&disk, Fsync::Every);
        let mut next = 0;
        for (fails_after, torn, lines) in points {
            (disk.0.lock().fails_after, disk.0.lock().torn) = (Some(fails_after), torn);
            for _ in 0..lines {
                log.push(&record(next), SystemTime::now());
                next += 1;
                let written = log.write(SystemTime::now());
                prop_assert_eq!(written.is_ok(), log.is_stable());
            }
            disk.0.lock().fails_after = None;
            log.write(SystemTime::now()).unwrap();
            prop_assert!(log.is_stable());
        }
        drop(log);
        let (summary, findings) = verify(&disk.log(), None, Default::default());
        prop_assert_eq!(findings, vec![]);
        prop_assert_eq!(summary.last, next);
        prop_assert_eq!(disk.crashed(0).text(), disk.text());
    }
}

#[test]
fn a_torn_line_is_moved_aside_and_recorded() {
    let disk = Disk::default();
    let mut log = open(&disk, Fsync::Every);
    for name in 0..3 {
        log.push(&record(name), SystemTime::now());
    }
    log.write(SystemTime::now()).unwrap();
    drop(log);
    let (name, whole) = disk.log().remove(0);
    disk.0.lock().files.get_mut(&name).unwrap().bytes.extend_from_slice(b"{\"seq\":4,\"ti");
    let mut log = open(&disk, Fsync::Every);
    log.write(SystemTime::now()).unwrap();
    let state = disk.0.lock();
    let aside = &state.files[&format!("{name}.torn-{}", whole.len())];
    assert_eq!(aside.synced, b"{\"seq\":4,\"ti");
    drop(state);
    assert!(
        disk.text().contains(r#""act":"repaired","detail":"12 bytes of an incomplete line at the end of"#)
    );
    assert_eq!(findings(&disk.log()), Vec::<String>::new());
}

#[test]
fn an_altered_line_is_not_laundered_by_a_restart() {
    let disk = Disk::default();
    let mut log = open(&disk, Fsync::Every);
    for name in 0..3 {
        log.push(&record(name), SystemTime::now());
    }
    log.write(SystemTime::now()).unwrap();
    drop(log);
    let (name, bytes) = disk.log().remove(0);
    let altered = String::from_utf8(bytes).unwrap().replace("<1>", "<7>");
    disk.0.lock().files.get_mut(&name).unwrap().bytes = altered.into_bytes();
    let mut log = open(&disk, Fsync::Every);
    log.write(SystemTime::now()).unwrap();
    assert_eq!(disk.log().len(), 2, "the chain goes on in a new file");
    assert!(disk.text().contains(r#""act":"damage_found","detail":"line 3 of "#));
    assert_eq!(findings(&disk.log()), ["audit-00000000000000000001.jsonl:2: line 2 was altered"]);
}
