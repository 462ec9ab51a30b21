//! How much physical memory the process takes.

use std::fs;

/// Most physical memory that the process held since [`reset_peak`] or its start, in bytes; `None` where the
/// system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Makes the memory held now the peak, where the system can. `false` where it cannot: the peak is then that
/// of the process's whole life.
pub fn reset_peak() -> bool {
    // 5 in this file means just that; proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Memory that the process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes that are its own.
    pub anonymous_bytes: u64,
    /// Bytes of mapped files.
    pub mapped_bytes: u64,
}

/// Memory that the process holds now; `None` where the system does not tell.
pub fn held() -> Option<Held> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let (anonymous, mapped) = (parse(&status, "RssAnon:")?, parse(&status, "RssFile:")?);
    Some(Held { anonymous_bytes: anonymous, mapped_bytes: mapped })
}

/// `VmHWM` out of `/proc/self/status`.
fn parse_peak(status: &str) -> Option<u64> {
    parse(status, "VmHWM:")
}

/// A line of `/proc/self/status`, which has sizes in KiB, in bytes.
fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_or_honestly_missing() {
        assert_eq!(parse_peak("VmPeak:\t  9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_peak("VmRSS: 1 kB"), None);
        assert_eq!(parse_peak("VmHWM: many kB"), None);
        assert_eq!(parse_peak(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_follows_what_is_touched() {
        let mut block = vec![0u8; 64 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        assert!(peak_rss_bytes().unwrap() >= 64 << 20);
        drop(std::hint::black_box(block));
        if reset_peak() {
            assert!(peak_rss_bytes().unwrap() < 64 << 20);
        }
    }
}
