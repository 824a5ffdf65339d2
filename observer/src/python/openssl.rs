//! OpenSSL as CPython's module `_ssl` uses it: which file of a process it is in, and where the functions begin and end that
//! read and write.
//!
//! It is a shared library, or part of what `_ssl` is in: of a module's file, of `libpython`, of the interpreter. A function
//! ends at each of its returns, and at those of a function that it jumps to as its last act (`SSL_write_ex` to
//! `SSL_write_ex2` from 3.3 on).
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Mnemonic;
use object::Architecture;
use object::Object;
use object::ObjectSymbol as _;
use procfs::process::MMapPath;
use procfs::process::Process;

use super::code::Code;
use super::code::is_imitated;
use super::code::offset_of;
use super::elf::Source;
use super::image::FileKey;
use super::stripped;

/// What CPython calls: up to 3.9 `SSL_read` and `SSL_write`, then those with `_ex`.
const FUNCTIONS: [&str; 8] = [
    "SSL_write",
    "SSL_write_ex",
    "SSL_read",
    "SSL_read_ex",
    "SSL_free",
    "SSL_do_handshake",
    "SSL_set_accept_state",
    "SSL_set_bio",
];
/// So many of them move bytes, and say how many when they return.
const MOVING: usize = 4;
/// How the name of the shared library begins.
const LIBRARY: &str = "libssl.so";
/// How the names begin of what else may have it inside: the module's file goes before all, since others have none then.
const MODULE: &str = "_ssl.";
const INTERPRETER: &str = "libpython";
/// How many files are remembered.
const FILES: usize = 256;

/// One of each function, in the order of `kernel::catalog`; nothing where nobody calls it.
pub(super) type Functions = [Option<u64>; FUNCTIONS.len()];

/// Offsets in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where the functions are entered, with their arguments untouched.
    pub begins: Functions,
    /// Where those return that move bytes.
    pub ends: Vec<u64>,
}

/// A file that a process maps.
#[derive(Clone, Debug)]
pub struct Library {
    /// Which file that is.
    pub file: FileKey,
    /// A path that opens it as long as the process lives.
    pub path: PathBuf,
}

/// What is known of a file; nothing if it has no OpenSSL, an error that says what is not certain of one that has.
pub type Known = Option<Result<Places, &'static str>>;

/// Files that were looked at, by device and inode.
#[derive(Debug, Default)]
pub struct Libraries {
    known: BTreeMap<FileKey, Known>,
}

impl Libraries {
    /// The OpenSSL of a process, if it has one, and where its functions are; the error says what is not known of it.
    pub fn find(&mut self, pid: u32) -> Option<(Library, Result<Places, &'static str>)> {
        candidates(pid)?.into_iter().find_map(|library| {
            let places = self.places(&library)?;
            Some((library, places))
        })
    }

    fn places(&mut self, library: &Library) -> Known {
        if self.known.len() >= FILES {
            self.known.clear();
        }
        let read = || {
            let source = Source::open(&library.path)?;
            places(&source.elf()?)
        };
        self.known.entry(library.file).or_insert_with(read).clone()
    }
}

/// Files of a process that may have it, the likeliest first.
fn candidates(pid: u32) -> Option<Vec<Library>> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let exe = process.exe().unwrap_or_default();
    let mut found: Vec<(u8, Library)> = Vec::new();
    for map in process.maps().ok()?.into_iter().filter(|map| map.offset == 0) {
        let MMapPath::Path(path) = map.pathname else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rank = match () {
            () if name.starts_with(MODULE) => 0,
            () if path == exe => 1,
            () if name.starts_with(INTERPRETER) => 2,
            () if name.starts_with(LIBRARY) => 3,
            () => continue,
        };
        let (begin, end) = map.address;
        let path = PathBuf::from(format!("/proc/{pid}/map_files/{begin:x}-{end:x}"));
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        found.push((rank, Library { file: (meta.dev(), meta.ino()), path }));
    }
    found.sort_by_key(|(rank, _)| *rank);
    let has_module = found.first().is_some_and(|(rank, _)| *rank == 0);
    found.retain(|(rank, _)| !has_module || !(1..=2).contains(rank));
    Some(found.into_iter().map(|(_, library)| library).collect())
}

/// Where they are in a file.
pub fn places<'a>(elf: &impl Object<'a>) -> Known {
    if elf.architecture() != Architecture::X86_64 {
        return None;
    }
    let named = named(elf);
    let Some(code) = Code::of(elf) else {
        return named.map(|_| Err("it has no tables for unwinding"));
    };
    let functions = match named {
        Some(functions) => Ok(functions),
        None => stripped::functions(elf, &code)?,
    };
    Some(functions.and_then(|functions| placed(elf, &code, functions)))
}

/// The functions by their symbols, if the file defines what every OpenSSL has.
fn named<'a>(elf: &impl Object<'a>) -> Option<Functions> {
    let mut found = Functions::default();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()).filter(|symbol| symbol.is_definition()) {
        let name = symbol.name().unwrap_or_default();
        let at = FUNCTIONS.iter().position(|function| *function == name);
        if let Some(place) = at.and_then(|at| found.get_mut(at)) {
            place.get_or_insert(symbol.address());
        }
    }
    let is_whole = found.iter().any(Option::is_some);
    is_whole.then_some(found)
}

/// Where they are entered and where they return; an error where one is not certain.
fn placed<'a>(elf: &impl Object<'a>, code: &Code<'_>, functions: Functions) -> Result<Places, &'static str> {
    let [write, write_ex, read, read_ex, rest @ ..] = &functions;
    let [_, greets, accepts, made] = rest;
    let moves = read.or(*read_ex).and(write.or(*write_ex));
    if moves.and(*made).and(*accepts).and(*greets).is_none() {
        return Err("it lacks functions of OpenSSL 1.1.1");
    }
    let mut begins = Functions::default();
    let mut ends = BTreeSet::new();
    for (at, (function, begin)) in functions.into_iter().zip(&mut begins).enumerate() {
        let Some(function) = function else { continue };
        let body = code.body(function).ok_or("where its functions end is not known")?;
        let first = body.parts.first().and_then(|(begin, end)| code.bytes(*begin, *end));
        let entry = entry(first.ok_or("its code is elsewhere")?, function);
        *begin = Some(offset_of(elf, entry).ok_or("its code is elsewhere")?);
        if at < MOVING {
            if body.is_open || body.returns.is_empty() {
                return Err("how its functions end is not known");
            }
            ends.extend(body.returns);
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
        assert_eq!(places(&object::File::parse(&*own).unwrap()), None);
        assert!(Libraries::default().find(std::process::id()).is_none());
    }
}
