//! Exchange to segment: identifiers, and the caller's trace.
use super::Segment;
use super::span;
use super::sw8;
use crate::clock::WallOffset;
use crate::exchange::Exchange;
use crate::identity::Instance;
use crate::stats::Drops;
use crate::stats::Reason;
use std::sync::Arc;

/// Makes segments. The same seed gives the same identifiers in the same order.
#[derive(Debug)]
pub struct Segments {
    ids: fastrand::Rng,
}

impl Segments {
    /// With identifiers from `seed`, which differs from run to run except in a replay.
    pub fn new(seed: u64) -> Segments {
        Segments { ids: fastrand::Rng::with_seed(seed) }
    }

    /// The segment of a request that `instance` served; `None`, counted, when its caller's header says that
    /// it is not traced. An empty `sw8` header counts as none.
    pub fn segment(
        &mut self,
        exchange: &Exchange,
        instance: &Instance,
        wall: WallOffset,
        drops: &mut Drops,
    ) -> Option<Segment> {
        let refs = match exchange.sw8.as_deref().filter(|header| !header.is_empty()) {
            None => Vec::new(),
            Some(header) => match sw8::parse(header) {
                Some(reference) => vec![reference],
                None => {
                    drops.count(Reason::BadSw8);
                    return None;
                }
            },
        };
        // Drawn for every segment, so that a caller's trace does not shift the identifiers after it.
        let (own_trace, segment_id) = (self.id(), self.id());
        Some(Segment {
            trace_id: refs.first().map_or(own_trace, |reference| reference.trace_id.clone()),
            segment_id,
            service: Arc::clone(&instance.service),
            instance: Arc::clone(&instance.name),
            spans: vec![span::entry(exchange, wall, refs)],
        })
    }

    /// 32 hexadecimal digits; formatting them takes ten times as long.
    fn id(&mut self) -> String {
        let drawn = self.ids.u128(..).to_be_bytes();
        let digit = |half: u8| char::from(if half < 10 { b'0' + half } else { b'a' + half - 10 });
        let mut id = String::with_capacity(2 * drawn.len());
        drawn.iter().for_each(|byte| id.extend([digit(byte >> 4), digit(byte & 0xf)]));
        id
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::tests::exchange;
    use super::super::sw8::tests::encode;
    use super::super::sw8::tests::reference;
    use super::*;
    use crate::identity::ProcessKey;
    use crate::identity::Role;

    fn segment(segments: &mut Segments, sw8: Option<&str>, drops: &mut Drops) -> Option<Segment> {
        let instance = Instance {
            process: ProcessKey { pid: 7, start: 1 },
            role: Role::Worker,
            service: "shop".into(),
            name: "worker".into(),
            properties: Vec::new(),
        };
        let exchange = Exchange { sw8: sw8.map(Into::into), ..exchange() };
        segments.segment(&exchange, &instance, WallOffset(0), drops)
    }

    #[test]
    fn ids_are_32_hex_digits_and_follow_from_the_seed() {
        let mut drops = Drops::default();
        let first = segment(&mut Segments::new(1), None, &mut drops).unwrap();
        assert_eq!(Some(&first), segment(&mut Segments::new(1), None, &mut drops).as_ref());
        assert_ne!(first.trace_id, first.segment_id);
        for id in [&first.trace_id, &first.segment_id] {
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
    }

    #[test]
    fn a_valid_header_gives_its_trace_and_a_reference() {
        let mut drops = Drops::default();
        let made = segment(&mut Segments::new(1), Some(&encode(&reference())), &mut drops).unwrap();
        assert_eq!(made.trace_id, "t");
        assert_eq!(made.spans[0].refs, [reference()]);
    }

    #[test]
    fn an_invalid_header_suppresses_and_an_empty_one_does_not() {
        let mut drops = Drops::default();
        assert_eq!(segment(&mut Segments::new(1), Some("1-------"), &mut drops), None);
        assert_eq!(drops.get(Reason::BadSw8), 1);
        assert!(segment(&mut Segments::new(1), Some(""), &mut drops).is_some());
    }
}
