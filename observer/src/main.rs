//! `sw-observe`: parse, configure, run, exit code.
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use observer::app;
use observer::app::AppError;
use observer::cli::Cli;
use observer::cli::Command;
use observer::cli::Print;
use observer::cli::RunArgs;
use observer::config::Config;
use observer::logging;
use observer::report::print::Format;
use tokio::runtime::Builder;
use tokio::runtime::Handle;

const USAGE: u8 = 64;

fn main() -> ExitCode {
    // This thread waits for the ring and the clock itself: to be woken by another one, twenty times a second, costs twice.
    let own = Builder::new_current_thread().enable_all().build();
    let reports = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match own.and_then(|own| Ok((own, reports?))) {
        Ok((own, reports)) => {
            let code = own.block_on(execute(reports.handle()));
            reports.shutdown_background(); // does not wait for a name server that does not answer
            code
        }
        Err(error) => fail(71, &format_args!("cannot start threads: {error}: raise the limit of processes")),
    }
}

async fn execute(reports: &Handle) -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            let wanted = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return match error.print() {
                Ok(()) if wanted => ExitCode::SUCCESS,
                Ok(()) | Err(_) => ExitCode::from(USAGE),
            };
        }
    };
    let colour = std::io::stdout().is_terminal();
    let done = match cli.command {
        None => return run(cli.run, None, reports).await,
        Some(Command::Run(args)) => return run(*args, None, reports).await,
        Some(Command::Record { file, run: args }) => return run(*args, Some(file), reports).await,
        Some(Command::Check) => app::check(std::io::stdout().lock()),
        Some(Command::Replay { file, print }) => {
            let format = match print {
                Print::Text => Format::Text { colour },
                Print::Json => Format::Json,
            };
            app::replay(&file, format, std::io::stdout().lock())
        }
    };
    exit(done)
}

async fn run(args: RunArgs, tape: Option<std::path::PathBuf>, reports: &Handle) -> ExitCode {
    let dry_run = args.dry_run;
    let config = match Config::new(args.into(), std::io::stdout().is_terminal()) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    if dry_run {
        return ExitCode::SUCCESS;
    }
    logging::start(config.log_level);
    exit(app::run(config, tape.as_deref(), reports).await)
}

fn exit(done: Result<(), AppError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

fn fail(code: u8, error: &impl Display) -> ExitCode {
    eprintln!("sw-observe: {error}");
    ExitCode::from(code)
}
