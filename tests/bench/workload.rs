//! What is served, how, and to whom.

use harness::client::Mode;
use harness::collector::Collector;
use harness::gunicorn::Launch;
use harness::python::Python;

/// An application under a worker class, an endpoint of it, and how the client connects.
pub struct Workload {
    /// For tables.
    pub name: &'static str,
    framework: &'static str,
    class: &'static str,
    args: &'static [&'static str],
    /// `plain` does next to nothing, `compute` some ten milliseconds of Python.
    pub endpoint: &'static str,
    /// Whether connections are kept.
    pub mode: Mode,
}

const FLASK: Workload =
    Workload { name: "", framework: "flask", class: "sync", args: &[], endpoint: "plain", mode: Mode::New };
const DJANGO: Workload = Workload {
    framework: "django",
    class: "gthread",
    args: &["--threads", "4", "--keep-alive", "30"],
    ..FLASK
};
const UVLOOP: Workload = Workload { framework: "fastapi", class: "uvicorn.workers.UvicornWorker", ..FLASK };

/// Every workload.
pub const ALL: [Workload; 9] = [
    Workload { name: "Flask, sync, new connections", ..FLASK },
    Workload { name: "Flask, sync, new connections, 10 ms of Python", endpoint: "compute", ..FLASK },
    Workload { name: "Django, gthread, new connections", ..DJANGO },
    Workload { name: "Django, gthread, keep-alive", mode: Mode::KeepAlive, ..DJANGO },
    Workload { name: "FastAPI, uvicorn (uvloop), new connections", ..UVLOOP },
    Workload { name: "FastAPI, uvicorn (uvloop), keep-alive", mode: Mode::KeepAlive, ..UVLOOP },
    Workload {
        name: "FastAPI, uvicorn (asyncio), keep-alive",
        class: "uvicorn.workers.UvicornH11Worker",
        mode: Mode::KeepAlive,
        ..UVLOOP
    },
    Workload {
        name: "FastAPI, uvicorn (uvloop), keep-alive, 10 ms of Python",
        endpoint: "compute",
        mode: Mode::KeepAlive,
        ..UVLOOP
    },
    Workload { name: "Flask, gevent, keep-alive", class: "gevent", mode: Mode::KeepAlive, ..FLASK },
];

impl Workload {
    /// How many requests make a round: fewer of those that take longer.
    pub fn requests(&self, most: usize) -> usize {
        if self.endpoint == "compute" { most.div_ceil(10) } else { most }
    }

    /// As it is, on this Python.
    pub fn bare(&self, python: &Python) -> Launch {
        let launch = Launch::new(self.class, "bench_app:app").quiet().python(python).args(self.args);
        launch.env("BENCH_FRAMEWORK", self.framework)
    }

    /// With the SkyWalking Python agent inside. What the collector does not take (logs, profiles) is off.
    pub fn with_agent(&self, python: &Python, collector: &Collector) -> Launch {
        self.bare(python)
            .with_agent()
            .env("SW_AGENT_COLLECTOR_BACKEND_SERVICES", &collector.endpoint())
            .env("SW_AGENT_LOG_REPORTER_ACTIVE", "false")
            .env("SW_AGENT_PROFILE_ACTIVE", "false")
    }
}
