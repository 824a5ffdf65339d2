//! Every input that fuzzing found worth keeping, and each of them cut short.
#![expect(clippy::expect_used, reason = "a test ends by panicking")]

use std::fs;
use std::path::Path;

use harness::hostile;
use harness::recorded::Recorded;

/// Gives each file of a target's corpus, and what is left of it without its end, to the target.
fn play(target: &str, run: fn(&Recorded, &[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let recorded = Recorded::golden("gthread");
    let mut played = 0;
    for entry in fs::read_dir(folder).expect("a corpus") {
        let data = fs::read(entry.expect("an entry").path()).expect("an input");
        run(&recorded, &data);
        run(&recorded, data.get(..data.len() / 2).unwrap_or_default());
        played += 1;
    }
    assert!(played >= 20, "{target}: only {played} inputs");
}

#[test]
fn whatever_is_said_the_next_request_is_right() {
    play("conversation", hostile::conversation);
}

#[test]
fn whatever_is_said_in_frames_the_next_request_is_right() {
    play("http2", hostile::http2);
}

#[test]
fn whatever_is_on_the_ring_nothing_panics() {
    play("records", hostile::records);
}

#[test]
fn whatever_masters_say_of_themselves_names_fit() {
    play("masters", hostile::masters);
}
