//! Every meter: its names, its unit and what it means.

/// How the values of a meter follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only ever goes up, for as long as its process lives.
    Counter,
}

/// A meter under both of its names. OAP keeps whole numbers, so its unit is the small one; Prometheus has base units.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Name on the wire to OAP.
    pub name: &'static str,
    /// Name for Prometheus, where a counter ends in `_total`.
    pub exposed: &'static str,
    /// From the one's unit to the other's: 0.01 from percent to a ratio, 0.001 from milliseconds to seconds.
    pub scale: f64,
    /// Gauge or counter.
    pub kind: Kind,
    /// What it is, with OAP's unit, in one sentence.
    pub help: &'static str,
}

const fn gauge(name: &'static str, exposed: &'static str, scale: f64, help: &'static str) -> Definition {
    Definition { name, exposed, scale, kind: Kind::Gauge, help }
}

const fn counter(name: &'static str, exposed: &'static str, scale: f64, help: &'static str) -> Definition {
    Definition { name, exposed, scale, kind: Kind::Counter, help }
}

/// Every meter, in the order of the pages.
pub const DEFINITIONS: &[Definition] = &[
    gauge(
        "instance_pvm_total_cpu_utilization",
        "gunicorn_host_cpu_ratio",
        0.01,
        "Processor use of the host since the last report, in percent of all processors.",
    ),
    gauge(
        "instance_pvm_process_cpu_utilization",
        "gunicorn_process_cpu_ratio",
        0.01,
        "Processor use of the process since the last report, in percent of one processor.",
    ),
    gauge(
        "instance_pvm_total_mem_utilization",
        "gunicorn_host_memory_ratio",
        0.01,
        "Memory of the host that is not available, in percent.",
    ),
    gauge(
        "instance_pvm_process_mem_utilization",
        "gunicorn_process_memory_ratio",
        0.01,
        "Resident memory of the process, in percent of the host's.",
    ),
    gauge("instance_pvm_thread_active_count", "gunicorn_process_threads", 1.0, "Threads of the process."),
    counter(
        "instance_pvm_gc_g0",
        "gunicorn_gc_young_collected_objects_total",
        1.0,
        "Objects that the collector freed in the youngest generation.",
    ),
    counter(
        "instance_pvm_gc_g1",
        "gunicorn_gc_middle_collected_objects_total",
        1.0,
        "Objects that the collector freed in the middle generation.",
    ),
    counter(
        "instance_pvm_gc_g2",
        "gunicorn_gc_old_collected_objects_total",
        1.0,
        "Objects that the collector freed in the oldest generation.",
    ),
    counter(
        "instance_pvm_gc_time",
        "gunicorn_gc_seconds_total",
        0.001,
        "Time in the collector, in milliseconds, where it is known.",
    ),
    counter(
        "instance_gunicorn_gc_collections",
        "gunicorn_gc_collections_total",
        1.0,
        "Runs of the collector, by generation.",
    ),
    counter(
        "instance_gunicorn_gc_uncollectable",
        "gunicorn_gc_uncollectable_objects_total",
        1.0,
        "Objects that the collector could not free, by generation.",
    ),
    gauge(
        "instance_gunicorn_python_threads",
        "gunicorn_python_threads",
        1.0,
        "Threads that run Python, those that wait to do so included.",
    ),
    gauge(
        "instance_gunicorn_gil_held",
        "gunicorn_gil_held_ratio",
        0.01,
        "Whether a thread held the interpreter's lock when it was looked at: 0 or 100 percent, to be averaged over time.",
    ),
    gauge(
        "instance_gunicorn_heartbeat_age",
        "gunicorn_heartbeat_age_seconds",
        1.0,
        "Seconds since the last heartbeat of the worker.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_of_their_kind() {
        let names: BTreeSet<_> = DEFINITIONS.iter().map(|definition| definition.name).collect();
        let exposed: BTreeSet<_> = DEFINITIONS.iter().map(|definition| definition.exposed).collect();
        assert_eq!((names.len(), exposed.len()), (DEFINITIONS.len(), DEFINITIONS.len()));
        for definition in DEFINITIONS {
            let is_total = definition.exposed.ends_with("_total");
            assert_eq!(is_total, definition.kind == Kind::Counter, "{}", definition.exposed);
            assert!(definition.help.ends_with('.'), "{}", definition.help);
        }
    }
}
