//! Every file: it says what it is for, is short, and is named for what it holds.

use crate::none;
use crate::source;
use crate::source::File;

const LINES: usize = 500;
/// Text that nobody writes by hand, or that is somebody else's.
const UNBOUNDED: [&str; 6] = [
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "LICENSE",
    "proto/src/gen/",
    "tests/golden/",
    "tests/object-budget.txt",
];
/// Names that invite whatever has no home.
const HOMELESS: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "type", "types"];
/// SkyWalking's own names.
const GIVEN_NAMES: &str = "proto/skywalking/";

fn is_under(file: &File, places: &[&str]) -> bool {
    places.iter().any(|place| file.path == *place || place.ends_with('/') && file.path.starts_with(place))
}

/// What the first line has to begin with; `None` where the format has no comments, or the page has a title.
fn header(file: &File) -> Option<&'static [&'static str]> {
    match (file.extension(), file.name()) {
        ("rs", _) => Some(&["//!"]),
        ("py", _) => Some(&["# ", "\"\"\""]),
        ("proto", _) => Some(&["// "]),
        ("md", _) => Some(&["# "]),
        ("sh" | "toml" | "yaml" | "yml" | "service" | "conf" | "oal", _) => Some(&["# ", "// "]),
        (_, "Containerfile" | "requirements.txt") => Some(&["# "]),
        _ if file.text.starts_with("#!") => Some(&["# ", "\"\"\""]),
        _ => None,
    }
}

fn violations(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut bad = |what: String| found.push(format!("{}: {what}", file.path));
    let generated = file.path.starts_with("proto/src/gen/");
    if let Some(wanted) = header(file).filter(|_| !generated && !file.text.is_empty()) {
        let skipped = usize::from(file.text.starts_with("#!"));
        let first = file.text.lines().nth(skipped).unwrap_or_default();
        if !wanted.iter().any(|start| first.starts_with(start) && first.len() > start.len() + 3) {
            bad(format!("the first line does not say what it is for ({})", wanted.join(" or ")));
        }
    }
    let lines = file.text.lines().count();
    if lines >= LINES && !is_under(file, &UNBOUNDED) {
        bad(format!("{lines} lines; split it before it has {LINES}"));
    }
    if !file.path.starts_with(GIVEN_NAMES) {
        let parts = file.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
        for part in parts.filter(|part| HOMELESS.contains(&part.to_lowercase().as_str())) {
            bad(format!("{part} says nothing about what belongs there"));
        }
    }
    if file.extension() == "rs" {
        for name in modules(&file.text).filter(|name| HOMELESS.contains(&name.as_str())) {
            bad(format!("module {name} says nothing about what belongs there"));
        }
    }
    found
}

fn modules(text: &str) -> impl Iterator<Item = String> {
    let code = source::code(text);
    let words: Vec<String> = code.split_whitespace().map(str::to_owned).collect();
    let after: Vec<String> =
        words.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].clone()).collect();
    after.into_iter().map(|name| name.trim_end_matches([';', '{']).to_owned())
}

/// Paths and addresses that are true on one machine only.
fn private(file: &File) -> Vec<String> {
    // In two parts, so that this file does not break its own rule.
    let folders =
        [["/ro", "ot/"], ["/ho", "me/"], ["/wo", "rk/"], ["/Us", "ers/"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        let mut bad = |what: String| found.push(format!("{}:{}: {what}", file.path, at + 1));
        for folder in folders.iter().filter(|folder| names_folder(line, folder)) {
            bad(format!("{folder} is a folder of one machine"));
        }
        for host in hosts(line).filter(|host| !is_known(host)) {
            bad(format!("{host} is not a host that the repository may name"));
        }
    }
    found
}

/// Whether `folder` stands at the beginning of a path, and not inside a longer one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '}' | ')'))
    })
}

/// Hosts of the web addresses in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let addresses = line.split("://").skip(1).zip(line.split("://"));
    let web = addresses.filter(|(_, scheme)| scheme.ends_with("http") || scheme.ends_with("https"));
    web.map(|(rest, _)| {
        let end =
            rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '-' | '@' | ':' | '{' | '}'));
        let host = &rest[..end.unwrap_or(rest.len())];
        host.rsplit('@').next().unwrap_or(host).split(':').next().unwrap_or(host).trim_end_matches('.')
    })
}

/// Hosts without a dot are examples. Addresses to fetch from come from the tools' own configuration.
fn is_known(host: &str) -> bool {
    const EXAMPLES: [&str; 4] = ["127.0.0.1", "0.0.0.0", ".test", ".example"];
    const READING: [&str; 8] = [
        "apache.org",
        "github.com",
        "kernel.org",
        "docs.rs",
        "rustup.rs",
        "w3.org",
        "python.org",
        "keepachangelog.com",
    ];
    let within = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    !host.contains('.')
        || host.contains('{')
        || EXAMPLES.iter().any(|example| host.ends_with(example))
        || READING.iter().any(|domain| within(domain))
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    none(source::files().iter().flat_map(violations).collect());
}

#[test]
fn nothing_of_one_machine_is_named() {
    none(source::files().iter().flat_map(private).collect());
}

#[test]
fn planted_files_are_found() {
    let count = |path: &str, text: &str| violations(&File::new(path, text)).len();
    assert_eq!(count("observer/src/a.rs", "//! Says what it is for.\n"), 0);
    assert_eq!(count("observer/src/a.rs", "use std::fs;\n"), 1);
    assert_eq!(count("observer/src/a.rs", "//!\n"), 1);
    assert_eq!(count("run", "#!/bin/sh\nset -e\n"), 1);
    assert_eq!(count("run", "#!/bin/sh\n# Runs the tests.\nset -e\n"), 0);
    assert_eq!(count("a.yaml", "a: 1\n"), 1);
    assert_eq!(count("observer/src/utils.rs", "//! Says what it is for.\n"), 1);
    assert_eq!(count("observer/src/common/a.rs", "//! Says what it is for.\n"), 1);
    assert_eq!(count("observer/src/a.rs", "//! Says what it is for.\npub mod helpers {}\n"), 1);
    assert_eq!(count("proto/skywalking/common/Common.proto", "// Says what it is for.\n"), 0);
    assert_eq!(count("a.txt", &"line\n".repeat(500)), 1);
    assert_eq!(count("tests/golden/a.txt", &"line\n".repeat(500)), 0);
}

#[test]
fn planted_private_names_are_found() {
    let count = |text: &str| private(&File::new("a.md", text)).len();
    let home = ["/ho", "me/somebody/x"].concat();
    assert_eq!(count(&home), 1);
    assert_eq!(count(&format!("see `{home}`")), 1);
    assert_eq!(count(&format!("target{home}")), 0);
    let host = |scheme: &str, rest: &str| format!("{scheme}://{rest}");
    let two = format!("{} and {}", host("https", "mirror.invalid/simple"), host("http", "packages.invalid"));
    assert_eq!(count(&two), 2);
    assert_eq!(count("http://h/x http://127.0.0.1:1/ https://skywalking.apache.org/docs http://{host}/"), 0);
    assert_eq!(count(&host("http", "u:p@registry.invalid:1/x")), 1);
}
