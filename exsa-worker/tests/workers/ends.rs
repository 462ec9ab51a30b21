//! The end of a host: its workers end, and nothing is left behind.

use crate::engines::options;
use crate::faults::{lost, poisoned, until};
use crate::harness::Test;
use crate::signals;
use crate::streams::{seeded, start};
use exsa_core::{Generator, Request};
use exsa_worker::{SandboxOptions, Worker, WorkerOptions};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("ends::a_dropped_worker_leaves_nothing", a_dropped_worker_leaves_nothing),
    ("ends::a_killed_host_leaves_nothing", || a_killed_host_leaves_nothing("scripted")),
    #[cfg(feature = "candle")]
    ("ends::a_killed_host_of_candle_leaves_nothing", || a_killed_host_leaves_nothing("candle")),
];

fn a_dropped_worker_leaves_nothing() {
    let worker = start(options(json!({"pace_us": 1000})));
    let pid = worker.status().pid.unwrap();
    let stream = worker.submit(seeded("x", 4000)).unwrap();
    drop(worker);
    assert!(!signals::runs(pid));
    assert_eq!(lost(stream), "worker 0 of scripted was stopped by its host");
    // While it loads, and without a sandbox.
    let worker = Worker::start(options(json!({})).backend("hangs").sandbox(SandboxOptions::off())).unwrap();
    until("it starts", || worker.status().pid.is_some());
    let pid = worker.status().pid.unwrap();
    drop(worker);
    assert!(!signals::runs(pid));
}

/// Settings of the workers of [`host`].
fn workers(backend: &str) -> WorkerOptions {
    match backend {
        #[cfg(feature = "candle")]
        "candle" => {
            let mut options = crate::engines::tiny_options();
            options.host = json!({"pace_us": 1000});
            options
        }
        _ => options(json!({"fault": "hang", "pace_us": 1000})),
    }
}

/// The host of [`a_killed_host_leaves_nothing`]: three workers, two of them with streams. On the scripted
/// backend one is in a pass that never returns.
pub fn host(backend: &str) {
    let workers: Vec<_> = (0..3).map(|_| start(workers(backend))).collect();
    let first = if backend == "scripted" { poisoned() } else { seeded("y", 100_000) };
    let busy = [(0, first), (1, Request::text("x").ignore_eos(true).max_tokens(100_000))];
    let streams = busy.map(|(worker, request)| workers[worker].submit(request).unwrap());
    let pids: Vec<_> = workers.iter().map(|worker| worker.status().pid.unwrap().to_string()).collect();
    println!("{}", pids.join(" "));
    std::thread::sleep(Duration::from_secs(600));
    drop(streams);
}

/// Targets of the open files of a process.
fn open_files(pid: u32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    files.filter_map(|file| Some(std::fs::read_link(file.ok()?.path()).ok()?.display().to_string())).collect()
}

/// The system's UNIX sockets: their numbers, and the names of those that have one.
fn unix_sockets() -> Vec<(String, Option<String>)> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(6).map(str::to_owned);
        Some((fields.next()?, fields.next()))
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn a_killed_host_leaves_nothing(backend: &str) {
    let folder = std::env::temp_dir().join(format!("exsa-killed-host-{}-{backend}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .env("EXSA_TEST_ROLE", format!("host {backend}"))
        .env("TMPDIR", &folder)
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| signals::runs(*pid)));
    // Connections without a name, and no file that outlives its process.
    let inherited: BTreeSet<_> = open_files(std::process::id()).into_iter().collect();
    let mut connections = BTreeSet::new();
    for file in pids.iter().flat_map(|pid| open_files(*pid)).filter(|file| !inherited.contains(file)) {
        if let Some(number) = file.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            connections.insert(number.to_owned());
        } else {
            let harmless =
                file == "/dev/null" || file.starts_with("pipe:") || file.starts_with("anon_inode:");
            assert!(harmless, "{file}");
        }
    }
    let known = unix_sockets();
    let own: Vec<_> = known.iter().filter(|(number, _)| connections.contains(number)).collect();
    assert!(own.len() >= 3 && own.iter().all(|(_, name)| name.is_none()), "{own:?} of {connections:?}");
    signals::stop(pids[2]);
    let start = Instant::now();
    host.kill().unwrap();
    host.wait().unwrap();
    let is_left = || {
        let sockets = unix_sockets().iter().any(|(number, _)| connections.contains(number));
        sockets || pids.iter().any(|pid| signals::runs(*pid))
    };
    while is_left() {
        assert!(start.elapsed() < Duration::from_secs(1), "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    eprintln!("all workers of {backend} had ended after {:?}", start.elapsed());
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir(&folder).unwrap();
}
