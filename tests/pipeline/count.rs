//! `pipeline TAPE TIMES`: plays a tape's traffic so often and prints how many requests and allocations that were; for callgrind.
#![expect(clippy::print_stdout, reason = "the numbers are for who runs it")]

use std::alloc::System;
use std::process::ExitCode;

use harness::recorded::Recorded;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(tape), Some(times)) = (args.next(), args.next().and_then(|times| times.parse::<u32>().ok()))
    else {
        eprintln!("usage: pipeline TAPE TIMES");
        return ExitCode::from(64);
    };
    let recorded = Recorded::golden(&tape);
    let mut playing = recorded.play();
    let requests: usize = (0..times).map(|_| playing.again().segments).sum();
    let allocated = ALLOCATOR.stats();
    println!("{requests} {}", allocated.allocations + allocated.reallocations);
    ExitCode::SUCCESS
}
