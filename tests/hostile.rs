//! Every input that fuzzing found worth keeping, and each of them cut short.
#![expect(clippy::expect_used, reason = "a test ends by panicking")]

use std::cell::Cell;
use std::fs;
use std::path::Path;

use harness::hostile;
use harness::recorded::Recorded;

/// Gives each file of a target's corpus, and what is left of it without its end, to the target.
fn play(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut played = 0;
    for entry in fs::read_dir(folder).expect("a corpus") {
        let data = fs::read(entry.expect("an entry").path()).expect("an input");
        run(&data);
        run(data.get(..data.len() / 2).unwrap_or_default());
        played += 1;
    }
    assert!(played >= 20, "{target}: only {played} inputs");
}

#[test]
fn whatever_is_said_the_next_request_is_right() {
    let recorded = Recorded::golden("gthread");
    play("conversation", |data| hostile::conversation(&recorded, data));
}

#[test]
fn whatever_is_said_in_frames_the_next_request_is_right() {
    let recorded = Recorded::golden("gthread");
    play("http2", |data| hostile::http2(&recorded, data));
}

#[test]
fn whatever_is_on_the_ring_nothing_panics() {
    let recorded = Recorded::golden("gthread");
    play("records", |data| hostile::records(&recorded, data));
}

#[test]
fn whatever_masters_say_of_themselves_names_fit() {
    let recorded = Recorded::golden("gthread");
    play("masters", |data| hostile::masters(&recorded, data));
}

#[test]
fn whatever_a_program_has_in_its_file_no_reader_panics() {
    let found = Cell::new([0; 3]);
    play("program", |data| {
        let mut all = found.get();
        all.iter_mut().zip(hostile::program(data)).for_each(|(all, one)| *all += usize::from(one));
        found.set(all);
    });
    assert!(found.get().iter().all(|found| *found > 0), "nothing was found in any: {found:?}");
}

#[test]
fn whatever_stands_in_memory_no_reader_panics() {
    let found = Cell::new(0);
    play("memory", |data| found.set(found.get() + usize::from(hostile::memory(data).is_some())));
    assert!(found.get() >= 8, "modules were found only in {}", found.get());
}
