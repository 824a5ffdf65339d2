//! Reports made up for tests of what comes after the pipeline.

use observer::identity::Instance;
use observer::identity::Pace;
use observer::identity::ProcessKey;
use observer::identity::Role;
use observer::identity::event::Event;
use observer::identity::event::EventName;
use observer::meter::Meter;
use observer::meter::MeterBatch;
use observer::trace::Reference;
use observer::trace::Segment;
use observer::trace::Span;
use observer::trace::SpanKind;
use observer::trace::SpanLayer;

use crate::dashboard;

/// A worker of the master 7.
pub fn worker(service: &str, pid: u32) -> Instance {
    let property = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Instance {
        process: ProcessKey { pid, start: 100 },
        role: Role::Worker,
        service: service.into(),
        name: format!("base-master(7)-child({pid})").into(),
        properties: vec![
            property("language", "python"),
            property("OS Name", "posix"),
            property("Process No.", &pid.to_string()),
            property("hostname", "node"),
            property("ipv4", "127.0.0.1"),
            property("python_implementation", "CPython"),
            property("python_version", "3.12.3"),
        ],
        pace: Pace::default(),
    }
}

/// A Flask request of 20 ms to `/hello`, called by another service; trace `trace-<id>`.
pub fn segment(instance: &Instance, id: &str, start_ms: i64) -> Segment {
    let trace_id = format!("trace-{id}");
    Segment {
        trace_id: trace_id.as_str().into(),
        segment_id: id.into(),
        service: instance.service.clone(),
        instance: instance.name.clone(),
        correlation: Vec::new(),
        spans: vec![Span {
            id: 0,
            parent: -1,
            start_ms,
            end_ms: start_ms + 20,
            refs: vec![Reference {
                trace_id,
                parent_segment_id: "caller-segment".to_owned(),
                parent_span_id: 2,
                parent_service: "caller".to_owned(),
                parent_instance: "caller-1".to_owned(),
                parent_endpoint: "/front".to_owned(),
                address: "demo:8000".to_owned(),
            }],
            operation: "/hello".into(),
            peer: "127.0.0.1:40000".into(),
            kind: SpanKind::Entry,
            layer: SpanLayer::Http,
            component: 7001,
            is_error: false,
            tags: vec![
                ("http.method", "GET".into()),
                ("http.url", "http://demo:8000/hello".into()),
                ("http.status_code", "200".into()),
            ],
            queue_wait_ns: None,
        }],
    }
}

/// All meters of the Python dashboard.
pub fn meters(instance: &Instance, at_ms: i64) -> MeterBatch {
    MeterBatch {
        service: instance.service.clone(),
        instance: instance.name.clone(),
        at_ms,
        meters: vec![
            Meter::new("instance_pvm_total_cpu_utilization", 33.4),
            Meter::new("instance_pvm_process_cpu_utilization", 12.6),
            Meter::new("instance_pvm_total_mem_utilization", 41.0),
            Meter::new("instance_pvm_process_mem_utilization", 3.2),
            Meter::new("instance_pvm_gc_g0", 700.0),
            Meter::new("instance_pvm_gc_g1", 60.0),
            Meter::new("instance_pvm_gc_g2", 5.0),
            Meter::new("instance_pvm_gc_time", 100.0),
            Meter::new("instance_pvm_thread_active_count", 4.0),
        ],
    }
}

/// What of a value of [`own_meters`] is its own: of a counter its increase.
pub fn own_value(rule: usize, label: usize) -> i64 {
    10 * i64::try_from(rule).unwrap_or(0) + i64::try_from(label).unwrap_or(0) + 2
}

/// The labels' values in [`own_meters`].
pub const LABELS: [&str; 2] = ["127.0.0.1:8000", "unix:/run/shop.sock"];

/// A value for each rule of `deploy/oap`, for two labels where it has one; counters have `counted` of their increase.
pub fn own_meters(instance: &Instance, at_ms: i64, counted: f64) -> MeterBatch {
    // Names on the wire are constants of the program; these are read, once.
    let constant = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let meters = dashboard::rules().into_iter().enumerate().flat_map(|(at, rule)| {
        let name = constant(rule.name);
        let value = move |label| own_value(at, label) as f64 * if rule.is_increase { counted } else { 1.0 };
        match rule.label.map(constant) {
            None => vec![Meter::new(name, value(0))],
            Some(label) => {
                let each = LABELS.into_iter().enumerate();
                each.map(|(n, text)| Meter::new(name, value(n)).label(label, text)).collect()
            }
        }
    });
    MeterBatch {
        service: instance.service.clone(),
        instance: instance.name.clone(),
        at_ms,
        meters: meters.collect(),
    }
}

/// The two messages about an exit of a worker that took 2 s: it was asked to end, it was killed.
pub fn exit(instance: &Instance, uuid: &str, start_ms: i64) -> [Event; 2] {
    let parameter =
        |cause: &str| vec![("cause", cause.to_owned()), ("pid", instance.process.pid.to_string())];
    let asked = Event {
        uuid: uuid.to_owned(),
        service: instance.service.clone(),
        instance: instance.name.clone(),
        name: EventName::Exit,
        error: false,
        message: "asked to end".to_owned(),
        parameters: parameter("shutdown"),
        start_ms,
        end_ms: None,
    };
    let killed = Event {
        error: true,
        message: "killed: it did not end in time".to_owned(),
        parameters: parameter("graceful-timeout"),
        end_ms: Some(start_ms + 2000),
        ..asked.clone()
    };
    [asked, killed]
}
