//! The contract between probes and observer: plain values, proven layouts, no dependencies.
#![no_std]

pub mod config;
pub mod counter;
pub mod key;
pub mod record;
pub mod wire;
