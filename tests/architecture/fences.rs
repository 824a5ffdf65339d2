//! What may only stand in some places: `unsafe`, and whatever makes the core impure.

use crate::none;
use crate::source;
use crate::source::File;

/// Where `unsafe` may stand.
const UNSAFE: [&str; 3] = ["observer-ebpf/", "observer/src/kernel/", "observer/build.rs"];
/// The pure core (invariant I1).
const CORE: [&str; 7] = ["exchange", "identity", "meter", "pipeline", "protocol", "stream", "trace"];
/// What the core does without: files, clocks, tasks, locks, and maps whose order differs from run to run.
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "TcpStream",
    "UnixStream",
    "Mutex",
    "HashMap",
    "HashSet",
    "kernel_now",
    "wall_offset",
    "async fn",
    "println!",
];

fn unsafe_violations(file: &File) -> Vec<String> {
    if file.extension() != "rs" {
        return Vec::new();
    }
    let allowed = UNSAFE.iter().any(|place| file.path.starts_with(place));
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, code) in source::code(&file.text).lines().enumerate() {
        if !has_word(code, "unsafe") {
            continue;
        }
        if !allowed {
            found.push(format!("{}:{}: unsafe is fenced to {}", file.path, at + 1, UNSAFE.join(", ")));
        }
        // An attribute or a declaration states a duty; a block or an implementation has to show that it is met.
        let declares = ["unsafe(", "unsafe fn", "unsafe trait"].iter().any(|form| code.contains(form));
        if !declares && !explained(&lines, at) {
            found.push(format!("{}:{}: unsafe without a SAFETY comment just above", file.path, at + 1));
        }
    }
    found
}

/// Whether the comment that ends at most three lines above has a SAFETY in it.
fn explained(lines: &[&str], at: usize) -> bool {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let above = lines[..at].iter().rev();
    let mut comment = above.skip_while(|line| !is_comment(line)).take_while(is_comment);
    let near = lines[at.saturating_sub(3)..at].iter().any(|line| is_comment(&line));
    near && comment.any(|line| line.contains("SAFETY:"))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

fn impure(file: &File) -> Vec<String> {
    let inside = file.path.strip_prefix("observer/src/").unwrap_or_default();
    let in_core = CORE.iter().any(|module| inside.starts_with(&format!("{module}/")));
    if !in_core {
        return Vec::new();
    }
    let code = source::code(&file.text);
    let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let found = IMPURE.iter().filter(|word| shipped.contains(**word));
    found.map(|word| format!("{}: {word} does not belong into the pure core", file.path)).collect()
}

#[test]
fn unsafe_is_fenced_and_explained() {
    none(source::files().iter().flat_map(unsafe_violations).collect());
}

#[test]
fn the_core_is_pure() {
    let files = source::files();
    for module in CORE {
        let path = format!("observer/src/{module}/mod.rs");
        assert!(files.iter().any(|file| file.path == path), "no {path}: the list in this test is old");
    }
    none(files.iter().flat_map(impure).collect());
}

#[test]
fn planted_unsafe_is_found() {
    let count = |path: &str, text: &str| unsafe_violations(&File::new(path, text)).len();
    let good = "// SAFETY: it is.\nlet x = unsafe { f() };";
    assert_eq!(count("observer/src/kernel/a.rs", good), 0);
    assert_eq!(count("observer/src/app/a.rs", good), 1);
    assert_eq!(count("observer/src/kernel/a.rs", "let x = unsafe { f() };"), 1);
    assert_eq!(count("observer/src/kernel/a.rs", "// SAFETY: old.\na();\nb();\nc();\nunsafe { f() };"), 1);
    assert_eq!(count("observer/src/kernel/a.rs", "// unsafe\nlet unsafety = \"unsafe\";"), 0);
    assert_eq!(count("observer-ebpf/src/a.rs", "#[unsafe(no_mangle)]\nstatic A: u8 = 0;"), 0);
}

#[test]
fn planted_impurity_is_found() {
    let count = |path: &str, text: &str| impure(&File::new(path, text)).len();
    assert_eq!(count("observer/src/trace/a.rs", "let now = clock::kernel_now();"), 1);
    assert_eq!(count("observer/src/meter/mod.rs", "use std::collections::HashMap;"), 1);
    assert_eq!(count("observer/src/process/a.rs", "use std::fs;"), 0);
    assert_eq!(count("observer/src/trace/a.rs", "// HashMap\n#[cfg(test)]\nmod tests {\nuse std::fs;\n}"), 0);
}
