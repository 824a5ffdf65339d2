//! What each attached program costs, as the kernel accounts it.
//!
//! The kernel counts only while somebody asks it to (`BPF_ENABLE_STATS`), and then for every BPF program of the host: two
//! readings of its clock more in each run. The counts are read from `/proc/self/fdinfo`, so no `bpf()` call is made.
use std::fs;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::programs::ProgramFd;
use aya::sys::Stats;
use aya::sys::enable_stats;

use super::KernelError;
use super::attach::Attachment;
use super::catalog::Point;

/// What one program cost since it was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The probe that it belongs to.
    pub probe: &'static str,
    /// Its name in the object.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// Time that it ran for, in nanoseconds.
    pub run_ns: u64,
    /// How often the kernel passed it over, because it was in a `bpf()` call, or in another program or the same one, on
    /// that processor; from 5.12.
    pub misses: Option<u64>,
}

/// The attached programs, accounted as long as this lives. It keeps them loaded, not attached.
pub struct Costs {
    _accounting: OwnedFd,
    programs: Vec<(&'static str, &'static str, ProgramFd)>,
}

impl Costs {
    /// Has the kernel account from now on. Needs `CAP_SYS_ADMIN` (`bpf_enable_stats`, `kernel/bpf/syscall.c`).
    pub(super) fn start(ebpf: &Ebpf, attachments: &[Attachment]) -> Result<Costs, KernelError> {
        let accounting =
            enable_stats(Stats::RunTime).map_err(|error| KernelError::Accounting(error.io_error))?;
        let points = attachments.iter().flat_map(|attachment| {
            let points = attachment.points().iter();
            let programs = points.flat_map(Point::programs);
            programs.map(|program| (attachment.probe.name, program))
        });
        let programs = points.filter_map(|(probe, program)| {
            // One that this kernel has no place for, or no need of, is not loaded.
            let fd = ebpf.program(program)?.fd().ok()?.try_clone().ok()?;
            Some((probe, program, fd))
        });
        Ok(Costs { _accounting: accounting, programs: programs.collect() })
    }

    /// Reads the counts: one small file for each program.
    pub fn read(&self) -> Vec<Cost> {
        let read = |(probe, program, fd): &(&'static str, &'static str, ProgramFd)| {
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let (runs, run_ns, misses) = counts(&fs::read_to_string(path).ok()?)?;
            Some(Cost { probe, program, runs, run_ns, misses })
        };
        self.programs.iter().filter_map(read).collect()
    }
}

/// Runs, nanoseconds and misses in what the kernel says of a program's descriptor (`bpf_prog_show_fdinfo`).
fn counts(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    Some((value("run_cnt")?, value("run_time_ns")?, value("recursion_misses")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_among_what_else_the_kernel_says() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nrun_time_ns:\t1234\nrun_cnt:\t5\nrecursion_misses:\t2\n";
        assert_eq!(counts(text), Some((5, 1234, Some(2))));
        assert_eq!(counts("run_time_ns:\t1\nrun_cnt:\t2\n"), Some((2, 1, None)));
        assert_eq!(counts("prog_type:\t26\n"), None);
    }
}
