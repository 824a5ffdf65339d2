//! The `sw8` header: who called us.
use super::Reference;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Reads a header as the Python agent does: eight parts joined by `-`, all texts base64 and none empty, the
/// span id in decimal; the sample flag is not looked at. `None` is a header that is present but not one, and
/// means that its request is not traced.
pub fn parse(header: &str) -> Option<Reference> {
    let parts: Vec<&str> = header.split('-').collect();
    let [_sample, trace, segment, span, service, instance, endpoint, address] = parts.as_slice() else {
        return None;
    };
    if !span.bytes().all(|digit| digit.is_ascii_digit()) {
        return None; // `parse` would take a sign
    }
    Some(Reference {
        trace_id: decode(trace)?,
        parent_segment_id: decode(segment)?,
        parent_span_id: span.parse().ok()?,
        parent_service: decode(service)?,
        parent_instance: decode(instance)?,
        parent_endpoint: decode(endpoint)?,
        address: decode(address)?,
    })
}

fn decode(part: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(part).ok()?).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::trace) fn encode(reference: &Reference) -> String {
        let b64 = |text: &str| STANDARD.encode(text);
        format!(
            "1-{}-{}-{}-{}-{}-{}-{}",
            b64(&reference.trace_id),
            b64(&reference.parent_segment_id),
            reference.parent_span_id,
            b64(&reference.parent_service),
            b64(&reference.parent_instance),
            b64(&reference.parent_endpoint),
            b64(&reference.address)
        )
    }

    pub(in crate::trace) fn reference() -> Reference {
        Reference {
            trace_id: "t".into(),
            parent_segment_id: "s".into(),
            parent_span_id: 3,
            parent_service: "front|ns".into(),
            parent_instance: "i".into(),
            parent_endpoint: "/up".into(),
            address: "127.0.0.1:8000".into(),
        }
    }

    #[test]
    fn the_sample_flag_does_not_matter() {
        let header = encode(&reference());
        assert_eq!(parse(&header), Some(reference()));
        assert_eq!(parse(&header.replacen('1', "0", 1)), Some(reference()));
    }

    #[test]
    fn what_is_not_one_is_refused() {
        let header = encode(&reference());
        for bad in [
            "",
            "garbage",
            "1-------",
            "1-dA==-cw==-+3-cw==-aQ==-ZQ==-YQ==",
            "1-dA==-cw==-99999999999-cw==-aQ==-ZQ==-YQ==",
            "1-dA==-cw==-3-cw==-aQ==-ZQ==-",
            "1-dA==-cw==-3-!!-aQ==-ZQ==-YQ==",
            "1-dA==-cw==-3-/w==-aQ==-ZQ==-YQ==",
            &format!("{header}-more"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_was_encoded(texts in prop::collection::vec(".{1,20}", 6), span in 0i32..) {
            let reference = Reference {
                trace_id: texts[0].clone(),
                parent_segment_id: texts[1].clone(),
                parent_span_id: span,
                parent_service: texts[2].clone(),
                parent_instance: texts[3].clone(),
                parent_endpoint: texts[4].clone(),
                address: texts[5].clone(),
            };
            prop_assert_eq!(parse(&encode(&reference)), Some(reference));
        }

        #[test]
        fn never_panics(header in ".*") {
            let _ = parse(&header);
        }
    }
}
