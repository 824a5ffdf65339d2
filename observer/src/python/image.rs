//! The file of an interpreter: which CPython it is and where its runtime stands.
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use object::Object;
use object::ObjectSection as _;
use object::ObjectSegment as _;
use object::ObjectSymbol as _;
use procfs::process::MMapPath;
use procfs::process::Process;

use super::collector;
use super::collector::Passage;
use super::elf::Source;
use super::memory::Memory;

/// The exported constant that holds the version from CPython 3.11 on
/// (`Include/pylifecycle.h`, `PY_VERSION_HEX` of `Include/patchlevel.h`).
const VERSION: &str = "Py_Version";
/// The runtime's state; exported by every build from 3.7 on (`Include/internal/pycore_runtime.h`).
const RUNTIME: &str = "_PyRuntime";
/// What is searched for the text of a version at most, in bytes: the zeroed data of an interpreter has less.
const SEARCHED: u64 = 4 << 20;
/// How many files are remembered.
const FILES: usize = 1_024;
/// How the name of musl's loader begins, which is its library, too.
const MUSL: &str = "ld-musl";

/// Device and inode.
pub type FileKey = (u64, u64);

/// What an interpreter's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// `3.minor`.
    pub minor: u8,
    /// The third number, where the file has it.
    pub micro: Option<u8>,
    /// Address of the runtime as linked.
    runtime: u64,
    /// Where the first segment is linked to, and the last one's begin and end.
    first: u64,
    last: (u64, u64),
}

impl Image {
    /// What an interpreter's file of a name says; nothing when it is no interpreter's.
    pub fn of<'a>(elf: &impl Object<'a>, name: &str) -> Option<Image> {
        let runtime = symbol(elf, RUNTIME)?.address();
        let exact = symbol(elf, VERSION).and_then(|symbol| {
            let section = elf.section_by_index(symbol.section_index()?).ok()?;
            let bytes = section.data_range(symbol.address(), 4).ok()??;
            let [_, micro, minor, major] = <[u8; 4]>::try_from(bytes).ok()?;
            (major == 3).then_some((minor, Some(micro)))
        });
        let (minor, micro) = exact.or_else(|| Some((minor(name)?, None)))?;
        let first = elf.segments().map(|segment| segment.address()).min()? & !0xfff;
        let end = |begin: u64, size| (begin, begin.saturating_add(size));
        let last = elf.segments().map(|segment| end(segment.address(), segment.size())).max()?;
        Some(Image { minor, micro, runtime, first, last })
    }
}

fn symbol<'e, 'a, O: Object<'a>>(elf: &'e O, name: &str) -> Option<O::Symbol<'e>> {
    let mut all = elf.dynamic_symbols().chain(elf.symbols());
    all.find(|symbol| symbol.name() == Ok(name))
}

/// A file that a process maps, as a path that opens it in any mount namespace.
struct Mapped {
    name: String,
    path: PathBuf,
    /// Where its beginning is mapped.
    begin: u64,
}

/// An interpreter in the memory of a process.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its file.
    pub image: Image,
    /// Which file that is.
    pub file: FileKey,
    /// A path that opens it as long as the process lives.
    pub path: PathBuf,
    /// Whether its C library is musl.
    pub musl: bool,
    /// What was added to its linked addresses.
    bias: u64,
}

impl Placed {
    /// One of a release, as if its runtime stood there.
    pub(super) fn made_up(minor: u8, runtime: u64) -> Placed {
        let image = Image { minor, micro: None, runtime, first: 0, last: (0, 0) };
        Placed { image, file: (0, 0), path: PathBuf::new(), musl: false, bias: 0 }
    }

    /// Address of the runtime.
    pub fn runtime(&self) -> u64 {
        self.image.runtime.wrapping_add(self.bias)
    }

    /// The version: `3.11.7`, or `3.8` where only the file's name tells and memory does not.
    pub fn version(&self, memory: Option<&Memory>) -> String {
        let Image { minor, micro, .. } = self.image;
        match micro.or_else(|| self.micro(memory?)) {
            Some(micro) => format!("3.{minor}.{micro}"),
            None => format!("3.{minor}"),
        }
    }

    /// Before 3.11 the version is only in the text of `sys.version`, which the interpreter makes in its zeroed data
    /// (`Python/getversion.c`).
    fn micro(&self, memory: &Memory) -> Option<u8> {
        let (begin, end) = self.image.last;
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin).min(SEARCHED)).ok()?];
        memory.fill(begin.wrapping_add(self.bias), &mut bytes)?;
        text_micro(&bytes, self.image.minor)
    }
}

/// `18` of `3.8.18 (default, …`.
fn text_micro(bytes: &[u8], minor: u8) -> Option<u8> {
    let wanted = format!("3.{minor}.");
    bytes.windows(wanted.len() + 4).find_map(|window| {
        let rest = window.strip_prefix(wanted.as_bytes())?;
        let (digits, _) = std::str::from_utf8(rest).ok()?.split_once([' ', '+'])?;
        digits.parse().ok()
    })
}

/// Files that were looked at, by device and inode; nothing for those that are no interpreter.
#[derive(Debug, Default)]
pub struct Images {
    known: BTreeMap<FileKey, Option<Image>>,
    /// Found by searching all instructions, so only for those who ask.
    passages: BTreeMap<FileKey, Option<Passage>>,
}

impl Images {
    /// The interpreter of a process.
    pub fn find(&mut self, process: &Process) -> Option<Placed> {
        let (files, musl) = mapped(process);
        files.into_iter().find_map(|mapped| {
            let meta = std::fs::metadata(&mapped.path).ok()?;
            let file = (meta.dev(), meta.ino());
            let image = self.image(file, &mapped)?;
            Some(Placed {
                image,
                file,
                musl,
                bias: mapped.begin.wrapping_sub(image.first),
                path: mapped.path,
            })
        })
    }

    fn image(&mut self, key: FileKey, file: &Mapped) -> Option<Image> {
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        if self.known.len() >= FILES {
            *self = Images::default(); // an inode may be another file's by then, too
        }
        let image = Source::open(&file.path).and_then(|source| Image::of(&source.elf()?, &file.name));
        self.known.insert(key, image);
        image
    }

    /// Where an interpreter's collector passes, if that is certain, with addresses as they are in the process.
    pub fn passage(&mut self, placed: &Placed) -> Option<Passage> {
        let found = self
            .passages
            .entry(placed.file)
            .or_insert_with(|| collector::passage(&Source::open(&placed.path)?.elf()?));
        let Passage { offset, begins, ends } = (*found)?;
        let place = |linked: u64| if linked == 0 { 0 } else { linked.wrapping_add(placed.bias) };
        Some(Passage { offset, begins: begins.map(place), ends: ends.map(place) })
    }
}

/// The executable and every mapped libpython, and whether the C library is musl.
fn mapped(process: &Process) -> (Vec<Mapped>, bool) {
    let root = PathBuf::from(format!("/proc/{}", process.pid()));
    let exe = process.exe().unwrap_or_default();
    let mut files: Vec<Mapped> = Vec::new();
    let mut musl = false;
    for map in process.maps().into_iter().flatten().filter(|map| map.offset == 0) {
        let MMapPath::Path(path) = map.pathname else { continue };
        let (begin, end) = map.address;
        let name = file_name(&path);
        musl |= name.starts_with(MUSL);
        let is_exe = path == exe;
        let is_known = files.iter().any(|known| known.name == name);
        if !is_known && (is_exe || name.starts_with("libpython")) {
            let place = if is_exe { "exe".to_owned() } else { format!("map_files/{begin:x}-{end:x}") };
            files.push(Mapped { name, path: root.join(place), begin });
        }
    }
    (files, musl)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `8` of `python3.8`, `libpython3.8.so.1.0` or `libpython3.7m.so.1.0`.
fn minor(name: &str) -> Option<u8> {
    let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python3.")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_minor_version() {
        assert_eq!(minor("libpython3.7m.so.1.0"), Some(7));
        assert_eq!(minor("python3.13"), Some(13));
        assert_eq!(minor("python3"), None);
        assert_eq!(minor("bash"), None);
    }

    #[test]
    fn the_text_of_a_version_tells_the_third_number() {
        assert_eq!(text_micro(b"\0\0/lib/python3.8/x\x003.8.18 (default, Jan)", 8), Some(18));
        assert_eq!(text_micro(b"3.8.1+ (heads/3.8", 8), Some(1));
        assert_eq!(text_micro(b"3.8.x 3.8.", 8), None);
        assert_eq!(text_micro(b"", 8), None);
    }
}
