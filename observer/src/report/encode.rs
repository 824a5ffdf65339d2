//! A segment as the bytes of SkyWalking's `SegmentObject`, straight from ours: it is made for every request, and generated
//! code would want a copy of each text. The numbers of fields are those of `Tracing.proto`.

use crate::trace::Reference;
use crate::trace::Segment;
use crate::trace::Span;
use crate::trace::SpanKind;
use crate::trace::SpanLayer;

/// Protobuf's types of what follows a field's number.
const VARINT: u8 = 0;
const LENGTH_AND_BYTES: u8 = 2;

/// Appends one segment.
pub fn segment(segment: &Segment, out: &mut Vec<u8>) {
    text(out, 1, &segment.trace_id);
    text(out, 2, &segment.segment_id);
    for one in &segment.spans {
        message(out, 3, |out| span(one, out));
    }
    text(out, 4, &segment.service);
    text(out, 5, &segment.instance);
}

fn span(span: &Span, out: &mut Vec<u8>) {
    number(out, 1, span.id.into());
    number(out, 2, span.parent.into());
    number(out, 3, span.start_ms);
    number(out, 4, span.end_ms);
    for caller in &span.refs {
        message(out, 5, |out| reference(caller, out));
    }
    text(out, 6, &span.operation);
    text(out, 7, &span.peer);
    let kind = match span.kind {
        SpanKind::Entry => 0,
        SpanKind::Exit => 1,
        SpanKind::Local => 2,
    };
    number(out, 8, kind);
    let layer = match span.layer {
        SpanLayer::Http => 3,
    };
    number(out, 9, layer);
    number(out, 10, span.component.into());
    number(out, 11, span.is_error.into());
    for (key, value) in &span.tags {
        message(out, 12, |out| {
            text(out, 1, key);
            text(out, 2, value);
        });
    }
}

/// A caller in another process: field 1, the type of reference, is 0.
fn reference(reference: &Reference, out: &mut Vec<u8>) {
    text(out, 2, &reference.trace_id);
    text(out, 3, &reference.parent_segment_id);
    number(out, 4, reference.parent_span_id.into());
    text(out, 5, &reference.parent_service);
    text(out, 6, &reference.parent_instance);
    text(out, 7, &reference.parent_endpoint);
    text(out, 8, &reference.address);
}

/// What is 0, like what is empty below, is not written. All fields here have a number below 16.
fn number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(field << 3 | VARINT);
        varint(out, number.cast_unsigned());
    }
}

fn text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        let field = field << 3 | LENGTH_AND_BYTES;
        match u8::try_from(text.len()) {
            Ok(len @ 0..0x80) => out.extend_from_slice(&[field, len]), // as nearly all are
            _ => {
                out.push(field);
                varint(out, text.len() as u64);
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// The length of a message stands before it and is known after it: there is room for one byte, which is enough for most,
/// and a message that is longer moves.
fn message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[field << 3 | LENGTH_AND_BYTES, 0]);
    let begin = out.len();
    write(out);
    let mut rest = (out.len() - begin) as u64;
    let mut at = begin - 1;
    while rest >= 0x80 {
        out.insert(at, low(rest));
        at += 1;
        rest >>= 7;
    }
    if let Some(last) = out.get_mut(at) {
        *last = low(rest) & 0x7f;
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low(number));
        number >>= 7;
    }
    out.push(low(number) & 0x7f);
}

/// The lowest seven bits, marked as not the last.
fn low(number: u64) -> u8 {
    number.to_le_bytes()[0] | 0x80
}
