//! The code of a process against the files that it comes from.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use procfs::process::MMPermissions;
use procfs::process::MMapPath;
use procfs::process::Process;

use crate::stage::must;

/// Bytes of a process's code that are not those of the file that they come from, in files whose name begins like that.
pub fn foreign_bytes(pid: u32, name: &str) -> usize {
    let number = i32::try_from(pid).unwrap_or_else(|_| panic!("{pid} is no pid"));
    let process = must(Process::new(number), format_args!("look at {pid}"));
    let memory = must(File::open(format!("/proc/{pid}/mem")), format_args!("open the memory of {pid}"));
    let maps = must(process.maps(), format_args!("read the maps of {pid}"));
    let code = maps.into_iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE));
    let differ = code.filter_map(|map| {
        let MMapPath::Path(path) = map.pathname else { return None };
        if !path.file_name()?.to_string_lossy().starts_with(name) {
            return None;
        }
        let (begin, end) = map.address;
        let mut now = vec![0; usize::try_from(end - begin).ok()?];
        must(memory.read_exact_at(&mut now, begin), format_args!("read the code of {pid}"));
        let file = must(fs::read(&path), format_args!("read {}", path.display()));
        let of_file = file.get(usize::try_from(map.offset).ok()?..)?;
        Some(now.iter().zip(of_file).filter(|(now, then)| now != then).count())
    });
    differ.sum()
}
