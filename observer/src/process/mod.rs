//! Facts from `/proc`: gathers, decides nothing.
mod cgroup;
mod config_file;
pub mod facts;
mod ports;
pub mod program;
pub mod programs;
mod release;
pub mod sample;
pub mod scan;
