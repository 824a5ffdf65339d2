//! The tape of a run: written as long as that goes well.
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::AppError;
use crate::pipeline::input::Input;
use crate::pipeline::input::Origin;
use crate::pipeline::tape::Recorder;

/// A tape being written. It ends where writing fails: a tape with a hole would replay to something else.
pub struct Recording<W> {
    path: PathBuf,
    recorder: Recorder<W>,
    broken: Option<io::Error>,
}

impl Recording<BufWriter<File>> {
    /// Starts a tape; an existing file is overwritten.
    pub fn create(path: &Path, origin: &Origin) -> Result<Self, AppError> {
        let file = File::create(path).and_then(|file| Recorder::new(BufWriter::new(file), origin));
        match file {
            Ok(recorder) => Ok(Recording { path: path.to_owned(), recorder, broken: None }),
            Err(source) => Err(AppError::Tape { path: path.to_owned(), source }),
        }
    }
}

impl<W: Write> Recording<W> {
    /// Adds an input.
    pub fn add(&mut self, input: &Input) {
        if self.broken.is_none()
            && let Err(error) = self.recorder.add(input)
        {
            let tape = self.path.display();
            tracing::error!(%tape, %error, "the tape ends here; watching goes on: is the disk full?");
            self.broken = Some(error);
        }
    }

    /// Writes what is buffered; fails when any of the tape could not be written.
    pub fn finish(mut self) -> Result<(), AppError> {
        let done = self.broken.take().map_or_else(|| self.recorder.flush(), Err);
        done.map_err(|source| AppError::Tape { path: self.path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for one line.
    #[derive(Default)]
    struct Full {
        lines: usize,
        refused: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.lines > 0 {
                self.refused += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_the_tape_once() {
        let mut disk = Full::default();
        let origin = Origin {
            tape: 1,
            seed: 1,
            wall: Default::default(),
            given: Default::default(),
            chosen: Default::default(),
            stuck_after_ns: 0,
            meter_period_ns: Some(0),
            connections: 1,
        };
        let recorder = Recorder::new(&mut disk, &origin).unwrap();
        let mut recording = Recording { path: "tape".into(), recorder, broken: None };
        for pid in 0..9 {
            recording.add(&Input::Gone(pid));
        }
        assert!(matches!(recording.finish(), Err(AppError::Tape { path, .. }) if path == Path::new("tape")));
        assert_eq!(disk.refused, 1);
    }
}
