//! What a process has used so far, as the kernel accounts it.

use std::fs;

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
}
