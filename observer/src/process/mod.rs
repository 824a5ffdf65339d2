//! Facts from `/proc`: gathers, decides nothing.
mod cgroup;
mod config_file;
mod diag;
pub mod facts;
pub mod imports;
mod ports;
pub mod program;
pub mod programs;
pub mod queues;
mod release;
pub mod sample;
pub mod scan;
