//! The sandbox, from inside.

use crate::engines::options;
use crate::harness::Test;
use exsa_worker::{ExitCause, SandboxMode, SandboxOptions, Setup, Worker, WorkerState};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("sandbox::forbidden_things_fail_inside", forbidden_things_fail_inside)];

/// Tries what a worker must not do, and returns the results as JSON.
pub fn probe(setup: &Setup) -> String {
    let text =
        |result: Result<(), std::io::Error>| result.map_or_else(|error| error.to_string(), |()| "ok".into());
    let given = setup.host["given"].as_str().unwrap_or_default();
    let written = setup.host["written"].as_str().unwrap_or_default();
    json!({
        "tcp": text(TcpListener::bind("127.0.0.1:0").map(drop)),
        "connect": text(TcpStream::connect("127.0.0.1:9").map(drop)),
        "udp": text(UdpSocket::bind("127.0.0.1:0").map(drop)),
        "socketpair": text(std::os::unix::net::UnixStream::pair().map(drop)),
        "exec": text(Command::new("/bin/true").status().map(drop)),
        "passwd": text(std::fs::read("/etc/passwd").map(drop)),
        "create": text(std::fs::write("/tmp/exsa-worker-probe", "x")),
        "parent": text(std::fs::read_to_string(format!("/proc/{}/maps", std::os::unix::process::parent_id())).map(drop)),
        "signal": text(rustix::process::kill_process(rustix::process::getppid().unwrap(), rustix::process::Signal::CONT).map_err(Into::into)),
        "given": text(std::fs::read(given).map(drop)),
        "write": text(std::fs::write(format!("{written}/file"), "x")),
        "thread": text(std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap())),
        "cpus": text(std::thread::available_parallelism().map(drop)),
        "meminfo": text(std::fs::read("/proc/meminfo").map(drop)),
        "environment": std::env::vars_os().any(|(name, _)| name == "EXSA_TEST_SECRET"),
    })
    .to_string()
}

fn probed(sandbox: SandboxOptions, host: Value) -> (Value, Option<exsa_worker::SandboxReport>) {
    let reports = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = reports.clone();
    let worker = Worker::start(options(host).backend("probe").sandbox(sandbox).on_change(move |status| {
        if let Some(report) = &status.sandbox {
            *seen.lock().unwrap() = Some(report.clone());
        }
    }))
    .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let WorkerState::Failed(ExitCause::Load(text)) = worker.status().state {
            let report = reports.lock().unwrap().clone();
            return (serde_json::from_str(&text).unwrap_or(Value::String(text)), report);
        }
        assert!(Instant::now() < until, "{:?}", worker.status());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn forbidden_things_fail_inside() {
    let folder = std::env::temp_dir().join(format!("exsa-worker-{}", std::process::id()));
    let (given, written) = (folder.join("given"), folder.join("written"));
    std::fs::create_dir_all(&written).unwrap();
    std::fs::write(&given, "x").unwrap();
    let host = json!({"given": given, "written": written});
    let sandbox = || SandboxOptions::new().read(&given).write(&written);

    let (free, report) = probed(sandbox().mode(SandboxMode::Off), host.clone());
    for thing in ["tcp", "udp", "socketpair", "exec", "passwd", "given", "write", "thread"] {
        assert_eq!(free[thing], "ok", "{thing} without a sandbox: {free}");
    }
    assert!(!report.unwrap().is_complete());

    let (shut, report) = probed(sandbox(), host.clone());
    let report = report.unwrap();
    eprintln!("level reached: {report}");
    assert_eq!(shut["environment"], false);
    for thing in ["thread", "cpus", "meminfo", "given", "write"] {
        assert_eq!(shut[thing], "ok", "{thing} in the sandbox: {shut}");
    }
    if report.system_calls {
        for thing in ["tcp", "connect", "udp", "socketpair", "exec", "signal"] {
            assert_ne!(shut[thing], "ok", "{thing}: {shut}");
        }
    } else {
        eprintln!("skipped: this kernel has no seccomp");
    }
    if report.files {
        for thing in ["passwd", "create", "parent"] {
            assert_ne!(shut[thing], "ok", "{thing}: {shut}");
        }
    } else {
        eprintln!("skipped: this kernel has no landlock");
        let (text, _) = probed(sandbox().mode(SandboxMode::Required), host);
        assert!(text.as_str().unwrap().contains("sandbox is required"), "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
