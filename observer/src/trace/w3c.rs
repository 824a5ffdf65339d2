//! The `traceparent` header of W3C's Trace Context.

/// The trace id of a header that is one: `00-<32 digits>-<16 digits>-<2 digits>`, lower-case hexadecimal, no id all zeros. A
/// version that is not known may have more behind.
pub fn trace_id(header: &str) -> Option<&str> {
    let mut parts = header.split('-');
    let mut part = |length: usize| {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && is_hex).then_some(part)
    };
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_null = |id: &str| id.bytes().all(|byte| byte == b'0');
    let is_over = parts.next().is_none();
    let is_one = version != "ff" && (version != "00" || is_over) && !is_null(trace) && !is_null(parent);
    is_one.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn what_is_one_names_its_trace() {
        for header in [
            format!("00-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-00"),
            format!("cc-{ID}-00f067aa0ba902b7-01"),
            format!("cc-{ID}-00f067aa0ba902b7-01-what-else"),
        ] {
            assert_eq!(trace_id(&header), Some(ID), "{header}");
        }
    }

    #[test]
    fn what_is_none_does_not() {
        let zeros = "0".repeat(32);
        for header in [
            String::new(),
            ID.to_owned(),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{ID}-00f067aa0ba902b7-1"),
            format!(" 00-{ID}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(trace_id(&header), None, "{header}");
        }
    }
}
