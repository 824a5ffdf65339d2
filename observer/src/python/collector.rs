//! Where in an interpreter's file the garbage collector passes when a run begins and when it ends.
//!
//! CPython calls `invoke_gc_callback` then (`Modules/gcmodule.c`, from 3.13 `Python/gc.c`). It is static, so stripped builds
//! do not name it, but it alone refers to the format of what callbacks are given; and the tables for unwinding, which
//! stripping leaves, tell where functions begin.
use std::ops::Range;

use gimli::BaseAddresses;
use gimli::EhFrame;
use gimli::EhFrameHdr;
use gimli::EndianSlice;
use gimli::NativeEndian;
use gimli::UnwindSection as _;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;
use object::Architecture;
use object::Object;
use object::ObjectSection;
use object::ObjectSegment as _;
use object::SectionKind;

/// What `Py_BuildValue` makes the callbacks' dictionary from, up to 3.14.
const FORMAT: &[u8] = b"\0{sisnsn}\0";
/// In the index of the tables for unwinding: how the number of its entries is written. Every linker writes 32 bits
/// (`DW_EH_PE_udata4`), and the reader does not expect more than memory can hold.
const COUNT_ENCODING: usize = 2;
const COUNT_WORD: u8 = 3;
/// Where sections may begin: behind an ELF file's own head, in user space (as in `memory`).
const ADDRESSES: Range<u64> = 64..1 << 48;
/// Bytes of a displacement or of an address in an instruction.
const WORD: usize = 4;

/// What the function is told, and what it is called with, as C has it.
const PHASES: [&[u8]; 2] = [b"start\0", b"stop\0"];
/// How far before a call the code that says which of the two may end, in bytes.
const NEAR: usize = 32;
/// Calls of each kind that are followed.
pub const CALLS: usize = 4;

/// A function, or the part of one that the compiler put elsewhere because it seldom runs: first address and the one behind.
pub(super) type Part = (u64, u64);

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
    let [begins, ends] = code.calls((begin, end), part, PHASES.map(|phase| addresses_of(elf, phase)))?;
    Some(Passage { offset, begins, ends })
}

/// Where in the file stands what is linked to an address.
pub(super) fn offset_of<'a>(elf: &impl Object<'a>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let at = address.checked_sub(segment.address())?;
        let (offset, bytes) = segment.file_range();
        (at < bytes).then_some(offset.checked_add(at)?)
    })
}

/// Where these bytes stand among the constants.
fn addresses_of<'a>(elf: &impl Object<'a>, bytes: &[u8]) -> Vec<u64> {
    let sections = elf.sections().filter(|section| is_constant(section) && is_placed(section));
    let found = sections.flat_map(|section| {
        let data = section.data().unwrap_or_default();
        let places = memchr::memmem::find_iter(data, bytes);
        places.map(|at| section.address() + at as u64).collect::<Vec<_>>()
    });
    found.collect()
}

fn is_constant<'a>(section: &impl object::ObjectSection<'a>) -> bool {
    matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString)
}

/// Whether a section is where those of a program can be: no sum of addresses leaves the range of numbers.
fn is_placed<'a>(section: &impl object::ObjectSection<'a>) -> bool {
    ADDRESSES.contains(&section.address())
}

/// An interpreter's instructions, and where its functions begin and end.
pub(super) struct Code<'a> {
    texts: Vec<(u64, &'a [u8])>,
    frames: EhFrame<EndianSlice<'a, NativeEndian>>,
    index: gimli::ParsedEhFrameHdr<EndianSlice<'a, NativeEndian>>,
    bases: BaseAddresses,
}

impl<'a> Code<'a> {
    pub(super) fn of(elf: &impl Object<'a>) -> Option<Code<'a>> {
        let is_code = |section: &_| ObjectSection::kind(section) == SectionKind::Text && is_placed(section);
        let texts = elf.sections().filter(is_code);
        let texts = texts.filter_map(|section| Some((section.address(), section.data().ok()?))).collect();
        let (frames, index) = (elf.section_by_name(".eh_frame")?, elf.section_by_name(".eh_frame_hdr")?);
        let bases = BaseAddresses::default().set_eh_frame(frames.address()).set_eh_frame_hdr(index.address());
        let index = index.data().ok().filter(|index| index.get(COUNT_ENCODING) == Some(&COUNT_WORD))?;
        let index = EhFrameHdr::new(index, NativeEndian).parse(&bases, 8).ok()?;
        Some(Code { texts, frames: EhFrame::new(frames.data().ok()?, NativeEndian), index, bases })
    }

    /// The part that an address is in.
    pub(super) fn part(&self, address: u64) -> Option<Part> {
        let entry = self.index.table()?.lookup(address, &self.bases).ok()?.direct().ok()?;
        let offset = usize::try_from(entry.checked_sub(self.bases.eh_frame.section?)?).ok()?;
        let cie = EhFrame::cie_from_offset;
        let found = self.frames.fde_from_offset(&self.bases, offset.into(), cie).ok()?;
        let found = Some(found).filter(|found| found.contains(address))?;
        Some((found.initial_address(), found.end_address()))
    }

    pub(super) fn bytes(&self, begin: u64, end: u64) -> Option<&'a [u8]> {
        self.texts.iter().find_map(|(address, text)| {
            let at = |address_in: u64| usize::try_from(address_in.checked_sub(*address)?).ok();
            text.get(at(begin)?..at(end)?)
        })
    }

    /// Every place where an instruction with this first byte, and a second byte like that, may refer to an address by its
    /// distance: the address behind the instruction, and the one that it refers to.
    fn references(&self, first: u8, second: Option<fn(u8) -> bool>) -> impl Iterator<Item = (u64, u64)> {
        self.texts.iter().flat_map(move |(address, text)| {
            memchr::memchr_iter(first, text).filter_map(move |at| {
                let is_one = second.is_none_or(|is| text.get(at + 1).is_some_and(|byte| is(*byte)));
                let behind = at + 1 + usize::from(second.is_some());
                let distance = i32::from_le_bytes(*text.get(behind..)?.first_chunk()?);
                let behind = address + (behind + WORD) as u64;
                is_one.then_some((behind, behind.wrapping_add_signed(distance.into())))
            })
        })
    }

    /// The only part with an instruction that takes this address: `lea distance(%rip)`, or `mov $address` where code has a
    /// fixed place.
    fn part_that_refers_to(&self, wanted: u64) -> Option<Part> {
        let lea = self.references(0x8d, Some(is_relative));
        let lea = lea.filter(|(_, address)| *address == wanted).map(|(behind, _)| behind - 1);
        let word = u32::try_from(wanted).map(u32::to_le_bytes).unwrap_or([0xff; WORD]);
        let mov = self.texts.iter().flat_map(|(address, text)| {
            let is_mov =
                |at: &usize| at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(is_mov);
            let places = memchr::memmem::find_iter(text, &word).filter(is_mov);
            places.map(|at| address + at as u64).collect::<Vec<_>>()
        });
        only(lea.chain(mov).map(|address| self.part(address)))
    }

    /// The function that a part belongs to: it is called itself, or one that is called jumps into it.
    fn function_of(&self, part: Part) -> Option<Part> {
        if self.is_called(part) {
            return Some(part);
        }
        let is_in = |address: u64| (part.0..part.1).contains(&address);
        let jumps = self.references(0xe9, None).chain(self.references(0x0f, Some(is_jcc)));
        let jumps = jumps.filter(|(behind, target)| is_in(*target) && !is_in(behind - 1));
        only(jumps.map(|(behind, _)| self.part(behind - 1))).filter(|part| self.is_called(*part))
    }

    fn is_called(&self, (begin, _): Part) -> bool {
        self.references(0xe8, None).any(|(_, target)| target == begin)
    }

    /// Return addresses of the calls of a function, by phase. Nothing when one of them does not say which it is, or when the
    /// function is jumped to from elsewhere than its own part: the return address would be another.
    fn calls(&self, function: Part, part: Part, phases: [Vec<u64>; 2]) -> Option<[[u64; CALLS]; 2]> {
        let is_own = |at: u64| [function, part].iter().any(|(begin, end)| (*begin..*end).contains(&at));
        let jumps = self.references(0xe9, None).chain(self.references(0x0f, Some(is_jcc)));
        if jumps.filter(|(_, target)| *target == function.0).any(|(behind, _)| !is_own(behind - 1)) {
            return None;
        }
        let mut found = [[0; CALLS]; 2];
        for (behind, _) in self.references(0xe8, None).filter(|(_, target)| *target == function.0) {
            let before = self.bytes(behind - 5 - NEAR as u64, behind - 5)?;
            let phase = (0..=NEAR - WORD).rev().find_map(|at| {
                let (code, word) = before.split_at_checked(at)?;
                let (here, word) = (behind - 5 - (NEAR - at) as u64, word.first_chunk()?);
                let target = loaded(code, here, *word)?;
                phases.iter().position(|phase| phase.contains(&target))
            })?;
            *found.get_mut(phase)?.iter_mut().find(|address| **address == 0)? = behind;
        }
        found.iter().all(|calls| calls != &[0; CALLS]).then_some(found)
    }
}

/// The address that an instruction takes whose last word is this and stands here, by what is before that word.
fn loaded(code: &[u8], here: u64, word: [u8; WORD]) -> Option<u64> {
    match code {
        [.., 0x8d, modrm] if is_relative(*modrm) => {
            Some((here + WORD as u64).wrapping_add_signed(i32::from_le_bytes(word).into()))
        }
        [.., byte] if is_mov(byte) => Some(u32::from_le_bytes(word).into()),
        _ => None,
    }
}

/// The second byte of `lea distance(%rip)`.
fn is_relative(byte: u8) -> bool {
    byte & 0xc7 == 0x05
}

/// The second byte of a conditional jump with a whole word of distance.
fn is_jcc(byte: u8) -> bool {
    byte & 0xf0 == 0x80
}

/// `mov $…` to a 32-bit register.
fn is_mov(byte: &u8) -> bool {
    byte & 0xf8 == 0xb8
}

/// What all of them are, if they are one thing.
fn only(mut parts: impl Iterator<Item = Option<Part>>) -> Option<Part> {
    let first = parts.next()??;
    parts.all(|part| part == Some(first)).then_some(first)
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

/// `branch_setup_xol_ops` and `push_setup_xol_ops` of `arch/x86/kernel/uprobes.c`.
pub(super) fn is_imitated(instruction: &Instruction) -> bool {
    let is_push = instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Register;
    is_push
        || instruction.is_jcc_short_or_near()
        || instruction.is_jmp_short_or_near()
        || instruction.is_call_near()
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
    fn an_address_is_taken_by_distance_or_as_it_is() {
        assert_eq!(loaded(&[0x48, 0x8d, 0x35], 0x1000, [0x10, 0, 0, 0]), Some(0x1014));
        assert_eq!(loaded(&[0x48, 0x8d, 0x3d], 0x1000, [0xfc, 0xff, 0xff, 0xff]), Some(0x1000));
        assert_eq!(loaded(&[0xbf], 0x1000, [0x9c, 0xeb, 0x71, 0]), Some(0x71_eb9c));
        assert_eq!(loaded(&[0x48, 0x8b, 0x35], 0x1000, [0x10, 0, 0, 0]), None);
        assert_eq!(loaded(&[], 0x1000, [0; 4]), None);
    }

    #[test]
    fn what_is_not_the_same_everywhere_is_not_certain() {
        assert_eq!(only([Some((1, 2)), Some((1, 2))].into_iter()), Some((1, 2)));
        assert_eq!(only([Some((1, 2)), Some((3, 4))].into_iter()), None);
        assert_eq!(only([Some((1, 2)), None].into_iter()), None);
        assert_eq!(only(std::iter::empty()), None);
    }

    #[test]
    fn a_program_without_a_collector_has_no_passage() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(passage(&object::File::parse(&*own).unwrap()), None);
    }
}
