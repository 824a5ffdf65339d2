//! What a process has used so far, as the kernel accounts it.

use std::fs;
use std::time::Duration;

/// CPU time of all threads that a process has now; none when it is gone. Exact where `stat` counts in hundredths of a
/// second.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let time = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(time).sum())
}

/// The largest resident memory so far, in KiB; 0 when the process is gone.
pub fn peak_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

/// Resident memory, in KiB; 0 when the process is gone.
pub fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert!(resident_kib(own) > 100 && peak_kib(own) >= resident_kib(own));
        assert_eq!(resident_kib(u32::MAX), 0);
    }

    #[test]
    fn work_takes_time() {
        let before = cpu(std::process::id());
        assert!((0..5_000_000_u64).map(std::hint::black_box).sum::<u64>() > 0);
        std::thread::sleep(Duration::from_millis(1)); // the kernel adds up when a thread stops
        assert!(cpu(std::process::id()) > before);
        assert_eq!(cpu(u32::MAX), Duration::ZERO);
    }
}
