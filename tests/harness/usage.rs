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
    use std::process::Command;
    use std::process::Stdio;

    use super::*;
    use crate::stage::wait;

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert!(resident_kib(own) > 100 && peak_kib(own) > 100);
        assert_eq!(resident_kib(u32::MAX), 0);
    }

    #[test]
    fn work_takes_time() {
        // A process of its own: the time of threads that end is not counted, and tests are threads.
        let work = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; read line";
        let mut child = Command::new("sh").args(["-c", work]).stdin(Stdio::piped()).spawn().expect("a shell");
        let took = wait(Duration::from_secs(20), || Some(cpu(child.id())).filter(|time| !time.is_zero()));
        assert!(took.is_some());
        drop(child.stdin.take());
        assert!(child.wait().is_ok());
        assert_eq!(cpu(u32::MAX), Duration::ZERO);
    }
}
