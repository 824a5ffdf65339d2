//! What the tests share: a collector, a real OAP, gunicorn to watch.

pub mod cgroup; // control groups for one test
pub mod classes; // every worker class and its application
pub mod client; // an HTTP client that knows what it sent, when, and who answered
pub mod code; // the code of a process against its files
pub mod collector; // a recording SkyWalking collector
pub mod container; // a gunicorn in namespaces and a root of its own
pub mod dashboard; // the files of deploy/oap
pub mod flood; // connections by the ten thousand
pub mod gunicorn; // a real gunicorn, its workers and its own counts
pub mod hostile; // bytes of any kind, for fuzzing
pub mod life; // roles and ends of processes in the observer's lines
pub mod meters; // what was printed of an instance's meters
pub mod nginx; // a real nginx in front of a gunicorn
pub mod oap; // a real OAP server, and the questions to ask it
mod oap_install; // its jars and its configuration
pub mod observer; // sw-observe and the lines it prints
pub mod python; // virtual environments with what the tests run
pub mod random; // traffic from a seed
pub mod recorded; // the traffic of a tape, over and over
pub mod request; // what the client sends: a request and how its bytes are cut
pub mod sample; // reports made up
pub mod scrape; // a page in Prometheus text: asked for, read, checked
pub mod stage; // one live test: alone on the machine, with a service name of its own
pub mod tls; // a client's TLS, and a certificate for a server
pub mod traffic; // many requests over many connections
pub mod usage; // what a process has used
pub mod verdict; // what the observer saw against what happened
