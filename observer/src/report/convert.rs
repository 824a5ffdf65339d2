//! Our types to SkyWalking's messages, and nothing else.

use proto::v3;

use crate::identity::Instance;
use crate::meter::MeterBatch;
use crate::trace::Reference;
use crate::trace::Segment;
use crate::trace::Span;
use crate::trace::SpanKind;
use crate::trace::SpanLayer;

/// What an instance is.
pub(super) fn properties(instance: &Instance) -> v3::InstanceProperties {
    v3::InstanceProperties {
        service: instance.service.to_string(),
        service_instance: instance.name.to_string(),
        properties: instance.properties.iter().map(|(key, value)| pair(key, value)).collect(),
        layer: String::new(),
    }
}

/// A sign of life; the empty layer means GENERAL.
pub(super) fn ping(instance: &Instance) -> v3::InstancePingPkg {
    v3::InstancePingPkg {
        service: instance.service.to_string(),
        service_instance: instance.name.to_string(),
        layer: String::new(),
    }
}

/// One segment.
pub(super) fn segment(segment: &Segment) -> v3::SegmentObject {
    v3::SegmentObject {
        trace_id: segment.trace_id.clone(),
        trace_segment_id: segment.segment_id.clone(),
        spans: segment.spans.iter().map(span).collect(),
        service: segment.service.to_string(),
        service_instance: segment.instance.to_string(),
        is_size_limited: false,
    }
}

/// One message per meter, each complete: OAP takes service, instance and time from the last one.
pub(super) fn meters(batch: &MeterBatch) -> Vec<v3::MeterData> {
    let data = |meter: &crate::meter::Meter| v3::MeterData {
        metric: Some(v3::meter_data::Metric::SingleValue(v3::MeterSingleValue {
            name: meter.name.to_owned(),
            labels: Vec::new(),
            value: meter.value,
        })),
        service: batch.service.to_string(),
        service_instance: batch.instance.to_string(),
        timestamp: batch.at_ms,
    };
    batch.meters.iter().map(data).collect()
}

fn span(span: &Span) -> v3::SpanObject {
    v3::SpanObject {
        span_id: span.id,
        parent_span_id: span.parent,
        start_time: span.start_ms,
        end_time: span.end_ms,
        refs: span.refs.iter().map(reference).collect(),
        operation_name: span.operation.clone(),
        peer: span.peer.clone(),
        span_type: match span.kind {
            SpanKind::Entry => v3::SpanType::Entry,
            SpanKind::Exit => v3::SpanType::Exit,
            SpanKind::Local => v3::SpanType::Local,
        }
        .into(),
        span_layer: match span.layer {
            SpanLayer::Http => v3::SpanLayer::Http,
        }
        .into(),
        component_id: span.component,
        is_error: span.is_error,
        tags: span.tags.iter().map(|(key, value)| pair(key, value)).collect(),
        logs: Vec::new(),
        skip_analysis: false,
    }
}

fn reference(reference: &Reference) -> v3::SegmentReference {
    v3::SegmentReference {
        ref_type: v3::RefType::CrossProcess.into(),
        trace_id: reference.trace_id.clone(),
        parent_trace_segment_id: reference.parent_segment_id.clone(),
        parent_span_id: reference.parent_span_id,
        parent_service: reference.parent_service.clone(),
        parent_service_instance: reference.parent_instance.clone(),
        parent_endpoint: reference.parent_endpoint.clone(),
        network_address_used_at_peer: reference.address.clone(),
    }
}

fn pair(key: &str, value: &str) -> v3::KeyStringValuePair {
    v3::KeyStringValuePair { key: key.to_owned(), value: value.to_owned() }
}
