//! Processor time, memory and threads for the meters.
use procfs::Current as _;
use procfs::CurrentSI as _;
use procfs::KernelStats;
use procfs::Meminfo;
use procfs::process::Process;

use crate::clock;
use crate::identity::ProcessKey;
use crate::identity::load::Queues;
use crate::meter::sample::HostSample;
use crate::meter::sample::ProcessSample;
use crate::meter::sample::Samples;

/// Reads the numbers of these processes and of the host; processes that ended are left out.
pub fn read(processes: &[ProcessKey]) -> Samples {
    Samples {
        at: clock::kernel_now(),
        host: host(),
        processes: processes.iter().filter_map(|key| process(*key)).collect(),
        queues: Queues::default(),
    }
}

fn host() -> HostSample {
    let (mut busy_ticks, mut total_ticks) = (0, 0);
    if let Ok(KernelStats { total, .. }) = KernelStats::current() {
        // Guest time is part of user time (proc(5)).
        let idle = total.idle + total.iowait.unwrap_or(0);
        let parts = [Some(total.irq.unwrap_or(0)), total.softirq, total.steal];
        busy_ticks = total.user + total.nice + total.system + parts.into_iter().flatten().sum::<u64>();
        total_ticks = busy_ticks + idle;
    }
    let memory = Meminfo::current().ok();
    HostSample {
        busy_ticks,
        total_ticks,
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.mem_total),
        available_bytes: memory.and_then(|memory| memory.mem_available).unwrap_or(0),
    }
}

fn process(key: ProcessKey) -> Option<ProcessSample> {
    let stat = Process::new(i32::try_from(key.pid).ok()?).ok()?.stat().ok()?;
    if stat.starttime != key.start {
        return None; // another process with its pid
    }
    Some(ProcessSample {
        key,
        cpu_ticks: stat.utime + stat.stime,
        resident_bytes: stat.rss * procfs::page_size(),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        python: None,
    })
}
