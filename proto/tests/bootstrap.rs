//! The committed code is what the `.proto` files give.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

#[test]
fn the_committed_code_is_what_the_generator_writes() {
    let fresh = tempfile::tempdir().expect("a temporary folder");
    proto::codegen::generate(fresh.path()).expect("the .proto files compile");
    let fresh = files(fresh.path()).expect("the fresh code can be read");
    let committed = files(&proto::codegen::committed()).expect("the committed code can be read");
    assert!(fresh == committed, "proto/src/gen is out of date: run cargo xtask proto");
}

fn files(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
        })
        .collect()
}
