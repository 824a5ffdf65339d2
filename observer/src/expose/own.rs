//! This process as the kernel sees it, under the names that every exporter gives such numbers.
use procfs::CurrentSI as _;
use procfs::KernelStats;
use procfs::process::Process;

/// Numbers of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Own {
    /// Processor time of all its threads, in seconds.
    pub cpu_s: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// When it started, in seconds since 1970; to the second, as the kernel tells the time of its own start.
    pub started_s: f64,
}

/// Reads them; nothing where `/proc` cannot be read.
pub fn read() -> Option<Own> {
    let stat = Process::myself().ok()?.stat().ok()?;
    let per_second = procfs::ticks_per_second() as f64;
    Some(Own {
        cpu_s: (stat.utime + stat.stime) as f64 / per_second,
        resident_bytes: stat.rss * procfs::page_size(),
        started_s: booted_s()? as f64 + stat.starttime as f64 / per_second,
    })
}

fn booted_s() -> Option<u64> {
    Some(KernelStats::current().ok()?.btime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_started_and_has_memory() {
        let own = read().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..=now + 2.0).contains(&own.started_s), "{own:?} at {now}");
        assert!(own.cpu_s >= 0.0 && own.resident_bytes > 1 << 20, "{own:?}");
    }
}
