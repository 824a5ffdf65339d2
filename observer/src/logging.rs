//! Where log lines go: one line each on standard error.
use std::io::IsTerminal as _;

use tracing::Level;

/// Sends log lines of `level` and above to standard error; a second call has no effect.
pub fn start(level: Level) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish();
    if tracing::subscriber::set_global_default(lines).is_err() {
        tracing::debug!("logging is set up already");
    }
}
