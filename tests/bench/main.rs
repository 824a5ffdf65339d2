//! The benchmark: `bench requests|scale [--quick] [--json FILE]`; tables on stdout.
#![expect(clippy::print_stdout, reason = "the tables are for who runs it")]

mod requests; // what a request costs
mod scale; // what many workers and connections cost

use std::path::PathBuf;
use std::process::ExitCode;

use harness::stage::must;

const USAGE: &str = "usage: bench requests|scale [--quick] [--json FILE]";

struct Options {
    part: String,
    quick: bool,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let measured = match (options.part.as_str(), options.quick) {
        ("requests", true) => requests::measured(&requests::Options { rounds: 2, requests: 500 }),
        ("requests", false) => requests::measured(&requests::Options { rounds: 7, requests: 6000 }),
        (_, true) => scale::measured(&scale::QUICK),
        (_, false) => scale::measured(&scale::FULL),
    };
    match (measured, options.json) {
        (Ok(json), Some(path)) => must(std::fs::write(&path, json), format_args!("write {}", path.display())),
        (Ok(json), None) => println!("{json}"),
        (Err(why), _) => {
            eprintln!("bench: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let part = args.next().filter(|part| ["requests", "scale"].contains(&part.as_str()))?;
    let mut options = Options { part, quick: false, json: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(args.next()?.into()),
            _ => return None,
        }
    }
    Some(options)
}
