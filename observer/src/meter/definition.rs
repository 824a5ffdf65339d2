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
        "instance_gunicorn_gc_pause",
        "gunicorn_gc_pause_seconds_total",
        0.001,
        "Time in the collector by generation, in milliseconds, where it is known.",
    ),
    gauge(
        "instance_gunicorn_gc_pause_max",
        "gunicorn_gc_pause_max_seconds",
        0.001,
        "The longest run of the collector since the last report by generation, in milliseconds.",
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
        "Whether a thread held the interpreter's lock when it was looked at, in percent: all or nothing, to be averaged over time.",
    ),
    gauge(
        "instance_gunicorn_gil_held_by_main",
        "gunicorn_gil_held_by_main_ratio",
        0.01,
        "Whether the main thread was the one that held the interpreter's lock, in percent: all or nothing, to be averaged over time.",
    ),
    counter(
        "instance_gunicorn_gil_wait",
        "gunicorn_gil_wait_seconds_total",
        0.001,
        "Time that the threads of the process waited for the interpreter's lock, together, in milliseconds.",
    ),
    gauge(
        "instance_gunicorn_heartbeat_age",
        "gunicorn_heartbeat_age_seconds",
        1.0,
        "Seconds since the last heartbeat of the worker.",
    ),
    gauge(
        "instance_gunicorn_accept_queue",
        "gunicorn_accept_queue_connections",
        1.0,
        "Connections that wait to be accepted at a listener, on whoever holds it: the master, or with --reuse-port the worker.",
    ),
    gauge(
        "instance_gunicorn_accept_queue_limit",
        "gunicorn_accept_queue_limit_connections",
        1.0,
        "Backlog of the listener: the kernel lets one connection more wait, then it drops them.",
    ),
    counter(
        "instance_gunicorn_listen_overflows",
        "gunicorn_listen_overflows_total",
        1.0,
        "Connections that found an accept queue full, of all listeners of the network namespace together.",
    ),
    counter(
        "instance_gunicorn_listen_drops",
        "gunicorn_listen_drops_total",
        1.0,
        "Connections that listeners dropped for any reason, of all listeners of the network namespace together.",
    ),
    gauge(
        "instance_gunicorn_unread_connections",
        "gunicorn_unread_connections",
        1.0,
        "Connections that the worker has accepted and that have bytes which it has not read.",
    ),
    gauge(
        "instance_gunicorn_requests_in_flight",
        "gunicorn_requests_in_flight",
        1.0,
        "Requests that the worker has read and not answered.",
    ),
    gauge(
        "instance_gunicorn_requests_in_flight_max",
        "gunicorn_requests_in_flight_max",
        1.0,
        "The most requests in flight at one time since the last report.",
    ),
    gauge(
        "instance_gunicorn_busy",
        "gunicorn_busy_ratio",
        0.01,
        "Part of the time since the last report in which the worker had a request in flight, in percent.",
    ),
    counter(
        "instance_gunicorn_accepts",
        "gunicorn_accepts_total",
        1.0,
        "Connections that the worker has accepted since it is watched.",
    ),
    counter(
        "instance_gunicorn_requests",
        "gunicorn_requests_total",
        1.0,
        "Requests that the worker has served since it is watched.",
    ),
    counter(
        "instance_gunicorn_websocket_received",
        "gunicorn_websocket_received_bytes_total",
        1.0,
        "Bytes that the worker has read from WebSockets after their handshake since it is watched.",
    ),
    counter(
        "instance_gunicorn_websocket_sent",
        "gunicorn_websocket_sent_bytes_total",
        1.0,
        "Bytes that the worker has written to WebSockets after their handshake since it is watched.",
    ),
    gauge(
        "instance_gunicorn_queue_wait",
        "gunicorn_queue_wait_seconds",
        0.000_001,
        "How long p percent of the requests since the last report waited at most to be read, in microseconds.",
    ),
    gauge(
        "instance_gunicorn_loop_lag",
        "gunicorn_loop_lag_seconds",
        0.001,
        "How late the loop of the worker was at worst since the last report, in milliseconds; only of loop-based workers.",
    ),
    counter(
        "instance_gunicorn_respawns",
        "gunicorn_respawns_total",
        1.0,
        "Workers that ended and had to be replaced although nobody had asked the master for that.",
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
