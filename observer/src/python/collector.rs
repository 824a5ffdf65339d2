//! Where in an interpreter's file the garbage collector passes when a run begins and when it ends.
//!
//! CPython calls `invoke_gc_callback` then (`Modules/gcmodule.c`, from 3.13 `Python/gc.c`). It is static, so stripped builds
//! do not name it, but it alone refers to the format of what callbacks are given; and the tables for unwinding, which
//! stripping leaves, tell where functions begin.
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Register;
use object::Architecture;
use object::Object;

use super::code::Code;
use super::code::Part;
use super::code::WORD;
use super::code::addresses_of;
use super::code::is_imitated;
use super::code::is_jcc;
use super::code::loaded;
use super::code::offset_of;

/// What `Py_BuildValue` makes the callbacks' dictionary from, up to 3.14.
const FORMAT: &[u8] = b"\0{sisnsn}\0";
/// What the function is told, and what it is called with, as C has it.
const PHASES: [&[u8]; 2] = [b"start\0", b"stop\0"];
/// How far before a call the code that says which of the two may end, in bytes.
const NEAR: usize = 32;
/// Calls of each kind that are followed.
pub const CALLS: usize = 4;

/// Where the collector passes when a run begins and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Offset in the file of an instruction of the function, at which its return address is on top of the stack.
    pub offset: u64,
    /// Return addresses of the calls at the begin of a run, as linked; 0 for none.
    pub begins: [u64; CALLS],
    /// Those of the calls at its end.
    pub ends: [u64; CALLS],
}

/// Finds it; nothing for a build in which it is not certain.
pub fn passage<'a>(elf: &impl Object<'a>) -> Option<Passage> {
    if elf.architecture() != Architecture::X86_64 {
        return None;
    }
    let code = Code::of(elf)?;
    let [format] = *addresses_of(elf, FORMAT) else { return None };
    let part = code.part_that_refers_to(format + 1)?;
    let (begin, end) = code.function_of(part)?;
    let address = cheapest(code.bytes(begin, end)?, begin)?;
    let offset = offset_of(elf, address)?;
    let [begins, ends] = calls(&code, (begin, end), part, PHASES.map(|phase| addresses_of(elf, phase)))?;
    Some(Passage { offset, begins, ends })
}

/// Return addresses of the calls of a function, by phase. Nothing when one of them does not say which it is, or when the
/// function is jumped to from elsewhere than its own part: the return address would be another.
fn calls(code: &Code<'_>, function: Part, part: Part, phases: [Vec<u64>; 2]) -> Option<[[u64; CALLS]; 2]> {
    let is_own = |at: u64| [function, part].iter().any(|(begin, end)| (*begin..*end).contains(&at));
    let jumps = code.references(0xe9, None).chain(code.references(0x0f, Some(is_jcc)));
    if jumps.filter(|(_, target)| *target == function.0).any(|(behind, _)| !is_own(behind - 1)) {
        return None;
    }
    let mut found = [[0; CALLS]; 2];
    for (behind, _) in code.references(0xe8, None).filter(|(_, target)| *target == function.0) {
        let before = code.bytes(behind - 5 - NEAR as u64, behind - 5)?;
        let phase = (0..=NEAR - WORD).rev().find_map(|at| {
            let (first, word) = before.split_at_checked(at)?;
            let (here, word) = (behind - 5 - (NEAR - at) as u64, word.first_chunk()?);
            let target = loaded(first, here, *word)?;
            phases.iter().position(|phase| phase.contains(&target))
        })?;
        *found.get_mut(phase)?.iter_mut().find(|address| **address == 0)? = behind;
    }
    found.iter().all(|calls| calls != &[0; CALLS]).then_some(found)
}

/// Address of the first instruction that always runs and that the kernel imitates, before the stack pointer moves: a hit
/// takes a tenth of the time there. Else of the first of all.
fn cheapest(function: &[u8], begin: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, function, begin, DecoderOptions::NONE);
    for instruction in &mut decoder {
        if instruction.is_invalid() {
            return None; // not the begin of a function
        }
        if is_imitated(&instruction) {
            return Some(instruction.ip());
        }
        if instruction.flow_control() != FlowControl::Next || instruction.op0_register() == Register::RSP {
            break;
        }
    }
    Some(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_goes_where_the_kernel_imitates_and_the_stack_is_untouched() {
        // mov 0x360(%rdi),%rax; test %rax,%rax; je …
        let late = [0x48, 0x8b, 0x87, 0x60, 3, 0, 0, 0x48, 0x85, 0xc0, 0x74, 0x0c, 0xc3];
        assert_eq!(cheapest(&late, 0x1000), Some(0x100a));
        // push %r13; …
        assert_eq!(cheapest(&[0x41, 0x55, 0xc3], 0x1000), Some(0x1000));
        // endbr64; push %rbp
        assert_eq!(cheapest(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3], 0x1000), Some(0x1004));
        // sub $8,%rsp; push %rbp
        assert_eq!(cheapest(&[0x48, 0x83, 0xec, 8, 0x55, 0xc3], 0x1000), Some(0x1000));
        // mov %rdi,%rax; ret
        assert_eq!(cheapest(&[0x48, 0x89, 0xf8, 0xc3], 0x1000), Some(0x1000));
        // no instruction
        assert_eq!(cheapest(&[0x06, 0xc3], 0x1000), None);
    }

    #[test]
    fn a_program_without_a_collector_has_no_passage() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(passage(&object::File::parse(&*own).unwrap()), None);
    }
}
