//! `cargo fuzz run http2`: see `harness::hostile::http2`.
#![no_main]

use std::sync::LazyLock;

use harness::hostile;
use harness::recorded::Recorded;

static RECORDED: LazyLock<Recorded> = LazyLock::new(|| Recorded::golden("gthread"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::http2(&RECORDED, data));
