//! What the tests share: a collector, a real OAP, gunicorn to watch.

pub mod collector; // a recording SkyWalking collector
pub mod oap; // a real OAP server, and the questions to ask it
pub mod sample; // reports made up
