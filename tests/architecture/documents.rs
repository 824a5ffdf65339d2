//! Pages against the code: options that exist, and the list of reasons.

use std::collections::BTreeSet;

use observer::stats::REASONS;
use observer_ebpf::counter::DROPS;

use crate::none;
use crate::source;
use crate::source::File;

/// Pages that have to be there.
const PAGES: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"];
/// Options of other programs that the pages show.
const FOREIGN: [&str; 24] = [
    "--bind", // gunicorn
    "--certfile",
    "--protocol",
    "--package", // cargo
    "--bin",
    "--max-requests",
    "--reuse-port",
    "--backlog",
    "--name",
    "--reload",
    "--timeout",
    "--threads",
    "--worker-class",
    "--workers",
    "--network", // podman
    "--pid",
    "--privileged",
    "--rm",
    "--now",      // systemctl
    "--features", // cargo
    "--release",
    "--workspace",
    "--locked",
    "--test",
];

/// Long options that a file of clap definitions declares.
fn declared(text: &str) -> BTreeSet<String> {
    let mut options = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    let code = source::code(text);
    for part in code.split("#[arg(").skip(1) {
        let Some((attribute, rest)) = part.split_once(")]") else { continue };
        let is_long = attribute.split(',').any(|word| word.trim() == "long");
        let field = rest.split(':').next().unwrap_or_default();
        if let Some(name) = field.split_whitespace().last().filter(|_| is_long) {
            options.insert(format!("--{}", name.replace('_', "-")));
        }
    }
    options
}

/// Long options that a page names.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_'));
    words.filter(|word| {
        let rest = word.strip_prefix("--").unwrap_or_default();
        rest.starts_with(|c: char| c.is_alphabetic())
    })
}

fn unknown(file: &File, known: &BTreeSet<String>) -> Vec<String> {
    if !matches!(file.extension(), "md" | "yaml" | "service") {
        return Vec::new();
    }
    let bad = named(&file.text).filter(|option| !known.contains(*option) && !FOREIGN.contains(option));
    bad.map(|option| format!("{}: there is no option {option}", file.path)).collect()
}

/// Number and name of each row of the page's table of reasons.
fn reasons(page: &str) -> Vec<(u32, String)> {
    let rows = page.lines().skip_while(|line| *line != "| number | name | means |").skip(2);
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
    };
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| row(line).unwrap_or_else(|| panic!("not a reason: {line}")))
        .collect()
}

#[test]
fn the_pages_are_there() {
    for page in PAGES {
        assert!(source::file(page).text.len() > 200, "{page} says next to nothing");
    }
}

#[test]
fn options_in_pages_exist() {
    let mut known = declared(&source::file("observer/src/cli.rs").text);
    assert!(known.contains("--oap") && known.contains("--ring-size"), "{known:?}");
    let files = source::files();
    let xtask = files.iter().filter(|file| file.path.starts_with("xtask/src/"));
    known.extend(xtask.flat_map(|file| declared(&file.text)));
    none(files.iter().flat_map(|file| unknown(file, &known)).collect());
}

#[test]
fn the_table_of_reasons_is_the_codes() {
    let kernel = DROPS.iter().map(|(drop, name)| (*drop as u32, (*name).to_owned()));
    let user = REASONS.iter().map(|(reason, name)| (u32::from(*reason as u16), (*name).to_owned()));
    let code: Vec<(u32, String)> = kernel.chain(user).collect();
    assert_eq!(reasons(&source::file("ARCHITECTURE.md").text), code, "left: the page, right: the code");
    let names: BTreeSet<&String> = code.iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), code.len(), "a name stands for two reasons");
}

#[test]
fn planted_options_are_found() {
    let cli = "#[arg(long, value_name = \"X\")]\nring_size: u32,\n#[arg(long)]\npub dry_run: bool,\n#[arg(short)]\nx: u8,";
    let known = declared(cli);
    let wanted = ["--dry-run", "--help", "--ring-size", "--version"].map(str::to_owned);
    assert_eq!(known, BTreeSet::from(wanted));
    let count = |path: &str, text: &str| unknown(&File::new(path, text), &known).len();
    assert_eq!(count("a.md", "`--ring-size=3`, --workers 2 and --dry-run -- x"), 0);
    assert_eq!(count("a.md", "`sw-observe --ringsize 3`"), 1);
    assert_eq!(count("a.yaml", "args: [\"--gone\"]"), 1);
    assert_eq!(count("a.rs", "--gone"), 0);
}

#[test]
fn planted_reasons_are_read() {
    let page = "| number | name | means |\n|---|---|---|\n| 0 | `a` | x |\n| 7 | `b` | y |\n\ntext";
    assert_eq!(reasons(page), [(0, "a".to_owned()), (7, "b".to_owned())]);
}
