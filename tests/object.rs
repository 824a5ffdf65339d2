//! The compiled probes against what is said of them: catalogue, maps, license, and a budget of instructions.
//!
//! Programs near the verifier's limits fail on old kernels first, where nobody looks; the budget shows growth in the
//! commit that causes it. `SW_OBSERVE_BLESS=1` rewrites `object-budget.txt`.
#![expect(clippy::expect_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSymbol as _;
use object::SymbolKind;
use observer::kernel;
use observer::kernel::catalog::CATALOG;
use observer::kernel::catalog::ProgramKind;

/// Bytes of a BPF instruction.
const INSTRUCTION: u64 = 8;
/// Where functions stand that programs share; their names are the compiler's own and change.
const SHARED: &str = ".text";
/// Every map, as `observer-ebpf/src/probes/maps.rs` declares them.
const MAPS: [&str; 11] = [
    "CALLS",
    "CIPHERS",
    "COUNTERS",
    "INTERPRETERS",
    "RECORDS",
    "SESSIONS",
    "SLOTS",
    "SOCKETS",
    "TLS_CALLS",
    "WAITS",
    "WATCHED",
];
/// Every global that the loader sets.
const GLOBALS: [&str; 4] = ["EMPTY", "FACTS", "OFFSETS", "WAKE_AT"];

fn elf() -> object::File<'static> {
    let bytes = kernel::object();
    assert!(!bytes.is_empty(), "built without probes: unset SW_OBSERVE_EBPF and build again");
    object::File::parse(bytes).expect("the object is an ELF file")
}

/// Symbols of one kind, by name: the section they stand in, and their size in bytes.
fn symbols(elf: &object::File<'static>, kind: SymbolKind) -> BTreeMap<String, (String, u64)> {
    let mut found = BTreeMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == kind) {
        let Some(index) = symbol.section_index() else { continue };
        let section = elf.section_by_index(index).expect("a symbol's section");
        let place = section.name().expect("a section's name").to_owned();
        let name = symbol.name().expect("a symbol's name").to_owned();
        found.insert(name, (place, symbol.size()));
    }
    found
}

/// Programs by name: section, and size in instructions.
fn programs(elf: &object::File<'static>) -> BTreeMap<String, (String, u64)> {
    let functions = symbols(elf, SymbolKind::Text).into_iter();
    let programs = functions.filter(|(_, (section, _))| section != SHARED);
    programs.map(|(name, (section, bytes))| (name, (section, bytes / INSTRUCTION))).collect()
}

/// The section that the loader wants a program of this kind in.
fn section(kind: ProgramKind, target: &str) -> String {
    match kind {
        ProgramKind::Kprobe => "kprobe".to_owned(),
        ProgramKind::Kretprobe => "kretprobe".to_owned(),
        ProgramKind::Fentry => format!("fentry/{target}"),
        ProgramKind::Fexit => format!("fexit/{target}"),
        ProgramKind::TpBtf => format!("tp_btf/{target}"),
        ProgramKind::Syscall => "tracepoint".to_owned(),
        ProgramKind::Uprobe => "uprobe".to_owned(),
    }
}

#[test]
fn programs_are_those_of_the_catalogue() {
    let points = CATALOG.iter().flat_map(|probe| probe.variants).flat_map(|(_, points)| *points);
    let names = points
        .flat_map(|point| point.programs().map(move |name| (name, section(point.kind(), point.target))));
    let wanted: BTreeMap<&str, String> = names.collect();
    let elf = elf();
    let programs = programs(&elf);
    let got: BTreeMap<&str, String> =
        programs.iter().map(|(name, (section, _))| (name.as_str(), section.clone())).collect();
    assert_eq!(got, wanted, "left: the object, right: kernel::catalog");
}

#[test]
fn maps_and_globals_are_those_that_are_known() {
    let elf = elf();
    let objects = symbols(&elf, SymbolKind::Data);
    let within = |place: &str| -> BTreeSet<&str> {
        let inside = objects.iter().filter(|(_, (section, _))| section == place);
        inside.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(within("maps"), BTreeSet::from(MAPS));
    let globals = within(".rodata");
    assert!(GLOBALS.iter().all(|global| globals.contains(global)), "{globals:?}");
    for place in [".data", ".bss"] {
        assert_eq!(within(place), BTreeSet::new(), "{place}: probes keep their state in maps");
    }
}

/// Helpers that read kernel memory are for programs whose license says GPL.
#[test]
fn the_license_lets_the_probes_read_kernel_memory() {
    let elf = elf();
    let license = elf.section_by_name("license").expect("a license section");
    assert_eq!(license.data().expect("its bytes"), b"Dual MIT/GPL\0");
}

#[test]
fn type_information_is_in_the_object() {
    let elf = elf();
    for name in [".BTF", ".BTF.ext"] {
        let section = elf.section_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(section.size() > 0, "{name} is empty");
    }
}

fn budget_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("object-budget.txt")
}

/// Instructions by program; the shared functions together under their section's name.
fn instructions(elf: &object::File<'static>) -> BTreeMap<String, u64> {
    let mut sizes: BTreeMap<String, u64> =
        programs(elf).into_iter().map(|(name, (_, size))| (name, size)).collect();
    let shared = elf.section_by_name(SHARED).map_or(0, |section| section.size() / INSTRUCTION);
    sizes.insert(SHARED.to_owned(), shared);
    sizes
}

/// `name instructions` a line; `#` begins a comment.
fn parse(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pair =
        |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.trim().parse().ok()?));
    lines.map(|line| pair(line).ok_or_else(|| format!("not `name number`: {line}"))).collect()
}

/// What is over the budget or not in it. Growth of up to 5 % is not worth a commit of its own.
fn over_budget(budget: &BTreeMap<String, u64>, sizes: &BTreeMap<String, u64>) -> Vec<String> {
    let judge = |(name, size): (&String, &u64)| match budget.get(name) {
        None => Some(format!("{name} ({size} instructions) is not in the budget")),
        Some(allowed) if size * 100 > allowed * 105 => {
            Some(format!("{name} has {size} instructions, 5 % more than {allowed}"))
        }
        Some(_) => None,
    };
    let gone = budget.keys().filter(|name| !sizes.contains_key(*name)).map(|name| format!("{name} is gone"));
    sizes.iter().filter_map(judge).chain(gone).collect()
}

#[test]
fn no_program_is_over_its_budget() {
    let sizes = instructions(&elf());
    if env::var_os("SW_OBSERVE_BLESS").is_some_and(|value| value == "1") {
        let lines: String = sizes.iter().map(|(name, size)| format!("{name} {size}\n")).collect();
        let head = "# Instructions per program; tests/object.rs compares, `cargo xtask bless` rewrites.\n";
        fs::write(budget_file(), format!("{head}{lines}")).expect("write the budget");
    }
    let budget = parse(&fs::read_to_string(budget_file()).expect("read the budget")).expect("a budget");
    let over = over_budget(&budget, &sizes);
    assert!(over.is_empty(), "{}\n`cargo xtask bless` takes what is new as right", over.join("\n"));
}

#[test]
fn growth_a_new_program_and_a_lost_one_are_noticed() {
    let table = |text: &str| parse(text).expect("a table");
    let budget = table("# comment\na 100\nb 10\n");
    assert_eq!(over_budget(&budget, &table("a 105\nb 3\n")), Vec::<String>::new());
    assert_eq!(over_budget(&budget, &table("a 106\nc 1\n")).len(), 3);
    assert!(parse("a\n").is_err());
}
