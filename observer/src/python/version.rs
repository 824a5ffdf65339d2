//! Which Python a process runs, from the files that it has mapped.
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSymbol as _;
use object::read::ReadCache;
use procfs::process::MMapPath;
use procfs::process::Process;

/// The exported constant that holds the version from CPython 3.11 on
/// (`Include/pylifecycle.h`, `PY_VERSION_HEX` of `Include/patchlevel.h`).
const SYMBOL: &str = "Py_Version";

/// `3.11.7`, or `3.8` where only the files' names tell, or `None` for a process that runs no Python.
pub fn of(process: &Process) -> Option<String> {
    let files = interpreters(process);
    let exact = files.iter().find_map(|(_, file)| exact(file));
    exact.or_else(|| files.iter().find_map(|(name, _)| from_name(name)))
}

/// The executable and every mapped libpython, by name and as a path that opens it in any mount namespace.
fn interpreters(process: &Process) -> Vec<(String, PathBuf)> {
    let root = PathBuf::from(format!("/proc/{}", process.pid()));
    let mut files = Vec::new();
    if let Ok(exe) = process.exe() {
        files.push((file_name(&exe), root.join("exe")));
    }
    for map in process.maps().into_iter().flatten() {
        let MMapPath::Path(path) = map.pathname else { continue };
        let name = file_name(&path);
        if name.starts_with("libpython") && files.iter().all(|(known, _)| *known != name) {
            let (start, end) = map.address;
            files.push((name, root.join(format!("map_files/{start:x}-{end:x}"))));
        }
    }
    files
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn exact(path: &Path) -> Option<String> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(SYMBOL))?;
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let bytes = section.data_range(symbol.address(), 4).ok()??;
    let [_, micro, minor, major] = <[u8; 4]>::try_from(bytes).ok()?;
    (major == 3).then(|| format!("{major}.{minor}.{micro}"))
}

/// `3.8` of `python3.8`, `libpython3.8.so.1.0` or `libpython3.7m.so.1.0`.
fn from_name(name: &str) -> Option<String> {
    let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python3.")?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!minor.is_empty()).then(|| format!("3.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_minor_version() {
        assert_eq!(from_name("libpython3.7m.so.1.0"), Some("3.7".to_owned()));
        assert_eq!(from_name("python3.13"), Some("3.13".to_owned()));
        assert_eq!(from_name("python3"), None);
        assert_eq!(from_name("bash"), None);
    }
}
