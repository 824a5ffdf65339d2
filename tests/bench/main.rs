//! The benchmark: measures requests and scale, draws the results, writes README's section about costs from them.
#![expect(clippy::print_stdout, reason = "the tables are for who runs it")]

mod empty; // probes that do nothing
mod files; // what many interpreters' files cost
mod flood; // a client that asks for much
mod lossless; // how much is seen without a loss
mod plot; // results as drawings
mod readme; // results as README's section
mod requests; // what a request costs
mod round; // one measurement
mod scale; // what many workers and connections cost
mod shipping; // an observer that ships
mod table; // results as text
mod vm; // what was measured in a virtual machine
mod workload; // what is served

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::readme::Results;
use crate::scale::Plan;
use crate::vm::Run;

const USAGE: &str = "usage: bench requests FOLDER [--quick] [--only NAME] [--rounds N]
       bench lossless FOLDER [--quick]
       bench files FOLDER [--quick]
       bench scale FOLDER [--quick] [--masters N [--connections N] [--rounds N]]
       bench vm FOLDER
       bench readme FOLDER README.md";

#[derive(Default)]
struct Options {
    part: String,
    /// Where results go, and come from.
    folder: PathBuf,
    page: PathBuf,
    quick: bool,
    only: String,
    rounds: Option<usize>,
    masters: Option<usize>,
    connections: usize,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let done = match options.part.as_str() {
        "requests" => requests(&options),
        "scale" => scale(&options),
        "lossless" => lossless(&options),
        "files" => files(&options),
        "vm" => machine(&options),
        _ => readme(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let part = args
        .next()
        .filter(|part| ["requests", "scale", "lossless", "files", "vm", "readme"].contains(&part.as_str()))?;
    let mut options = Options { part, folder: args.next()?.into(), ..Options::default() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--only" => options.only = args.next()?,
            "--rounds" => options.rounds = Some(args.next()?.parse().ok().filter(|rounds| *rounds > 0)?),
            "--masters" => options.masters = Some(args.next()?.parse().ok()?),
            "--connections" => options.connections = args.next()?.parse().ok()?,
            _ if options.part == "readme" => options.page = arg.into(),
            _ => return None,
        }
    }
    Some(options)
}

fn requests(options: &Options) -> Result<(), String> {
    let (rounds, requests) = if options.quick { (2, 300) } else { (7, 6_000) };
    let rounds = options.rounds.unwrap_or(rounds);
    let how = requests::Options { rounds, requests, only: options.only.clone() };
    let cases = requests::measured(&how, |case| println!("{}", table::case(case)))?;
    let text: String = cases.iter().map(table::case).collect();
    save(&options.folder.join("requests.txt"), &text)?;
    save(&options.folder.join("requests.svg"), &plot::cases(&cases))?;
    save_json(&options.folder.join("requests.json"), &cases)
}

fn scale(options: &Options) -> Result<(), String> {
    let plan = if options.quick { Plan::quick() } else { Plan::full() };
    let plan = match options.masters {
        Some(masters) => plan.only(masters, options.connections, options.rounds.unwrap_or(1)),
        None => plan,
    };
    println!("{}", table::points());
    let points = scale::measured(&plan, |point| println!("{}", table::point(point)))?;
    let lines = [vec![table::points()], points.iter().map(table::point).collect()].concat();
    save(&options.folder.join("scale.txt"), &(lines.join("\n") + "\n"))?;
    save(&options.folder.join("scale.svg"), &plot::points(&points))?;
    save_json(&options.folder.join("scale.json"), &points)
}

fn lossless(options: &Options) -> Result<(), String> {
    println!("{}", table::steps());
    let steps = lossless::measured(options.quick, |step| println!("{}", table::step(step)))?;
    let lines = [vec![table::steps()], steps.iter().map(table::step).collect()].concat();
    save(&options.folder.join("lossless.txt"), &(lines.join("\n") + "\n"))?;
    save_json(&options.folder.join("lossless.json"), &steps)
}

fn files(options: &Options) -> Result<(), String> {
    let masters = if options.quick { 3 } else { 50 };
    println!("{}", table::files_head());
    let all = files::measured(masters, |files| println!("{}", table::files(files)))?;
    let lines = [vec![table::files_head()], all.iter().map(table::files).collect()].concat();
    save(&options.folder.join("files.txt"), &(lines.join("\n") + "\n"))?;
    save_json(&options.folder.join("files.json"), &all)
}

/// The table of what a virtual machine has measured.
fn machine(options: &Options) -> Result<(), String> {
    let run: Run = load(&options.folder.join("vm.json"))?;
    println!("{}", run.table());
    save(&options.folder.join("vm.txt"), &run.table())
}

fn readme(options: &Options) -> Result<(), String> {
    let of = |name: &str| options.folder.join(name);
    let results = Results {
        cases: load(&of("requests.json"))?,
        steps: load(&of("lossless.json"))?,
        points: load(&of("scale.json"))?,
        files: load(&of("files.json"))?,
        run: load(&of("vm.json"))?,
    };
    readme::rewrite(&options.page, &results)
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn save_json(path: &Path, results: &impl Serialize) -> Result<(), String> {
    save(path, &serde_json::to_string_pretty(results).map_err(|error| error.to_string())?)
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}: measure first"))?;
    serde_json::from_str(&text).map_err(|error| format!("{shown} is not what was measured: {error}"))
}
