//! `sw-observe`: watches gunicorn from outside and reports to a SkyWalking OAP.

pub mod app; // composition root: builds the parts, owns the tasks, drains on a signal
pub mod cli; // the command line
pub mod clock; // kernel time, wall time, and the only conversion
pub mod config; // every option, validated as a whole
pub mod exchange; // request and response paired, with times
pub mod expose; // Prometheus text over HTTP
pub mod identity; // who is who
pub mod kernel; // everything that touches aya
pub mod logging; // where log lines go, and how often
pub mod meter; // process samples to PVM meters
pub mod pipeline; // the pure machine
pub mod process; // facts from /proc
pub mod protocol; // bytes to messages
pub mod python; // CPython from outside
pub mod report; // the only place that knows gRPC
pub mod stats; // our own numbers
pub mod stream; // ordered bytes per connection
pub mod trace; // exchanges to segments
