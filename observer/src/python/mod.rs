//! CPython from outside.
pub mod version;
