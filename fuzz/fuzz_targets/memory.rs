//! `cargo fuzz run memory`: see `harness::hostile::memory`.
#![no_main]

use harness::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::memory(data);
});
