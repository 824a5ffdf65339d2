//! `cargo fuzz run masters`: see `harness::hostile::masters`.
#![no_main]

use std::sync::LazyLock;

use harness::hostile;
use harness::recorded::Recorded;

static RECORDED: LazyLock<Recorded> = LazyLock::new(|| Recorded::golden("gthread"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::masters(&RECORDED, data));
