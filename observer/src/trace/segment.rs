//! Exchange to segment: identifiers, and the caller's trace.
use super::Segment;
use super::correlation;
use super::rules::Chosen;
use super::rules::Rules;
use super::rules::Sampled;
use super::span;
use super::span::Target;
use super::sw8;
use super::w3c;
use crate::clock::WallOffset;
use crate::exchange::Exchange;
use crate::identity::Facts;
use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::identity::framework::Framework;
use crate::stats::Drops;
use crate::stats::Omission;
use crate::stats::Omissions;
use crate::stats::Reason;
use compact_str::CompactString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Masters whose rules are kept.
const MASTERS: usize = 4_096;

/// Makes segments. The same seed gives the same identifiers in the same order.
#[derive(Debug)]
pub struct Segments {
    ids: fastrand::Rng,
    chosen: Chosen,
    /// The rules for the workers of each master, and the facts that they were made from.
    rules: BTreeMap<ProcessKey, (Arc<Facts>, Rules)>,
    sampled: BTreeMap<ProcessKey, Sampled>,
    omissions: Omissions,
}

/// Who served a request.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// As which it is reported.
    pub instance: &'a Instance,
    /// What it is made with.
    pub framework: Framework,
    /// Its master, whose environment has rules.
    pub master: Arc<Facts>,
}

impl Segments {
    /// With identifiers from `seed`, which differs from run to run except in a replay.
    pub fn new(seed: u64, chosen: Chosen) -> Segments {
        Segments {
            ids: fastrand::Rng::with_seed(seed),
            chosen,
            rules: BTreeMap::new(),
            sampled: BTreeMap::new(),
            omissions: Omissions::default(),
        }
    }

    /// The segment of a request; `None`, counted, when it is left out on purpose or its caller's header says that it is
    /// not traced. An empty `sw8` header counts as none.
    pub fn segment(
        &mut self,
        exchange: &Exchange,
        server: &Server<'_>,
        wall: WallOffset,
        drops: &mut Drops,
    ) -> Option<Segment> {
        let Server { instance, framework, master } = server;
        if self.rules.len() >= MASTERS {
            self.rules.clear(); // orphans outlive their masters; rules are made again
        }
        let (facts, rules) = self.rules.entry(master.key).or_insert_with(|| {
            (Arc::clone(master), Rules::new(&self.chosen, master)) // of a process that has none yet
        });
        if !Arc::ptr_eq(facts, master) {
            (*facts, *rules) = (Arc::clone(master), Rules::new(&self.chosen, master));
        }
        let target = Target::of(&exchange.target);
        if let Some(why) = rules.ignores(&exchange.method, target.operation(), *framework) {
            self.omissions.count(why);
            return None;
        }
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
        if !rules.takes(exchange.start, || self.sampled.entry(instance.process).or_default()) {
            self.omissions.count(Omission::NotSampled);
            return None;
        }
        // The agent takes it from a caller that it knows, and from no other.
        let correlation = match exchange.correlation.as_deref().filter(|_| !refs.is_empty()) {
            None => Vec::new(),
            Some(header) => correlation::parse(header, rules.correlation_elements),
        };
        let span = span::entry(exchange, &target, *framework, rules, wall, refs);
        // Drawn for every segment, so that a caller's trace does not shift the identifiers after it.
        let (own_trace, segment_id) = (self.id(), self.id());
        let w3c = exchange.traceparent.as_deref().and_then(w3c::trace_id).filter(|_| self.chosen.w3c);
        let callers = span.refs.first().map(|reference| reference.trace_id.as_str()).or(w3c);
        Some(Segment {
            trace_id: callers.map_or(own_trace, CompactString::from),
            segment_id,
            service: Arc::clone(&instance.service),
            instance: Arc::clone(&instance.name),
            correlation,
            spans: vec![span],
        })
    }

    /// What was left out on purpose.
    pub fn omissions(&self) -> &Omissions {
        &self.omissions
    }

    /// A process has ended: nothing of it is kept.
    pub fn forget(&mut self, process: ProcessKey) {
        self.rules.remove(&process);
        self.sampled.remove(&process);
    }

    /// 32 hexadecimal digits; formatting them takes ten times as long.
    fn id(&mut self) -> CompactString {
        let drawn = self.ids.u128(..).to_be_bytes();
        let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
        let mut id = [0; 32];
        for (pair, byte) in id.chunks_exact_mut(2).zip(drawn) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        str::from_utf8(&id).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::tests::exchange;
    use super::super::sw8::tests::encode;
    use super::super::sw8::tests::reference;
    use super::*;
    use crate::identity::Role;

    fn served(segments: &mut Segments, exchange: &Exchange, environ: &[(&str, &str)]) -> Option<Segment> {
        let environ = environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let instance = Instance {
            process: ProcessKey { pid: 7, start: 1 },
            role: Role::Worker,
            service: "shop".into(),
            name: "worker".into(),
            properties: Vec::new(),
            pace: crate::identity::Pace::default(),
        };
        let master = Arc::new(Facts { environ, ..Facts::default() });
        let server = Server { instance: &instance, framework: Framework::Flask, master };
        let mut drops = Drops::default();
        let made = segments.segment(exchange, &server, WallOffset(0), &mut drops);
        let lost: u64 = drops.named().map(|(_, n)| n).sum();
        assert_eq!(lost, drops.get(Reason::BadSw8));
        assert!(lost == 0 || made.is_none());
        made
    }

    fn seeded() -> Segments {
        Segments::new(1, Chosen::default())
    }

    fn segment(segments: &mut Segments, sw8: Option<&str>) -> Option<Segment> {
        served(segments, &Exchange { sw8: sw8.map(Into::into), ..exchange() }, &[])
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut segments = seeded();
        let to = |method: &str, target: &str| Exchange {
            method: method.into(),
            target: target.into(),
            ..exchange()
        };
        let environ = [
            ("SW_AGENT_TRACE_IGNORE_PATH", "/in/*"),
            ("SW_PLUGIN_HTTP_IGNORE_METHOD", "HEAD"),
            ("SW_SAMPLE_N_PER_3_SECS", "1"),
        ];
        for (method, target) in [("GET", "/in/x?y=/z"), ("HEAD", "/"), ("GET", "/a.js?v=1")] {
            assert_eq!(served(&mut segments, &to(method, target), &environ), None);
        }
        assert!(served(&mut segments, &to("GET", "/a"), &environ).is_some());
        assert_eq!(served(&mut segments, &to("GET", "/a"), &environ), None);
        let counted: Vec<_> = segments.omissions().named().collect();
        let names = ["ignored_method", "ignored_path", "ignored_suffix", "not_sampled"];
        assert_eq!(counted, names.map(|name| (name, 1)));
        for pid in 0..5_000 {
            let key = ProcessKey { pid, start: 2 };
            segments.rules.insert(key, (Arc::default(), Rules::new(&Chosen::default(), &Facts::default())));
        }
        // Another environment of the same master, and a process that is gone.
        assert!(served(&mut segments, &to("HEAD", "/in/x"), &[("SW_SAMPLE_N_PER_3_SECS", "2")]).is_some());
        assert_eq!(segments.rules.len(), 1);
        segments.forget(ProcessKey { pid: 7, start: 1 });
        assert!(served(&mut segments, &to("GET", "/a"), &environ).is_some());
    }

    #[test]
    fn a_trace_of_another_kind_is_a_tag_and_gives_the_id_where_that_is_chosen() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let with = |header: &str, sw8: Option<String>| Exchange {
            traceparent: Some(header.into()),
            sw8: sw8.map(CompactString::from),
            ..exchange()
        };
        let tags = |made: &Segment| {
            let found = made.spans[0].tags.iter().find(|(name, _)| *name == "traceparent");
            found.map(|(_, value)| value.clone())
        };
        let own = served(&mut seeded(), &with(header, None), &[]).unwrap();
        assert_eq!(tags(&own).as_deref(), Some(header));
        assert_ne!(own.trace_id, id);
        let mut segments = Segments::new(1, Chosen { w3c: true, ..Chosen::default() });
        let named = served(&mut segments, &with(header, None), &[]).unwrap();
        assert_eq!((named.trace_id.as_str(), named.spans[0].refs.len()), (id, 0));
        let both = served(&mut segments, &with(header, Some(encode(&reference()))), &[]).unwrap();
        assert_eq!(both.trace_id, "t");
        let garbage = served(&mut segments, &with("00-secret", None), &[]).unwrap();
        assert_eq!((tags(&garbage), garbage.trace_id.len()), (None, 32));
    }

    #[test]
    fn ids_are_32_hex_digits_and_follow_from_the_seed() {
        let first = segment(&mut seeded(), None).unwrap();
        assert_eq!(Some(&first), segment(&mut seeded(), None).as_ref());
        assert_ne!(first.trace_id, first.segment_id);
        for id in [&first.trace_id, &first.segment_id] {
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
    }

    #[test]
    fn a_valid_header_gives_its_trace_and_a_reference() {
        let made = segment(&mut seeded(), Some(&encode(&reference()))).unwrap();
        assert_eq!(made.trace_id, "t");
        assert_eq!(made.spans[0].refs, [reference()]);
    }

    #[test]
    fn what_a_caller_hands_on_is_kept() {
        let handed = |sw8: Option<String>, environ: &[(&str, &str)]| {
            let correlation = Some("YQ==:MQ==,Yg==:Mg==,Yw==:Mw==,ZA==:NA==,ZQ==:NQ==".into());
            let exchange = Exchange { sw8: sw8.map(CompactString::from), correlation, ..exchange() };
            let made = served(&mut seeded(), &exchange, environ).unwrap();
            made.correlation.into_iter().map(|(name, value)| name + &value).collect::<Vec<_>>()
        };
        let known = || Some(encode(&reference()));
        assert_eq!(handed(known(), &[]), ["a1", "b2", "c3", "d4"]); // as the agent counts to three
        assert_eq!(handed(known(), &[("SW_CORRELATION_ELEMENT_MAX_NUMBER", "1")]), ["a1", "b2"]);
        assert_eq!(handed(known(), &[("SW_CORRELATION_ELEMENT_MAX_NUMBER", "-1")]), [""; 0]);
        assert_eq!(handed(None, &[]), [""; 0]);
    }

    #[test]
    fn an_invalid_header_suppresses_and_an_empty_one_does_not() {
        assert_eq!(segment(&mut seeded(), Some("1-------")), None);
        assert!(segment(&mut seeded(), Some("")).is_some());
    }
}
