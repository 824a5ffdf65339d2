//! Manifests: every member inherits the lints, every dependency has its reason.

use crate::none;
use crate::source;
use crate::source::File;

fn violations(file: &File) -> Vec<String> {
    if file.name() != "Cargo.toml" {
        return Vec::new();
    }
    let mut found = Vec::new();
    let is_member = file.path != "Cargo.toml";
    if is_member && !file.text.contains("\n[lints]\nworkspace = true\n") {
        found.push(format!("{}: `[lints] workspace = true` is missing", file.path));
    }
    let (mut section, mut before) = ("", "");
    for (at, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && line.contains('=') && !line.starts_with(['#', ' ']) {
            let explained = line.split_once(" # ").is_some() || before.starts_with("# ");
            if !explained {
                found.push(format!("{}:{}: a dependency without its reason: {line}", file.path, at + 1));
            }
        }
        before = line;
    }
    found
}

#[test]
fn members_inherit_lints_and_explain_dependencies() {
    let files = source::files();
    let members = files.iter().filter(|file| file.name() == "Cargo.toml").count();
    assert!(members >= 6, "only {members} manifests found");
    none(files.iter().flat_map(violations).collect());
}

#[test]
fn planted_manifests_are_found() {
    let count = |text: &str| violations(&File::new("a/Cargo.toml", text)).len();
    let lints = "\n[lints]\nworkspace = true\n";
    assert_eq!(count(&format!("[dependencies]\na = \"1\" # why\n# why\nb = \"1\"\n{lints}")), 0);
    assert_eq!(count(&format!("[dependencies]\na = \"1\"\n{lints}")), 1);
    assert_eq!(count(&format!("[dev-dependencies]\na = {{ path = \"x#y\" }}\n{lints}")), 1);
    assert_eq!(count("[package]\nname = \"a\"\n"), 1);
}
