//! `cargo fuzz run program`: see `harness::hostile::program`.
#![no_main]

use harness::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::program(data);
});
