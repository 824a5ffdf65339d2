//! `replay`: what a tape leads to.
use std::fs::File;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;

use super::AppError;
use super::sinks;
use crate::pipeline::Pipeline;
use crate::pipeline::tape;
use crate::report::print::Format;
use crate::report::print::Printer;

/// Prints what the tape leads to, and at the end what was lost or left out.
pub fn replay(path: &Path, format: Format, out: impl Write) -> Result<(), AppError> {
    let file = File::open(path).map_err(tape::TapeError::Io)?;
    let (origin, inputs) = tape::read(BufReader::new(file))?;
    let mut pipeline = Pipeline::new(&origin);
    let mut printer = Printer::new(out, format);
    let mut outputs = Vec::new();
    for input in inputs {
        pipeline.step(&input?, &mut outputs);
        for report in outputs.drain(..).filter_map(sinks::report) {
            printer.print(&report).map_err(AppError::Output)?;
        }
    }
    let drops: Vec<_> = pipeline.drops().named().collect();
    let left_out: Vec<_> = pipeline.omissions().named().collect();
    printer.stats(&drops, &left_out).and_then(|()| printer.flush()).map_err(AppError::Output)
}
