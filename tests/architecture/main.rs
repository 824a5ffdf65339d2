//! What holds for the whole repository and no compiler checks: imports, fences, headers, sizes, manifests, documents.
//!
//! The rules match text. A macro that expands to a path, or a name that is assembled, escapes them.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends by panicking")]

mod documents;
mod fences;
mod files;
mod imports;
mod manifests;
mod source;

/// Fails with every violation at once, one a line.
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}
