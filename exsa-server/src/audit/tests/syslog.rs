//! Checkpoints in a system log: a datagram socket of the test stands for `/dev/log`.

use crate::audit::{Act, AuditConfig, AuditLog, Record};
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("exsa-syslog-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("log.sock")
    }

    fn listen(&self) -> UnixDatagram {
        let _ = std::fs::remove_file(self.socket());
        let socket = UnixDatagram::bind(self.socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A log with a checkpoint after each line.
fn open(folder: &Folder, socket: &Path) -> AuditLog {
    let mut config = AuditConfig::default().folder(folder.0.join("audit"));
    config.checkpoint = config.checkpoint.lines(1);
    config.checkpoint.syslog = Some(socket.to_owned());
    AuditLog::open(&config).unwrap().unwrap()
}

fn receive(socket: &UnixDatagram) -> Value {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).unwrap();
    let text = std::str::from_utf8(&message[..length]).unwrap();
    // Facility 13 (log audit) and severity 6 (informational), RFC 5424.
    let json = text.strip_prefix("<110>exsa-server: audit checkpoint ").unwrap();
    serde_json::from_str(json).unwrap()
}

fn append(log: &AuditLog) {
    log.append(Record::new(Act::KeyCreated)).wait().unwrap();
}

#[test]
fn checkpoints_are_sent_as_messages_with_count_and_hash() {
    let folder = Folder::new();
    let socket = folder.listen();
    let log = open(&folder, &folder.socket());
    let mut last = 0;
    for _ in 0..3 {
        append(&log);
        let checkpoint = receive(&socket);
        let count = checkpoint["count"].as_u64().unwrap();
        assert!(count > last, "{checkpoint}");
        assert_eq!(checkpoint["hash"].as_str().unwrap().len(), 64, "{checkpoint}");
        last = count;
    }
    log.close();
    assert!(receive(&socket)["count"].as_u64().unwrap() > last, "the stop has a checkpoint too");
    assert_eq!(log.stats().checkpoints_unsent, 0);
}

#[test]
fn without_a_listener_checkpoints_are_counted_and_lines_are_written() {
    let folder = Folder::new();
    let log = open(&folder, &folder.socket());
    append(&log);
    append(&log);
    log.close();
    let stats = log.stats();
    assert!(stats.checkpoints_unsent >= 2 && !stats.failed, "{stats:?}");
}

#[test]
fn a_system_log_that_starts_later_gets_the_next_checkpoints() {
    let folder = Folder::new();
    let log = open(&folder, &folder.socket());
    append(&log);
    let socket = folder.listen();
    append(&log);
    assert!(receive(&socket)["count"].as_u64().unwrap() >= 2);
    log.close();
}

#[test]
fn a_system_log_that_reads_nothing_holds_nothing_up() {
    let folder = Folder::new();
    let socket = folder.listen();
    let log = open(&folder, &folder.socket());
    // More messages than a socket's queue takes.
    let queue = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
    let queue: usize = queue.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1000);
    for _ in 0..queue + 20 {
        append(&log);
    }
    log.close();
    assert!(log.stats().checkpoints_unsent > 0);
    drop(socket);
}
