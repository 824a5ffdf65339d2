//! The repository's text files, and Rust source without comments and literals.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Folders that hold nothing of ours, wherever they are.
const LEFT_OUT: [&str; 5] = [".git", "target", ".cache", "__pycache__", "node_modules"];

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// From the repository's root, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// For tests of the rules.
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// The name without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The name's end: `rs`; empty when there is none.
    pub fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder above this package").to_path_buf()
}

/// Every text file, sorted.
pub fn files() -> Vec<File> {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    assert!(files.len() > 100, "only {} files found below {}", files.len(), root().display());
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The file with this path.
pub fn file(path: &str) -> File {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    File::new(path, &text)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.expect("a folder's entry");
        let name = entry.file_name().into_string().expect("names of files are UTF-8");
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type().expect("a file's type").is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(File { path, text });
        }
    }
}

/// Rust source with comments and the contents of literals replaced by nothing; lines stay where they are.
pub fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = literal(rest);
        if skipped > 0 {
            let (inside, after) = rest.split_at(skipped);
            code.extend(inside.chars().filter(|c| *c == '\n'));
            rest = after;
        } else {
            // A name is copied whole, so that the `r` at its end does not begin a literal.
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let taken = if starts_literal(rest) { first.len_utf8() } else { name.max(first.len_utf8()) };
            code.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    code
}

fn starts_literal(text: &str) -> bool {
    ["r\"", "r#\"", "b\"", "b'", "br\"", "br#\""].iter().any(|start| text.starts_with(start))
}

/// Bytes of the comment or literal that `text` begins with; 0 when it begins with neither.
fn literal(text: &str) -> usize {
    let until =
        |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    let raw = text.trim_start_matches('b');
    if text.len() - raw.len() <= 1 && raw.starts_with("r\"") {
        return until("\"", text.len() - raw.len() + 2);
    }
    if text.len() - raw.len() <= 1 && raw.starts_with("r#\"") {
        return until("\"#", text.len() - raw.len() + 3);
    }
    let quote = if text.starts_with('b') { 1 } else { 0 };
    match text[quote..].chars().next() {
        Some('"') => quoted(text, quote + 1, '"'),
        // `'a'` and `'\n'` are literals, `'a` is a lifetime.
        Some('\'') => {
            let mut after = text[quote + 1..].chars();
            let is_char = matches!((after.next(), after.next()), (Some('\\'), _) | (Some(_), Some('\'')));
            if is_char { quoted(text, quote + 1, '\'') } else { 0 }
        }
        _ => 0,
    }
}

fn quoted(text: &str, from: usize, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text[from..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == end => return from + at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let cases = [
        ("a // unsafe\nb", "a \nb"),
        ("a /* x\ny */ b", "a \n b"),
        (r#"f("// not \" a comment", 'x', b'"', '\'') // end"#, "f(, , , ) "),
        ("r#\"raw \" text\"# tail", " tail"),
        ("br\"x\" var\"y\"", " var"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("let label = \"\u{e9}\"; b", "let label = ; b"),
    ];
    for (text, wanted) in cases {
        assert_eq!(code(text), wanted, "{text}");
    }
}
