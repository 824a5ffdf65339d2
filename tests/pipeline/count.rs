//! `pipeline TAPE TIMES`: plays a tape's traffic so often and prints how many requests that were; for callgrind.
#![expect(clippy::print_stdout, reason = "the number is for who runs it")]

use std::process::ExitCode;

use harness::recorded::Recorded;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(tape), Some(times)) = (args.next(), args.next().and_then(|times| times.parse::<u32>().ok()))
    else {
        eprintln!("usage: pipeline TAPE TIMES");
        return ExitCode::from(64);
    };
    let recorded = Recorded::golden(&tape);
    let mut playing = recorded.play();
    println!("{}", (0..times).map(|_| playing.again().segments).sum::<usize>());
    ExitCode::SUCCESS
}
