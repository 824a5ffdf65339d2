//! Literals of gunicorn's configuration file: it is Python, which is read here and never run.
use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;

/// The settings that are looked for.
const SETTINGS: [&str; 6] = ["proc_name", "wsgi_app", "bind", "timeout", "worker_class", "threads"];
/// A configuration file is a page or two; nobody's gigabytes are read.
const LIMIT_BYTES: u64 = 256 << 10;

/// The settings of a process's configuration file, given as gunicorn got it. A relative path is looked for where the
/// process is, then in `started_in`, where it was before `--chdir`.
pub(super) fn read(pid: u32, path: &str, started_in: Option<&str>) -> Vec<(String, String)> {
    let root = format!("/proc/{pid}/root");
    let prefix = fs::read_link(&root).unwrap_or_else(|_| PathBuf::from("/"));
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| PathBuf::from("/"));
    let folder =
        folder.strip_prefix(prefix).map(|inside| Path::new("/").join(inside)).unwrap_or(folder.clone());
    let folders = [Some(folder), started_in.map(PathBuf::from)];
    let text = folders.into_iter().flatten().find_map(|folder| open(Path::new(&root), &folder.join(path)));
    literals(&text.unwrap_or_default())
}

/// The text of a regular file as the process sees it: no link leads out of its root, no pipe is waited for.
fn open(root: &Path, path: &Path) -> Option<String> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, folder, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let file = File::from(file);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > LIMIT_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Settings that are assigned a literal at the beginning of a line; the last assignment is the one that counts, and if
/// that is no literal, there is no telling: the value is empty.
fn literals(text: &str) -> Vec<(String, String)> {
    let value = |name: &str| text.lines().filter_map(|line| assigned(line, name)).next_back();
    let found = |name: &&str| Some(((*name).to_owned(), value(name)?.unwrap_or_default()));
    SETTINGS.iter().filter_map(found).collect()
}

/// A whole number, with a comment perhaps.
fn number(value: &str) -> Option<String> {
    let digits = value.split('#').next()?.trim();
    digits.parse::<u64>().is_ok().then(|| digits.to_owned())
}

/// What a line assigns to `name`, if it does: a literal, or something else.
fn assigned(line: &str, name: &str) -> Option<Option<String>> {
    let rest = line.strip_prefix(name)?.trim_start();
    let value = match rest.strip_prefix(':') {
        Some(annotated) => annotated.split_once('=')?.1,
        None => rest.strip_prefix('=').filter(|rest| !rest.starts_with('='))?,
    };
    Some(literal(value.trim()).or_else(|| number(value)))
}

fn literal(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
    let (value, rest) = text.get(1..)?.split_once(quote)?;
    let rest = rest.trim_start();
    let is_alone = rest.is_empty() || rest.starts_with('#');
    (is_alone && !value.contains('\\')).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_count() {
        let cases = [
            ("proc_name = \"shop\"\n", Some("shop")),
            ("workers = 2\nproc_name='shop' # the name\n", Some("shop")),
            ("proc_name: str = 'shop'", Some("shop")),
            ("proc_name = 'a'\nproc_name = 'b'\n", Some("b")),
            ("proc_name = 'a'\nproc_name = name()\n", Some("")),
            ("proc_name = 'a' + 'b'", Some("")),
            ("proc_name = f'a{x}'", Some("")),
            ("proc_name = '''a'''", Some("")),
            ("proc_name = 'a\\n'", Some("")),
            ("proc_name == 'a'", None),
            ("  proc_name = 'a'", None),
            ("# proc_name = 'a'", None),
            ("proc_names = 'a'", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = literals(text).into_iter().find(|(name, _)| name == "proc_name");
            assert_eq!(found.map(|(_, value)| value).as_deref(), expected, "{text}");
        }
        let two = literals("wsgi_app = 'a:b'\nbind = '127.0.0.1:8000'");
        assert_eq!(two.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["wsgi_app", "bind"]);
    }

    #[test]
    fn a_file_is_read_as_the_process_sees_it() {
        let folder = std::env::temp_dir().join(format!("sw-observe-config-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("shop.py");
        fs::write(&file, "proc_name = 'shop'\n").unwrap();
        let named = |path: &str, started_in: Option<&str>| read(std::process::id(), path, started_in);
        let expected = [("proc_name".to_owned(), "shop".to_owned())];
        assert_eq!(named(file.to_str().unwrap(), None), expected);
        assert_eq!(named("./shop.py", folder.to_str()), expected);
        assert_eq!(named("no-such.py", folder.to_str()), []);
        assert_eq!(named("/dev/zero", None), []);
        fs::remove_dir_all(&folder).unwrap();
    }
}
