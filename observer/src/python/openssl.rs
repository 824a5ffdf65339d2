//! OpenSSL as CPython's module `_ssl` uses it: which file a process maps, and where the functions begin and end that read
//! and write.
//!
//! A function ends at each of its returns, and at those of a function that it jumps to as its last act (`SSL_write_ex` to
//! `SSL_write_ex2` from 3.3 on). The tables for unwinding, which stripping leaves, tell how far functions reach.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use object::Architecture;
use object::Object;
use object::ObjectSymbol as _;
use procfs::process::MMapPath;
use procfs::process::Process;

use super::collector::Code;
use super::collector::Part;
use super::collector::is_imitated;
use super::collector::offset_of;
use super::elf::Source;
use super::image::FileKey;

/// What CPython calls: up to 3.9 `SSL_read` and `SSL_write`, then those with `_ex`.
const FUNCTIONS: [&str; 8] = [
    "SSL_read",
    "SSL_read_ex",
    "SSL_write",
    "SSL_write_ex",
    "SSL_set_bio",
    "SSL_set_accept_state",
    "SSL_do_handshake",
    "SSL_free",
];
/// So many of them move bytes, and say how many when they return.
const MOVING: usize = 4;
/// How the name of the shared library begins.
const NAME: &str = "libssl.so";
/// The most parts of a function, with those of the functions that it ends in.
const PARTS: usize = 8;
/// How many files are remembered.
const FILES: usize = 256;

/// Offsets in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where the functions are entered, in the order of `kernel::catalog`, with their arguments untouched.
    pub begins: [u64; FUNCTIONS.len()],
    /// Where those return that move bytes.
    pub ends: Vec<u64>,
}

/// A library that a process maps.
#[derive(Clone, Debug)]
pub struct Library {
    /// Which file that is.
    pub file: FileKey,
    /// A path that opens it as long as the process lives.
    pub path: PathBuf,
}

/// Files that were looked at, by device and inode; the error says what is not known of one.
#[derive(Debug, Default)]
pub struct Libraries {
    known: BTreeMap<FileKey, Result<Places, &'static str>>,
}

impl Libraries {
    /// Where the functions are in a library.
    pub fn places(&mut self, library: &Library) -> Result<Places, &'static str> {
        if self.known.len() >= FILES {
            self.known.clear();
        }
        let read = || {
            let source = Source::open(&library.path).ok_or("it cannot be opened")?;
            places(&source.elf().ok_or("it is no ELF file")?)
        };
        self.known.entry(library.file).or_insert_with(read).clone()
    }
}

/// The shared OpenSSL of a process, if it has one.
pub fn library(pid: u32) -> Option<Library> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let found = process.maps().ok()?.into_iter().filter(|map| map.offset == 0).find_map(|map| {
        let MMapPath::Path(path) = map.pathname else { return None };
        let is_one = path.file_name()?.to_string_lossy().starts_with(NAME);
        is_one.then_some(map.address)
    });
    let (begin, end) = found?;
    let path = PathBuf::from(format!("/proc/{pid}/map_files/{begin:x}-{end:x}"));
    let meta = std::fs::metadata(&path).ok()?;
    Some(Library { file: (meta.dev(), meta.ino()), path })
}

/// Finds them; an error where one is not certain.
pub fn places<'a>(elf: &impl Object<'a>) -> Result<Places, &'static str> {
    if elf.architecture() != Architecture::X86_64 {
        return Err("it is not for x86-64");
    }
    let code = Code::of(elf).ok_or("it has no tables for unwinding")?;
    let mut begins = [0; FUNCTIONS.len()];
    let mut ends = BTreeSet::new();
    for (at, (name, begin)) in FUNCTIONS.into_iter().zip(&mut begins).enumerate() {
        let symbol = elf
            .dynamic_symbols()
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
            .ok_or("it lacks functions of OpenSSL 1.1.1")?;
        let function = code.part(symbol.address()).filter(|(begin, _)| *begin == symbol.address());
        let function = function.ok_or("where its functions end is not known")?;
        let bytes = code.bytes(function.0, function.1).ok_or("its code is elsewhere")?;
        *begin = offset_of(elf, entry(bytes, function.0)).ok_or("its code is elsewhere")?;
        if at < MOVING {
            ends.extend(returns(&code, function).ok_or("how its functions end is not known")?);
        }
    }
    let ends = ends.into_iter().map(|end| offset_of(elf, end)).collect::<Option<Vec<_>>>();
    Ok(Places { begins, ends: ends.ok_or("its code is elsewhere")? })
}

/// The first instruction, or one behind it that the kernel imitates, if nothing that is written before matters.
fn entry(function: &[u8], begin: u64) -> u64 {
    let harmless = [Mnemonic::Endbr64, Mnemonic::Test, Mnemonic::Cmp, Mnemonic::Nop];
    let mut decoder = Decoder::with_ip(64, function, begin, DecoderOptions::NONE);
    let next = decoder.iter().find(|instruction| !harmless.contains(&instruction.mnemonic()));
    next.filter(is_imitated).map_or(begin, |instruction| instruction.ip())
}

/// Addresses of all instructions by which a function returns; nothing when one of its ways out is not known.
fn returns(code: &Code<'_>, function: Part) -> Option<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let mut parts = vec![function];
    let mut looked = 0;
    while let Some((begin, end)) = parts.get(looked).copied() {
        looked += 1;
        let mut decoder = Decoder::with_ip(64, code.bytes(begin, end)?, begin, DecoderOptions::NONE);
        for instruction in &mut decoder {
            if instruction.is_invalid() {
                return None;
            }
            match instruction.flow_control() {
                FlowControl::Return => {
                    found.insert(instruction.ip());
                }
                FlowControl::IndirectBranch => return None,
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    let target = target(&instruction);
                    if !parts.iter().any(|(begin, end)| (*begin..*end).contains(&target)) {
                        parts.push(code.part(target)?);
                    }
                }
                FlowControl::Next
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::Interrupt
                | FlowControl::XbeginXabortXend
                | FlowControl::Exception => {}
            }
        }
        if parts.len() > PARTS {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

fn target(instruction: &Instruction) -> u64 {
    instruction.near_branch_target()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_entered_where_its_arguments_are_untouched() {
        // endbr64; push %rbp
        assert_eq!(entry(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3], 0x1000), 0x1004);
        // test %rdi,%rdi; je …
        assert_eq!(entry(&[0x48, 0x85, 0xff, 0x74, 0x01, 0xc3], 0x1000), 0x1003);
        // endbr64; sub $8,%rsp; call …
        let moves = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0];
        assert_eq!(entry(&moves, 0x1000), 0x1000);
        // mov %rdi,%rax; push %rbp
        assert_eq!(entry(&[0x48, 0x89, 0xf8, 0x55], 0x1000), 0x1000);
    }

    #[test]
    fn a_program_without_openssl_has_no_places() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let found = places(&object::File::parse(&*own).unwrap());
        assert_eq!(found, Err("it lacks functions of OpenSSL 1.1.1"));
        assert!(library(std::process::id()).is_none());
    }
}
