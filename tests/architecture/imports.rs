//! Who may import whom: the table of ARCHITECTURE.md against every path in `observer/src`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::none;
use crate::source;
use crate::source::File;

const FOLDER: &str = "observer/src/";
const HEADING: &str = "| module | may import | may name |";

/// What one module may do.
#[derive(Debug, Default)]
struct Row {
    imports: BTreeSet<String>,
    vendors: BTreeSet<String>,
}

type Table = BTreeMap<String, Row>;

fn table(page: &str) -> Table {
    let rows = page.lines().skip_while(|line| *line != HEADING).skip(2);
    let cell = |text: &str| -> BTreeSet<String> {
        let words = text.split(',').map(|word| word.trim().trim_matches('`').to_owned());
        words.filter(|word| word != "–").collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [module, imports, vendors] = cells.as_slice() else { panic!("not a row of three: {line}") };
        (module.trim().trim_matches('`').to_owned(), Row { imports: cell(imports), vendors: cell(vendors) })
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// The dependencies that ship, by the names that code uses.
fn vendors(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let names = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.trim().replace('-', "_")).collect()
}

/// The top-level module that a file belongs to.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(FOLDER)?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

/// How many modules deep a file is: 1 for `clock.rs` and `kernel/mod.rs`, 2 for `kernel/ring.rs`.
fn depth(path: &str) -> usize {
    let folders = path.matches('/').count() - FOLDER.matches('/').count();
    if path.ends_with("/mod.rs") { folders } else { folders + 1 }
}

fn violations(table: &Table, vendors: &BTreeSet<String>, file: &File) -> Vec<String> {
    let Some(module) = module(&file.path) else { return Vec::new() };
    let Some(row) = table.get(module) else {
        return vec![format!("{}: module {module} is not in the table of ARCHITECTURE.md", file.path)];
    };
    let mut found = Vec::new();
    for (line, text) in source::code(&file.text).lines().enumerate() {
        let mut bad = |what: String| found.push(format!("{}:{}: {what}", file.path, line + 1));
        for path in paths(text) {
            let mut names = path.split("::").peekable();
            let first = names.next().unwrap_or_default();
            let second = names.peek().copied().unwrap_or_default();
            if matches!(first, "crate" | "observer") {
                if second.is_empty() || second == "*" {
                    bad(format!("write one import per line, not a group: {path}"));
                } else if second != module && table.contains_key(second) && !row.imports.contains(second) {
                    bad(format!("{module} may not import {second}"));
                }
            }
            let supers = path.split("::").take_while(|name| *name == "super").count();
            let above = path.split("::").nth(supers).unwrap_or_default();
            let leaves = supers >= depth(&file.path) && above != module && table.contains_key(above);
            if leaves && !row.imports.contains(above) {
                bad(format!("{module} may not import {above}, not by super either"));
            }
            if vendors.contains(first) && !row.vendors.contains(first) {
                bad(format!("{module} may not name {first}"));
            }
        }
    }
    found
}

/// Every path of two names or more in a line of code; one that goes on in braces ends in an empty name.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':' | '*'));
    words.map(|word| word.trim_start_matches(':').trim_start_matches('*')).filter(|word| word.contains("::"))
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = table(&source::file("ARCHITECTURE.md").text);
    let vendors = vendors(&source::file("observer/Cargo.toml").text);
    let files = source::files();
    let modules: BTreeSet<&str> = files.iter().filter_map(|file| module(&file.path)).collect();
    let mut found: Vec<String> = files.iter().flat_map(|file| violations(&table, &vendors, file)).collect();
    for (name, row) in &table {
        if !modules.contains(name.as_str()) {
            found.push(format!("ARCHITECTURE.md: there is no module {name}"));
        }
        let unknown = row.imports.iter().filter(|import| !modules.contains(import.as_str()));
        found.extend(unknown.map(|import| format!("ARCHITECTURE.md: {name}: there is no module {import}")));
        let unknown = row.vendors.iter().filter(|vendor| !vendors.contains(*vendor));
        found.extend(unknown.map(|vendor| format!("ARCHITECTURE.md: {name}: {vendor} is no dependency")));
    }
    none(found);
}

#[test]
fn planted_imports_are_found() {
    let page = format!(
        "{HEADING}\n|---|---|---|\n| `clock` | – | rustix |\n| `core` | clock | – |\n| `kernel` | – | aya |\n"
    );
    let (table, vendors) =
        (table(&page), vendors("[dependencies]\naya = \"1\" # x\nserde-json = \"1\" # y\n\n[lints]\n"));
    assert_eq!(vendors, BTreeSet::from(["aya".to_owned(), "serde_json".to_owned()]));
    let bad = [
        ("observer/src/core/a.rs", "use crate::kernel::Probes;"),
        ("observer/src/core/a.rs", "use crate::{clock, kernel};"),
        ("observer/src/core/a.rs", "fn f() { let x = crate::kernel::attach(); }"),
        ("observer/src/core/a.rs", "use super::super::kernel;"),
        ("observer/src/core.rs", "use super::kernel::Probes;"),
        ("observer/src/core/mod.rs", "use ::aya::Ebpf;"),
        ("observer/src/core/mod.rs", "fn f(x: &serde_json::Value) {}"),
        ("observer/src/core/mod.rs", "use observer::kernel;"),
        ("observer/src/absent.rs", ""),
    ];
    for (path, text) in bad {
        assert_eq!(violations(&table, &vendors, &File::new(path, text)).len(), 1, "{path}: {text}");
    }
    let good = [
        ("observer/src/core/a.rs", "use crate::clock::KernelTime;\nuse super::a;\nuse crate::core::b;"),
        ("observer/src/core/a.rs", "// use crate::kernel::Probes;\nlet x = \"crate::kernel\";"),
        ("observer/src/core/a.rs", "use super::kernel;"),
        ("observer/src/kernel/mod.rs", "use aya::Ebpf;"),
        ("observer/src/lib.rs", "pub mod absent;"),
    ];
    for (path, text) in good {
        none(violations(&table, &vendors, &File::new(path, text)));
    }
}
