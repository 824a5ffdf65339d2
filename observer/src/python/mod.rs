//! CPython from outside.
mod code;
pub mod collector;
mod elf;
pub mod image;
mod layout;
mod memory;
pub mod modules;
mod objects;
pub mod openssl;
pub mod runtime;
mod stripped;
pub mod version;
