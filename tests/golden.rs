//! Tapes of real runs replay to what they did when they were last looked at. `SW_OBSERVE_BLESS=1` rewrites the answers.
#![expect(clippy::expect_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use observer::app;
use observer::report::print::Format;

/// A tape in the repository is small enough to be read by a person who looks for one line.
const TAPE_LIMIT_BYTES: u64 = 150_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every tape by its name.
fn tapes() -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(folder()).expect("list the tapes").map(|file| file.expect("a file").path());
    let tapes = files.filter(|path| path.extension().is_some_and(|extension| extension == "tape"));
    tapes.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect()
}

fn replay(tape: &Path) -> Result<String, String> {
    let mut out = Vec::new();
    app::replay(tape, Format::Json, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).expect("a replay prints text"))
}

/// What a tape with these contents says; `name` keeps tests apart that run at the same time.
fn replay_text(name: &str, contents: &[u8]) -> Result<String, String> {
    let path = env::temp_dir().join(format!("sw-observe-{name}-{}.tape", std::process::id()));
    fs::write(&path, contents).expect("write a tape");
    let said = replay(&path);
    fs::remove_file(&path).expect("remove the tape");
    said
}

/// The first lines that differ, for a person.
fn difference(wanted: &str, got: &str) -> Option<String> {
    let (mut wanted, mut got) = (wanted.lines(), got.lines());
    for line in 1.. {
        match (wanted.next(), got.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => {
                let (one, other) = (one.unwrap_or("(end)"), other.unwrap_or("(end)"));
                return Some(format!("line {line}\n  golden: {one}\n  replay: {other}"));
            }
        }
    }
    None
}

#[test]
fn tapes_replay_to_their_golden_files() {
    let bless = env::var_os("SW_OBSERVE_BLESS").is_some_and(|value| value == "1");
    let mut failures = Vec::new();
    for (name, tape) in tapes() {
        let got = replay(&tape).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden = tape.with_extension("txt");
        if bless {
            fs::write(&golden, got).expect("write a golden file");
            continue;
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        failures.extend(difference(&wanted, &got).map(|why| format!("{name}: {why}")));
    }
    assert!(failures.is_empty(), "{}\n`cargo xtask bless` takes what is new as right", failures.join("\n"));
}

#[test]
fn every_tape_has_its_answer_and_its_origin() {
    let about = fs::read_to_string(folder().join("README.md")).expect("read golden/README.md");
    let tapes = tapes();
    assert!(tapes.len() >= 7, "tapes are missing: {:?}", tapes.keys());
    for (name, tape) in &tapes {
        assert!(about.contains(&format!("`{name}`")), "golden/README.md does not say what {name} is");
        let size = fs::metadata(tape).expect("a tape").len();
        assert!(size <= TAPE_LIMIT_BYTES, "{name}.tape has {size} bytes");
    }
    for file in fs::read_dir(folder()).expect("list the golden files") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            assert!(path.with_extension("tape").is_file(), "{} has no tape", path.display());
        }
    }
}

#[test]
fn tapes_name_no_machine() {
    for (name, tape) in tapes() {
        let text = fs::read_to_string(&tape).expect("read a tape");
        for part in text.split("\"hostname\":\"").skip(1) {
            assert!(part.starts_with("golden\""), "{name} names a host");
        }
        for part in text.split("\"ipv4\":[").skip(1) {
            assert!(part.starts_with("\"127.0.0.1\"]"), "{name} names an address");
        }
        for part in text.split("\"argv\":[").skip(1) {
            assert!(part.starts_with("\"/opt/"), "{name} names a path of a machine");
        }
        for part in text.split("\"cgroup\":\"").skip(1) {
            assert!(part.starts_with("/\""), "{name} names a cgroup of a machine");
        }
    }
}

#[test]
fn a_tape_replays_twice_to_the_same_bytes() {
    for (name, tape) in tapes() {
        assert_eq!(replay(&tape), replay(&tape), "{name}");
    }
}

#[test]
fn a_bad_tape_is_refused_with_the_line() {
    let tape = fs::read(folder().join("sync.tape")).expect("read a tape");
    let first = tape.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let origin = &tape[..first];
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty", Vec::new(), "the tape is empty"),
        ("garbage", b"\x7fELF not a tape\n".to_vec(), "line 1 of the tape"),
        ("second", [origin, b"{}\n"].concat(), "line 2 of the tape"),
        ("cut", tape[..first + 5].to_vec(), "line 2 of the tape"),
        ("base64", [origin, b"{\"record\":\"%\"}\n"].concat(), "line 2 of the tape"),
        ("format", String::from_utf8_lossy(origin).replace("\"tape\":2", "\"tape\":99").into(), "format 99"),
    ];
    for (name, contents, said) in cases {
        let error = replay_text(name, &contents).expect_err(name);
        assert!(error.contains(said), "{name}: {error}");
    }
    let missing = replay(&folder().join("no-such.tape")).expect_err("there is no such tape");
    assert!(missing.contains("cannot read the tape"), "{missing}");
}

#[test]
fn records_that_make_no_sense_are_counted() {
    let tape = fs::read(folder().join("sync.tape")).expect("read a tape");
    let first = tape.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let unknown = "A".repeat(20) + "AAAAYwAAAAAA"; // 24 bytes, kind 99
    let records = format!("{{\"record\":\"AAAA\"}}\n{{\"record\":\"{unknown}\"}}\n");
    let said = replay_text("senseless", &[&tape[..first], records.as_bytes()].concat()).expect("a tape");
    assert_eq!(said, "{\"kind\":\"stats\",\"drops\":{\"unknown_record\":1,\"short_record\":1}}\n");
}

#[test]
fn a_difference_is_shown_with_its_line() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert!(difference("a\nb\n", "a\nc\n").is_some_and(|why| why.starts_with("line 2\n")));
    assert!(difference("a\n", "a\nc\n").is_some_and(|why| why.contains("golden: (end)")));
}
