//! Inputs to and from a file: `record` and `replay`. One JSON value a line, the origin first.
use std::io;
use std::io::BufRead;
use std::io::Write;

use super::input::Input;
use super::input::Origin;

/// The format of this release; the first one knew neither signals nor programs.
pub const FORMAT: u32 = 2;

/// A tape that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// The file could not be read.
    #[error("cannot read the tape: {0}")]
    Io(#[from] io::Error),
    /// A line that is not what it should be.
    #[error("line {line} of the tape is not readable: {source}: was it recorded by `sw-observe record`?")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Nothing in it.
    #[error("the tape is empty: record it again with `sw-observe record`")]
    Empty,
    /// Made by a release with another format.
    #[error(
        "the tape has format {found}, this release reads {FORMAT}: replay it with the release that recorded it"
    )]
    Format {
        /// Its format.
        found: u32,
    },
}

/// Writes a tape.
#[derive(Debug)]
pub struct Recorder<W>(W);

impl<W: Write> Recorder<W> {
    /// Starts a tape.
    pub fn new(mut out: W, origin: &Origin) -> io::Result<Recorder<W>> {
        line(&mut out, origin)?;
        Ok(Recorder(out))
    }

    /// Adds an input.
    pub fn add(&mut self, input: &Input) -> io::Result<()> {
        line(&mut self.0, input)
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Reads a tape: its origin, and the inputs one by one.
pub fn read(
    tape: impl BufRead,
) -> Result<(Origin, impl Iterator<Item = Result<Input, TapeError>>), TapeError> {
    let mut lines = tape.lines().enumerate();
    let (_, first) = lines.next().ok_or(TapeError::Empty)?;
    let origin: Origin = parse(0, &first?)?;
    if origin.tape != FORMAT {
        return Err(TapeError::Format { found: origin.tape });
    }
    Ok((origin, lines.map(|(at, line)| parse(at, &line?))))
}

fn parse<T: serde::de::DeserializeOwned>(at: usize, line: &str) -> Result<T, TapeError> {
    serde_json::from_str(line).map_err(|source| TapeError::Line { line: at + 1, source })
}
