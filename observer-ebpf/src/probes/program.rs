//! The arguments and environment of a Python program, copied at exec: a title set later would overwrite them.
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use observer_ebpf::config::PROGRAM_PIECE;
use observer_ebpf::config::PROGRAM_PIECES;
use observer_ebpf::counter::Drop;
use observer_ebpf::record::Kind;
use observer_ebpf::record::Program;

use crate::emit;
use crate::kernel;
use crate::kernel::offset;
use crate::maps::RECORDS;

/// Interpreters are called `python3.11` and the like; the kernel has followed links and `#!` lines by now.
const INTERPRETER: [u8; 6] = *b"python";

/// A record with the piece that follows it.
#[repr(C)]
struct Frame {
    program: Program,
    bytes: [u8; PROGRAM_PIECE],
}

/// The running process replaced its program. Whether it is going to be an arbiter is not known yet.
#[inline(always)]
pub fn started() -> Option<()> {
    let task = kernel::current_task();
    let memory: u64 = kernel::read(task, offset!(task_mm))?;
    let file: u64 = kernel::read(memory, offset!(mm_exe_file))?;
    let dentry: u64 = kernel::read(file, offset!(file_dentry))?;
    let name: u64 = kernel::read(dentry, offset!(dentry_name))?;
    let name: [u8; 6] = kernel::read(name, 0)?;
    if name != INTERPRETER {
        return None;
    }
    let stack: u64 = kernel::read(memory, offset!(mm_arg_start))?;
    let arguments_end: u64 = kernel::read(memory, offset!(mm_arg_end))?;
    let end: u64 = kernel::read(memory, offset!(mm_env_end))?;
    let size = end.saturating_sub(stack) as u32;
    let mut program = Program {
        header: emit::header(Kind::Program),
        start: kernel::process_start(task),
        stack,
        offset: 0,
        size,
        arguments: arguments_end.saturating_sub(stack) as u32,
        zero: 0,
    };
    let mut piece = 0;
    while piece < PROGRAM_PIECES && program.offset < size {
        copy(&mut program);
        piece += 1;
    }
    Some(())
}

/// Reports the next piece. A function of its own, so that the verifier walks it once.
#[inline(never)]
fn copy(program: &mut Program) {
    let at = program.stack + u64::from(program.offset);
    let left = program.size.saturating_sub(program.offset);
    if let Some(mut entry) = RECORDS.reserve::<Frame>(0) {
        // Hidden from the compiler, so that the verifier sees the bound checked here.
        let len = core::hint::black_box(left).min(PROGRAM_PIECE as u32);
        // SAFETY: reserved memory of this type, all of it integers; every field that is read later is written here.
        let frame = unsafe { &mut *entry.as_mut_ptr() };
        frame.program = *program;
        // SAFETY: the helper writes at most the piece and reports a bad user address as an error.
        if unsafe { bpf_probe_read_user(frame.bytes.as_mut_ptr().cast(), len, at as *const _) } == 0 {
            frame.program.header.len = len;
        } else {
            emit::lost(Drop::UserFault);
        }
        entry.submit(emit::wake());
    } else {
        emit::lost(Drop::RingFull);
    }
    program.offset += PROGRAM_PIECE as u32;
}
