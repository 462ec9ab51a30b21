//! Processor time of processes.

/// Ticks per second of the times in `/proc/PID/stat`, the same on every Linux system (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Seconds of processor time that a process has used, in user mode and in the kernel; of this process without
/// a `pid`. `None` where the system does not tell.
pub fn seconds(pid: Option<u32>) -> Option<f64> {
    let pid = pid.map_or("self".to_owned(), |pid| pid.to_string());
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 and 15; the name, which is field 2, may hold anything.
fn parse(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 9 0 0 0 150 25 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse(stat), Some(1.75));
        assert_eq!(parse("no stat"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_time() {
        let start = seconds(None).unwrap();
        let mut sum = 0u64;
        while seconds(None).unwrap() - start < 0.03 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
