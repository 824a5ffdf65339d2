//! Reports as JSON, one object per line.

use compact_str::CompactString;
use serde::Serialize;
use serde::Serializer;

use crate::meter::Meter;
use crate::report::Report;
use crate::report::print::kind;
use crate::trace::Reference;
use crate::trace::Span;
use crate::trace::SpanLayer;

/// One line; names and types of its members are stable.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Json<'a> {
    Ready {
        #[serde(serialize_with = "map")]
        variants: &'a [(&'a str, &'a str)],
    },
    Stats {
        #[serde(serialize_with = "map")]
        drops: &'a [(&'a str, u64)],
        #[serde(serialize_with = "map", skip_serializing_if = "<[_]>::is_empty")]
        left_out: &'a [(&'a str, u64)],
    },
    Instance {
        service: &'a str,
        instance: &'a str,
        role: &'a str,
        pid: u32,
        #[serde(serialize_with = "map")]
        properties: &'a [(String, String)],
    },
    Gone {
        service: &'a str,
        instance: &'a str,
        pid: u32,
    },
    Segment {
        service: &'a str,
        instance: &'a str,
        trace_id: &'a str,
        segment_id: &'a str,
        spans: Vec<JsonSpan<'a>>,
    },
    Event {
        service: &'a str,
        instance: &'a str,
        name: &'a str,
        #[serde(rename = "type")]
        type_: &'a str,
        uuid: &'a str,
        start_ms: i64,
        end_ms: Option<i64>,
        message: &'a str,
        #[serde(serialize_with = "map")]
        parameters: &'a [(&'static str, String)],
    },
    Process {
        pid: u32,
        role: Option<&'a str>,
        parent: Option<u32>,
    },
    Meters {
        service: &'a str,
        instance: &'a str,
        at_ms: i64,
        #[serde(serialize_with = "meter_map")]
        meters: &'a [Meter],
    },
}

#[derive(Serialize)]
pub(super) struct JsonSpan<'a> {
    id: i32,
    parent: i32,
    start_ms: i64,
    end_ms: i64,
    operation: &'a str,
    peer: &'a str,
    kind: &'a str,
    layer: &'a str,
    component: i32,
    is_error: bool,
    tags: &'a [(&'static str, CompactString)],
    refs: Vec<JsonReference<'a>>,
    queue_wait_us: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct JsonReference<'a> {
    trace_id: &'a str,
    parent_segment_id: &'a str,
    parent_span_id: i32,
    parent_service: &'a str,
    parent_instance: &'a str,
    parent_endpoint: &'a str,
    address: &'a str,
}

/// A report in that form.
pub(super) fn of(report: &Report) -> Json<'_> {
    match report {
        Report::Hello(instance) => Json::Instance {
            service: &instance.service,
            instance: &instance.name,
            role: instance.role.name(),
            pid: instance.process.pid,
            properties: &instance.properties,
        },
        Report::Bye(instance) => {
            Json::Gone { service: &instance.service, instance: &instance.name, pid: instance.process.pid }
        }
        Report::Segment(segment) => Json::Segment {
            service: &segment.service,
            instance: &segment.instance,
            trace_id: &segment.trace_id,
            segment_id: &segment.segment_id,
            spans: segment.spans.iter().map(json_span).collect(),
        },
        Report::Event(event) => Json::Event {
            service: &event.service,
            instance: &event.instance,
            name: event.name.as_str(),
            type_: if event.error { "Error" } else { "Normal" },
            uuid: &event.uuid,
            start_ms: event.start_ms,
            end_ms: event.end_ms,
            message: &event.message,
            parameters: &event.parameters,
        },
        Report::Role(casting) => Json::Process {
            pid: casting.process.pid,
            role: casting.role.map(|role| role.name()),
            parent: casting.parent,
        },
        Report::Meters(batch) => Json::Meters {
            service: &batch.service,
            instance: &batch.instance,
            at_ms: batch.at_ms,
            meters: &batch.meters,
        },
    }
}

fn json_span(span: &Span) -> JsonSpan<'_> {
    JsonSpan {
        id: span.id,
        parent: span.parent,
        start_ms: span.start_ms,
        end_ms: span.end_ms,
        operation: &span.operation,
        peer: &span.peer,
        kind: kind(span.kind),
        layer: match span.layer {
            SpanLayer::Http => "Http",
        },
        component: span.component,
        is_error: span.is_error,
        tags: &span.tags,
        refs: span.refs.iter().map(json_reference).collect(),
        queue_wait_us: span.queue_wait_ns.map(|ns| ns / 1000),
    }
}

fn json_reference(reference: &Reference) -> JsonReference<'_> {
    JsonReference {
        trace_id: &reference.trace_id,
        parent_segment_id: &reference.parent_segment_id,
        parent_span_id: reference.parent_span_id,
        parent_service: &reference.parent_service,
        parent_instance: &reference.parent_instance,
        parent_endpoint: &reference.parent_endpoint,
        address: &reference.address,
    }
}

/// A list of pairs as an object, in the list's order.
fn map<K: Serialize, V: Serialize, S: Serializer>(pairs: &&[(K, V)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

fn meter_map<S: Serializer>(meters: &&[Meter], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(meters.iter().map(|meter| (meter.key(), meter.value)))
}

#[cfg(test)]
mod tests {
    use crate::identity::Role;
    use crate::report::Report;
    use crate::report::print::Format;
    use crate::report::print::tests::casting;
    use crate::report::print::tests::exit;
    use crate::report::print::tests::numbers;
    use crate::report::print::tests::printed;
    use crate::report::print::tests::segment;
    use crate::report::print::tests::worker;

    #[test]
    fn json_lines_have_the_promised_members_in_the_promised_order() {
        let lines = [
            Report::Hello(worker()),
            Report::Bye(worker()),
            Report::Segment(segment("/a")),
            Report::Meters(numbers()),
        ]
        .map(|report| printed(Format::Json, &report));
        assert_eq!(
            lines,
            [
                "{\"kind\":\"instance\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"role\":\"worker\",\
             \"pid\":9,\"properties\":{\"language\":\"python\",\"OS Name\":\"posix\"}}\n",
                "{\"kind\":\"gone\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"pid\":9}\n",
                "{\"kind\":\"segment\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"trace_id\":\"t1\",\
             \"segment_id\":\"s1\",\"spans\":[{\"id\":0,\"parent\":-1,\"start_ms\":90061004,\"end_ms\":90061024,\
             \"operation\":\"/a\",\"peer\":\"127.0.0.1:5\",\"kind\":\"entry\",\"layer\":\"Http\",\"component\":7001,\
             \"is_error\":false,\"tags\":[[\"http.method\",\"GET\"],[\"http.status_code\",\"200\"]],\
             \"refs\":[{\"trace_id\":\"t1\",\"parent_segment_id\":\"s0\",\"parent_span_id\":3,\"parent_service\":\"front\",\
             \"parent_instance\":\"f1\",\"parent_endpoint\":\"/out\",\"address\":\"demo:8000\"}],\"queue_wait_us\":12}]}\n",
                "{\"kind\":\"meters\",\"service\":\"demo\",\"instance\":\"i\",\"at_ms\":1500,\
             \"meters\":{\"instance_pvm_total_cpu_utilization\":12.3456,\"instance_pvm_gc_g0\":7.0}}\n",
            ]
        );
    }

    #[test]
    fn events_have_the_promised_members_and_no_end_while_they_last() {
        let line = |end: &str| {
            format!(
                "{{\"kind\":\"event\",\"service\":\"demo\",\"instance\":\"base-master(7)-child(9)\",\"name\":\"Exit\",{end},\
                 \"message\":\"killed by signal 9\",\"parameters\":{{\"cause\":\"killed\",\"pid\":\"9\"}}}}\n"
            )
        };
        assert_eq!(
            [false, true].map(|over| printed(Format::Json, &Report::Event(exit(over)))),
            [
                line("\"type\":\"Normal\",\"uuid\":\"u1\",\"start_ms\":1500,\"end_ms\":null"),
                line("\"type\":\"Error\",\"uuid\":\"u1\",\"start_ms\":1500,\"end_ms\":2000"),
            ]
        );
    }

    #[test]
    fn a_role_has_a_parent_or_null_and_its_end_is_null() {
        let castings =
            [casting(Some(Role::AppChild), Some(7)), casting(Some(Role::Master), None), casting(None, None)];
        assert_eq!(
            castings.map(|casting| printed(Format::Json, &Report::Role(casting))),
            [
                "{\"kind\":\"process\",\"pid\":9,\"role\":\"app-child\",\"parent\":7}\n",
                "{\"kind\":\"process\",\"pid\":9,\"role\":\"master\",\"parent\":null}\n",
                "{\"kind\":\"process\",\"pid\":9,\"role\":null,\"parent\":null}\n",
            ]
        );
    }
}
