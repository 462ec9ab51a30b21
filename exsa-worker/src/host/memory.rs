//! Memory of a process.

/// Returns the resident bytes of a process: in total, and without file pages. `None` if they cannot be read.
#[cfg(target_os = "linux")]
pub(super) fn of(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    let page = rustix::param::page_size() as u64;
    Some((resident * page, resident.saturating_sub(shared) * page))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of(_pid: u32) -> Option<(u64, u64)> {
    None
}
