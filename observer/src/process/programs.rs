//! Programs of Python interpreters as they were at exec, by the place of their arguments in memory.
use std::collections::BTreeMap;
use std::collections::VecDeque;

use observer_ebpf::record;
use observer_ebpf::wire;
use procfs::ProcError;
use procfs::process::Process;

use super::facts;
use super::program::Program;
use crate::identity::Facts;
use crate::identity::ProcessKey;
use crate::python::image::Images;

/// How many are kept. An arbiter makes its first slot within a quarter of a minute of its exec.
const KEPT: usize = 1_024;
/// How many may be half read.
const PENDING: usize = 64;
/// Nanoseconds per tick of `/proc/<pid>/stat`.
const NS_PER_TICK: u64 = 10_000_000;

/// What the probes copied at exec. A title that is set later overwrites both arguments and environment.
#[derive(Debug, Default)]
pub struct Programs {
    pending: BTreeMap<u32, Vec<u8>>,
    kept: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    process: ProcessKey,
    stack: u64,
    program: Program,
    /// What was true soon after its exec, of a program that speaks of gunicorn: one that fails to boot is gone before a
    /// busy reader comes to its first slot. Only a hint of what to read early; a master is known by what it does.
    early: Option<Box<Facts>>,
}

impl Programs {
    /// Whether a record is for here.
    pub fn is_one(bytes: &[u8]) -> bool {
        wire::read::<record::Header>(bytes).is_some_and(|header| header.kind == record::Kind::Program as u16)
    }

    /// Takes a record of kind `Program`. A program of which a piece is missing is not kept. `images` as in
    /// [`facts::read`].
    pub fn take(&mut self, bytes: &[u8], images: &mut Images) {
        let Some(piece) = wire::read::<record::Program>(bytes) else { return };
        let copied = bytes.get(size_of::<record::Program>()..).unwrap_or_default();
        let copied = copied.get(..piece.header.len as usize).unwrap_or_default();
        let pid = piece.header.tgid;
        if piece.offset == 0 {
            self.pending.remove(&pid);
            if self.pending.len() >= PENDING {
                self.pending.pop_first();
            }
            self.pending.insert(pid, Vec::new());
        }
        let Some(whole) = self.pending.get_mut(&pid) else { return };
        if whole.len() != piece.offset as usize || copied.is_empty() {
            self.pending.remove(&pid);
            return;
        }
        whole.extend_from_slice(copied);
        let is_last = whole.len() >= piece.size as usize || is_longest(whole.len());
        if let Some(whole) = is_last.then(|| self.pending.remove(&pid)).flatten() {
            self.keep(&piece, &whole, images);
        }
    }

    fn keep(&mut self, piece: &record::Program, whole: &[u8], images: &mut Images) {
        let (arguments, environ) = whole.split_at_checked(piece.arguments as usize).unwrap_or((whole, &[]));
        let process = ProcessKey { pid: piece.header.tgid, start: piece.start / NS_PER_TICK };
        let program = Program::new(arguments, environ);
        let read =
            || facts::read(process.pid, Some(&program), images).ok().filter(|facts| facts.key == process);
        let early = program.speaks_of_gunicorn().then(read).flatten().map(Box::new);
        self.kept.truncate(KEPT - 1);
        self.kept.push_front(Kept { process, stack: piece.stack, program, early });
    }

    /// Reads the facts of a process that may be a master; of one that ended meanwhile there are those of its exec, if it
    /// spoke of gunicorn then. `images` and errors as in [`facts::read`].
    pub fn facts(&self, pid: u32, images: &mut Images) -> Result<Facts, ProcError> {
        let read = facts::read(pid, self.find(pid), images);
        let last = self.kept.iter().find(|kept| kept.process.pid == pid);
        match last.and_then(|kept| kept.early.as_deref()) {
            // Looked at after the reading: while a process ends its files become empty one by one.
            Some(early) if !has_memory(pid) => Ok(early.clone()),
            _ => read,
        }
    }

    /// The program of a living process: its own exec, or that of the process it was forked from.
    pub fn find(&self, pid: u32) -> Option<&Program> {
        let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        self.of(ProcessKey { pid, start: stat.starttime }, stat.arg_start?)
    }

    /// The program of a process whose arguments stand at `stack`: its own exec, or that of the process it was forked
    /// from, since forks keep the place. When two could be meant (no randomisation of addresses), none is.
    fn of(&self, process: ProcessKey, stack: u64) -> Option<&Program> {
        let mut there = self.kept.iter().filter(|kept| kept.stack == stack);
        let own = self.kept.iter().find(|kept| kept.process == process && kept.stack == stack);
        let only = || there.next().filter(|_| there.next().is_none());
        own.or_else(only).map(|kept| &kept.program)
    }
}

/// Whether a process is there and has not begun to end: its arguments have a place (`proc_pid_stat(5)`, `arg_start`).
fn has_memory(pid: u32) -> bool {
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let stat = process.and_then(|process| process.stat().ok());
    stat.and_then(|stat| stat.arg_start).is_some_and(|start| start != 0)
}

/// Whether as much was copied as ever is.
fn is_longest(len: usize) -> bool {
    use observer_ebpf::config::PROGRAM_PIECE;
    use observer_ebpf::config::PROGRAM_PIECES;
    len >= PROGRAM_PIECE * PROGRAM_PIECES as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_ebpf::record::Header;
    use std::process::Command;
    use std::thread;

    fn piece(pid: u32, stack: u64, offset: usize, whole: &[u8], arguments: usize, cut: usize) -> Vec<u8> {
        piece_of(key(pid), stack, offset, whole, arguments, cut)
    }

    fn piece_of(
        process: ProcessKey,
        stack: u64,
        offset: usize,
        whole: &[u8],
        arguments: usize,
        cut: usize,
    ) -> Vec<u8> {
        let (pid, start) = (process.pid, process.start * NS_PER_TICK);
        let bytes = &whole[offset..whole.len().min(offset + cut)];
        let len = u32::try_from(bytes.len()).unwrap();
        let header = Header { at: 0, tgid: pid, tid: pid, kind: 11, zero: 0, len };
        let (offset, size) = (u32::try_from(offset).unwrap(), u32::try_from(whole.len()).unwrap());
        let arguments = u32::try_from(arguments).unwrap();
        let record = record::Program { header, start, stack, offset, size, arguments, zero: 0 };
        // An entry of the ring is as large as the largest piece.
        [wire::bytes(&record), bytes, &[0xff; 9]].concat()
    }

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 5 }
    }

    #[test]
    fn a_program_is_put_together_and_found_for_its_forks() {
        let mut programs = Programs::default();
        let whole = b"python\0gunicorn\0app:app\0SECRET=1\0SW_AGENT_NAME=shop\0";
        for offset in [0, 20, 40] {
            programs.take(&piece(7, 0x7ffc, offset, whole, 24, 20), &mut Images::default());
        }
        let program = programs.of(key(9), 0x7ffc).unwrap();
        assert_eq!(program.argv, ["python", "gunicorn", "app:app"]);
        assert_eq!(program.environ, [("SW_AGENT_NAME".to_owned(), "shop".to_owned())]);
        assert!(programs.of(key(7), 0x7ffd).is_none());
    }

    #[test]
    fn of_who_ended_meanwhile_there_is_what_was_read_at_its_exec() {
        let (mut programs, mut images) = (Programs::default(), Images::default());
        let whole = b"gunicorn\0app:app\0SW_AGENT_NAME=shop\0";
        let mut live = ["gunicorn", "celery00"].map(|name| {
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            let process = ProcessKey { pid: child.id(), start: facts::start(child.id()).unwrap() };
            let whole = [name.as_bytes(), whole.get(8..).unwrap()].concat();
            programs.take(&piece_of(process, 1, 0, &whole, 17, 99), &mut images);
            child
        });
        let read = |programs: &Programs, pid| programs.facts(pid, &mut Images::default());
        assert_eq!(read(&programs, live[0].id()).unwrap().argv[0], "sleep", "lives: as it is now");
        live.iter_mut().for_each(|child| child.kill().unwrap());
        while has_memory(live[0].id()) {
            thread::yield_now(); // a zombie soon
        }
        let facts = read(&programs, live[0].id()).unwrap();
        assert_eq!((facts.argv[0].as_str(), facts.variable("SW_AGENT_NAME")), ("gunicorn", Some("shop")));
        live.iter_mut().for_each(|child| assert!(!child.wait().unwrap().success()));
        assert_eq!(read(&programs, live[0].id()).unwrap().key.pid, live[0].id());
        assert!(read(&programs, live[1].id()).is_err(), "nothing spoke of gunicorn");
    }

    #[test]
    fn two_at_one_place_are_told_apart_by_their_process_only() {
        let (mut programs, mut images) = (Programs::default(), Images::default());
        programs.take(&piece(7, 1, 0, b"a\0", 2, 9), &mut images);
        programs.take(&piece(8, 1, 0, b"b\0", 2, 9), &mut images);
        assert_eq!(programs.of(key(8), 1).map(|program| program.argv.clone()), Some(vec!["b".to_owned()]));
        assert!(programs.of(key(9), 1).is_none());
    }

    #[test]
    fn a_missing_piece_and_too_many_programs_are_borne() {
        let (mut programs, mut images) = (Programs::default(), Images::default());
        let whole = [b'x'; 50];
        programs.take(&piece(7, 1, 0, &whole, 50, 20), &mut images);
        programs.take(&piece(7, 1, 40, &whole, 50, 20), &mut images);
        programs.take(&piece(7, 1, 20, &whole, 50, 20), &mut images);
        programs.take(b"short", &mut images);
        assert!(programs.of(key(7), 1).is_none());
        for pid in 0..3_000 {
            programs.take(&piece(pid, 2, 0, &whole, 50, 20), &mut images);
            programs.take(&piece(pid, u64::from(pid), 0, b"p\0", 2, 9), &mut images);
        }
        assert!(programs.kept.len() <= KEPT && programs.pending.len() <= PENDING);
    }
}
