//! Facts from `/proc`: gathers, decides nothing.
pub mod facts;
pub mod sample;
pub mod scan;
