//! Where things are in this clone.

use std::env;
use std::path::Path;
use std::path::PathBuf;

/// The root of the clone.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// What commands keep between runs: tools, kernels, virtual environments. Not moved by `CARGO_TARGET_DIR`, so that
/// the build script of `observer` finds the tools.
pub fn cache() -> PathBuf {
    root().join("target")
}

/// Where cargo puts what it builds.
pub fn build() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(cache, |folder| root().join(folder))
}

/// Tools built by `cargo xtask setup`.
pub fn tools() -> PathBuf {
    cache().join("tools")
}
