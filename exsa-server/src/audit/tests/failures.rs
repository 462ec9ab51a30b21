//! The log as a whole, with its writer, on a disk that fails.

use super::disk::Disk;
use super::mutations::findings;
use crate::audit::{Act, AuditConfig, AuditLog, Fsync, OnError, Record};
use std::time::{Duration, Instant};

fn start(disk: &Disk, config: &AuditConfig) -> AuditLog {
    AuditLog::start(disk.clone(), config, None, Vec::new()).unwrap()
}

fn record(name: u64) -> Record {
    Record::new(Act::KeyCreated).detail(format!("<{name}>"))
}

/// Waits until a condition holds.
fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "the condition does not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lines_of_many_threads_are_stable_when_their_tickets_say_so() {
    for fsync in [Fsync::Every, Fsync::Interval(Duration::from_millis(5))] {
        let disk = Disk::default();
        let log = start(&disk, &AuditConfig::default().fsync(fsync));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (log, disk) = (&log, &disk);
                scope.spawn(move || {
                    for line in 0..25 {
                        log.append(record(thread * 100 + line)).wait().unwrap();
                        assert!(disk.crashed(0).text().contains(&format!("<{}>", thread * 100 + line)));
                    }
                });
            }
        });
        log.close();
        assert_eq!(findings(&disk.log()), Vec::<String>::new());
        let text = disk.text();
        assert_eq!(text.matches("key_created").count(), 100);
        assert!(
            text.lines().last().unwrap().contains("\"act\":\"checkpoint\""),
            "the last line is a checkpoint"
        );
    }
}

#[test]
fn a_full_disk_refuses_work_until_there_is_space() {
    let disk = Disk::default();
    let log = start(&disk, &AuditConfig::default());
    let running = log.admit().unwrap();
    let used = disk.text().len();
    disk.0.lock().capacity = Some(used + 10);
    let failure = log.append(record(1)).wait().unwrap_err();
    assert!(failure.to_string().contains("no space left"), "{failure}");
    assert!(log.admit().unwrap_err().to_string().contains("no space left"));
    assert!(log.stats().failed);
    // A request that began before ends, and its line is kept.
    let line = running.append(record(2));
    disk.0.lock().capacity = None;
    until(|| !log.stats().failed);
    drop(line);
    log.append(record(3)).wait().unwrap();
    log.admit().unwrap();
    log.close();
    let text = disk.text();
    for name in 1..=3 {
        assert_eq!(text.matches(&format!("<{name}>")).count(), 1, "{text}");
    }
    assert_eq!(findings(&disk.log()), Vec::<String>::new());
}

#[test]
fn where_work_goes_on_dropped_lines_are_counted() {
    let disk = Disk::default();
    let mut config = AuditConfig::default().on_error(OnError::Continue);
    config.pending_max = 1 << 16;
    let log = start(&disk, &config);
    disk.0.lock().fails_after = Some(0);
    let lines: u64 = 1000;
    for name in 0..lines {
        // Waiting keeps the queue short: lines are dropped because they find no memory.
        drop(log.admit().unwrap().append(record(name)).wait());
    }
    disk.0.lock().fails_after = None;
    until(|| !log.stats().failed);
    log.append(record(lines)).wait().unwrap();
    log.close();
    let text = disk.text();
    let written = text.matches("key_created").count() as u64;
    assert!((1..=lines).contains(&written), "{written}");
    let dropped = lines + 1 - written;
    assert!(
        text.contains(&format!("\"detail\":\"{dropped} lines were dropped")),
        "{dropped} dropped: {text}"
    );
    assert_eq!(findings(&disk.log()), Vec::<String>::new());
}

#[test]
fn a_full_queue_refuses_work() {
    let disk = Disk::default();
    let config = AuditConfig { queue: 2, ..AuditConfig::default() };
    let log = start(&disk, &config);
    let places = [log.admit().unwrap(), log.admit().unwrap()];
    assert!(log.admit().unwrap_err().to_string().contains("queue"));
    for place in places {
        place.append(record(0)).wait().unwrap();
    }
    until(|| log.admit().is_ok());
    log.close();
}
