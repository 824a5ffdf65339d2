//! Probes that do nothing, attached where those of the observer are.

use std::fs;

use harness::gunicorn::Gunicorn;
use observer::kernel::Probes;
use observer::kernel::Settings;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

/// Attached as long as this lives. This process holds them: they need nobody who reads.
pub struct Empty {
    _probes: Probes,
    _runtime: Runtime,
}

impl Empty {
    /// Attached as for this gunicorn, those of the lock too when a worker of it has several threads.
    pub fn attached(gunicorn: &Gunicorn) -> Result<Empty, String> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
        let started = {
            let _inside = runtime.enter();
            Probes::start(Settings { ring_bytes: 1 << 16, connections: 1 << 10, attach: None, empty: true })
        };
        let mut probes = started.map_err(|error| error.to_string())?;
        let threads = |pid: &u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        if gunicorn.workers().iter().any(|worker| threads(worker) > 1) {
            probes.time_lock();
        }
        Ok(Empty { _probes: probes, _runtime: runtime })
    }
}
