//! Resource limits of a worker process, and its end with the host.

use super::SandboxReport;

/// Address space beyond the memory limit, for stacks and memory that allocators reserve but do not use.
#[cfg(unix)]
const SLACK: u64 = 256 << 20;

/// Arranges that this process is killed when the thread that started it exits. Returns whether the kernel
/// supports it.
///
/// # Errors
///
/// The host has already exited.
#[cfg(target_os = "linux")]
pub(crate) fn die_with_parent(parent: u32) -> Result<bool, String> {
    let signal = Some(rustix::process::Signal::KILL);
    let arranged = rustix::process::set_parent_process_death_signal(signal).is_ok();
    // The host may have exited before the call.
    let found = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    match found {
        Some(found) if u32::try_from(found) == Ok(parent) => Ok(arranged),
        _ => Err(format!("the host, process {parent}, has ended")),
    }
}

/// On other systems the worker ends with its connection.
#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_parent(_parent: u32) -> Result<bool, String> {
    Ok(false)
}

/// Ends this process immediately: no destructor or exit handler runs, since these might deadlock.
pub(crate) fn die() -> ! {
    #[cfg(unix)]
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    std::process::abort()
}

/// Disables core dumps, which would contain prompts, and limits memory to `memory_max` bytes.
#[cfg(unix)]
pub(crate) fn prepare(memory_max: Option<u64>, report: &mut SandboxReport) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let mut limit = |resource, bytes: u64, name: &str| {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        if let Err(error) = setrlimit(resource, limit) {
            report.missing.push(format!("{name}: {error}"));
        }
    };
    limit(Resource::Core, 0, "no core dumps");
    if let Some(bytes) = memory_max {
        limit(Resource::Data, bytes.saturating_add(SLACK), "memory limit");
    }
    // When memory runs out, the kernel should kill a worker, which is replaced, rather than the host.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
}

/// Other systems have no such limits.
#[cfg(not(unix))]
pub(crate) fn prepare(memory_max: Option<u64>, report: &mut SandboxReport) {
    if memory_max.is_some() {
        report.missing.push("memory limit: not on this system".into());
    }
}
