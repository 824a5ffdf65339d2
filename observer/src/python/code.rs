//! The instructions of an ELF file: where functions begin and end, and what refers to what.
//!
//! The tables for unwinding, which stripping leaves, tell where functions are.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
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
use object::Object;
use object::ObjectSection;
use object::ObjectSegment as _;
use object::ObjectSymbol as _;
use object::ObjectSymbolTable as _;
use object::RelocationTarget;
use object::SectionKind;

/// In the index of the tables for unwinding: how the number of its entries is written. Every linker writes 32 bits
/// (`DW_EH_PE_udata4`), and the reader does not expect more than memory can hold.
const COUNT_ENCODING: usize = 2;
const COUNT_WORD: u8 = 3;
/// Where sections may begin: behind an ELF file's own head, in user space (as in `memory`).
pub(super) const ADDRESSES: Range<u64> = 64..1 << 48;
/// Bytes of a displacement or of an address in an instruction.
pub(super) const WORD: usize = 4;
/// Bytes of an entry of the table through which functions of other files are called.
const ENTRY: u64 = 16;
/// Bytes of a part that is followed at most; the interpreter's loop alone is larger.
const PART_BYTES: u64 = 64 << 10;
/// The most parts of a function, with those of the functions that it ends in.
const PARTS: usize = 8;

/// A function, or the part of one that the compiler put elsewhere because it seldom runs: first address and the one behind.
pub(super) type Part = (u64, u64);

/// Where in the file stands what is linked to an address.
pub(super) fn offset_of<'a>(elf: &impl Object<'a>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let at = address.checked_sub(segment.address())?;
        let (offset, bytes) = segment.file_range();
        (at < bytes).then_some(offset.checked_add(at)?)
    })
}

fn slots<'a>(elf: &impl Object<'a>) -> BTreeMap<u64, u64> {
    let made = elf.dynamic_relocations().into_iter().flatten();
    let made = made.filter_map(|(place, relocation)| {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
        let symbol = elf.dynamic_symbol_table()?.symbol_by_index(symbol).ok()?;
        symbol.is_definition().then(|| (place, symbol.address()))
    });
    made.collect()
}

/// Where these bytes stand among the constants.
pub(super) fn addresses_of<'a>(elf: &impl Object<'a>, bytes: &[u8]) -> Vec<u64> {
    let sections = elf.sections().filter(|section| is_constant(section) && is_placed(section));
    let found = sections.flat_map(|section| {
        let data = section.data().unwrap_or_default();
        let places = memchr::memmem::find_iter(data, bytes);
        places.map(|at| section.address() + at as u64).collect::<Vec<_>>()
    });
    found.collect()
}

fn is_constant<'a>(section: &impl ObjectSection<'a>) -> bool {
    matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString)
}

/// Whether a section is where those of a program can be: no sum of addresses leaves the range of numbers.
pub(super) fn is_placed<'a>(section: &impl ObjectSection<'a>) -> bool {
    ADDRESSES.contains(&section.address())
}

/// An interpreter's instructions, and where its functions begin and end.
pub(super) struct Code<'a> {
    texts: Vec<(u64, &'a [u8])>,
    frames: EhFrame<EndianSlice<'a, NativeEndian>>,
    index: gimli::ParsedEhFrameHdr<EndianSlice<'a, NativeEndian>>,
    bases: BaseAddresses,
    /// Where the loader puts the address of a function of this file, and that address.
    slots: BTreeMap<u64, u64>,
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
        let frames = EhFrame::new(frames.data().ok()?, NativeEndian);
        Some(Code { texts, frames, index, bases, slots: slots(elf) })
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
    pub(super) fn references(
        &self,
        first: u8,
        second: Option<fn(u8) -> bool>,
    ) -> impl Iterator<Item = (u64, u64)> {
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

    /// The only part with an instruction that takes this address.
    pub(super) fn part_that_refers_to(&self, wanted: u64) -> Option<Part> {
        only(self.parts_that_refer_to(wanted))
    }

    /// The parts of all instructions that take this address: `lea distance(%rip)`, or `mov $address` where code has a fixed
    /// place.
    pub(super) fn parts_that_refer_to(&self, wanted: u64) -> impl Iterator<Item = Option<Part>> {
        let lea = self.references(0x8d, Some(is_relative));
        let lea = lea.filter(move |(_, address)| *address == wanted).map(|(behind, _)| behind - 1);
        let word = u32::try_from(wanted).map(u32::to_le_bytes).unwrap_or([0xff; WORD]);
        let mov = self.texts.iter().flat_map(move |(address, text)| {
            let is_mov =
                |at: &usize| at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(is_mov);
            let places = memchr::memmem::find_iter(text, &word).filter(is_mov);
            places.map(|at| address + at as u64).collect::<Vec<_>>()
        });
        lea.chain(mov).map(|address| self.part(address))
    }

    /// The parts that call a function, or jump to it with a whole word of distance.
    pub(super) fn callers(&self, function: u64) -> impl Iterator<Item = Part> {
        let calls = self.references(0xe8, None).chain(self.references(0xe9, None));
        let calls = calls.chain(self.references(0x0f, Some(is_jcc)));
        calls.filter(move |(_, target)| *target == function).filter_map(|(behind, _)| self.part(behind - 1))
    }

    /// Where a call or a jump leads: also through the table by which other files could replace a function of this one.
    fn target(&self, instruction: &Instruction) -> Option<u64> {
        if instruction.op0_kind() != OpKind::NearBranch64 {
            return self.slots.get(&instruction.ip_rel_memory_address()).copied();
        }
        let target = instruction.near_branch_target();
        let entry = self.bytes(target, target + ENTRY).unwrap_or_default();
        let entry = Decoder::with_ip(64, entry, target, DecoderOptions::NONE).into_iter();
        let jump = entry.take(2).find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64);
        let jump = jump.filter(|jump| jump.mnemonic() == Mnemonic::Jmp && jump.is_ip_rel_memory_operand());
        Some(jump.and_then(|jump| self.slots.get(&jump.ip_rel_memory_address()).copied()).unwrap_or(target))
    }

    /// What runs when a function is called that begins there, as far as that is certain.
    pub(super) fn body(&self, begin: u64) -> Option<Body> {
        let mut body =
            Body { parts: vec![self.part(begin).filter(|part| part.0 == begin)?], ..Body::default() };
        let mut looked = 0;
        while let Some((begin, end)) = body.parts.get(looked).copied() {
            looked += 1;
            if end.saturating_sub(begin) > PART_BYTES {
                body.is_open = true;
                continue;
            }
            let mut decoder = Decoder::with_ip(64, self.bytes(begin, end)?, begin, DecoderOptions::NONE);
            for instruction in &mut decoder {
                if instruction.is_invalid() {
                    return None;
                }
                let target = self.target(&instruction);
                match instruction.flow_control() {
                    FlowControl::Return => {
                        body.returns.insert(instruction.ip());
                    }
                    FlowControl::Call | FlowControl::IndirectCall => {
                        body.calls.extend(target);
                    }
                    FlowControl::IndirectBranch if target.is_none() => body.is_open = true,
                    FlowControl::IndirectBranch
                    | FlowControl::UnconditionalBranch
                    | FlowControl::ConditionalBranch => {
                        let target = target.unwrap_or_default();
                        if !body.parts.iter().any(|(begin, end)| (*begin..*end).contains(&target)) {
                            match self.part(target) {
                                Some(part) if body.parts.len() < PARTS => body.parts.push(part),
                                _ => body.is_open = true,
                            }
                        }
                    }
                    FlowControl::Next
                    | FlowControl::Interrupt
                    | FlowControl::XbeginXabortXend
                    | FlowControl::Exception => {}
                }
            }
        }
        Some(body)
    }

    /// The function that a part belongs to: it is called itself, or one that is called jumps into it.
    pub(super) fn function_of(&self, part: Part) -> Option<Part> {
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
}

/// A function, the parts that the compiler put elsewhere, and the functions that it jumps to as its last act.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) parts: Vec<Part>,
    /// What is called in them, as far as it stands in the instruction.
    pub(super) calls: BTreeSet<u64>,
    /// Addresses of the instructions that return.
    pub(super) returns: BTreeSet<u64>,
    /// There are other ways out, or more parts.
    pub(super) is_open: bool,
}

/// The address that an instruction takes whose last word is this and stands here, by what is before that word.
pub(super) fn loaded(code: &[u8], here: u64, word: [u8; WORD]) -> Option<u64> {
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
pub(super) fn is_jcc(byte: u8) -> bool {
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
}
