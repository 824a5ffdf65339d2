//! Frames whole, cut, missing and wrong.
use super::*;
use proptest::prelude::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// `GET` of a path.
fn get(path: &str) -> Vec<u8> {
    [b"\x82\x86\x04", &[u8::try_from(path.len()).unwrap()][..], path.as_bytes()].concat()
}

/// Every event of some pieces, one a line; data that follows on data of the same stream is one event.
fn events(mut parser: Parser, pieces: &[Piece<'_>]) -> Vec<String> {
    let mut all: Vec<Event> = Vec::new();
    for piece in pieces {
        let mut piece = *piece;
        while let Some(event) = parser.step(&mut piece) {
            match (all.last_mut(), event) {
                (
                    Some(Event::Data { stream, bytes, ends: ends @ false }),
                    Event::Data { stream: same, bytes: more, ends: end },
                ) if *stream == same => {
                    *bytes += more;
                    *ends = end;
                }
                (_, event) => all.push(event),
            }
        }
        assert!(piece.is_empty());
    }
    let show = |event: &Event| match event {
        Event::Head { stream, fields, bytes, ends } => {
            let said = fields.path.as_ref().map(ToString::to_string);
            let said = said.or(fields.status.map(|status| status.to_string())).unwrap_or_default();
            format!("{stream} {said} {bytes}{}", if *ends { " end" } else { "" })
        }
        Event::Data { stream, bytes, ends } => {
            format!("{stream} data {bytes}{}", if *ends { " end" } else { "" })
        }
        Event::Reset(_) | Event::Away(_) | Event::Failed(_) => format!("{event:?}"),
    };
    all.iter().map(show).collect()
}

/// A client that says all there is: settings, padding, a priority, pieces of headers, data, what comes behind it, kinds that
/// nobody knows.
fn talk() -> Vec<u8> {
    let block = get("/second");
    let (head, tail) = block.split_at(5);
    [
        PREFACE.to_vec(),
        frame(4, 0, 0, &[0, 3, 0, 0, 0, 9]),
        frame(1, 0x2d, 1, &[&[3, 0, 0, 0, 0, 9][..], &get("/first"), b"pad"].concat()),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 0, 3, head),
        frame(9, 0, 3, b""),
        frame(9, 4, 3, tail),
        frame(0xee, 0xff, 3, b"nobody knows"),
        frame(0, 8, 3, b"\x02data  "),
        frame(2, 0, 3, b"     "),
        frame(0, 0, 3, &[0; 500]),
        frame(1, 5, 3, b"\x00\x01a\x01b"),
        frame(0, 1, 5, b""),
        frame(3, 0, 5, b"\0\0\0\x08"),
        frame(7, 0, 0, b"\0\0\0\x07\0\0\0\0why"),
        frame(6, 0, 0, b"12345678"),
    ]
    .concat()
}

const SEEN: [&str; 7] =
    ["1 /first 28 end", "3 /second 38", "3 data 525", "3  14 end", "5 data 9 end", "Reset(5)", "Away(7)"];

#[test]
fn all_kinds_are_read() {
    assert_eq!(events(Parser::client(PREFACE), &[Piece::Bytes(&talk())]), SEEN);
    let mut parser = Parser::client(PREFACE);
    let talk = talk();
    let mut piece = Piece::Bytes(&talk);
    while parser.step(&mut piece).is_some() {}
    assert!(parser.has_begun() && !parser.has_begun());
    assert_eq!(parser.step(&mut Piece::Bytes(&frame(1, 0, 7, b"\x82"))), None);
    assert!(parser.has_begun());
    assert!(parser.step(&mut Piece::Bytes(&frame(9, 4, 7, b"\x84"))).is_some() && !parser.has_begun());
}

proptest! {
    #[test]
    fn any_cuts_give_the_same(cuts in prop::collection::vec(0_usize..600, 0..40)) {
        let talk = talk();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(talk.len())).collect();
        cuts.extend([0, talk.len()]);
        cuts.sort_unstable();
        let pieces: Vec<Piece<'_>> = cuts.windows(2).map(|cut| Piece::Bytes(&talk[cut[0]..cut[1]])).collect();
        prop_assert_eq!(events(Parser::client(PREFACE), &pieces), SEEN);
    }

    #[test]
    fn whatever_comes_is_swallowed(bytes in prop::collection::vec(any::<u8>(), 0..400), is_client in any::<bool>()) {
        let parser = if is_client { Parser::client(b"") } else { Parser::server() };
        events(parser, &[Piece::Bytes(&bytes), Piece::Hole(70_000), Piece::Bytes(&bytes)]);
    }

    /// What is missing is either of no matter or a gap: nothing else is told than without it.
    #[test]
    fn a_hole_makes_nothing_wrong(from in 0_usize..700, len in 1_usize..600) {
        let talk = talk();
        let from = from.min(talk.len());
        let to = (from + len).min(talk.len());
        let pieces = [
            Piece::Bytes(&talk[..from]),
            Piece::Hole((to - from) as u64),
            Piece::Bytes(&talk[to..]),
        ];
        let mut seen = events(Parser::client(PREFACE), &pieces);
        if seen.last().is_some_and(|last| last == "Failed(Gap)") {
            seen.pop();
            if seen.last().is_some_and(|last| last.contains("data") && !SEEN.contains(&last.as_str())) {
                seen.pop(); // part of a body
            }
            prop_assert_eq!(&seen[..], &SEEN[..seen.len()]);
        } else {
            let same = |(seen, wanted): (&String, &&str)| seen == wanted || seen.starts_with("Away(");
            prop_assert!(seen.len() == SEEN.len() && seen.iter().zip(&SEEN).all(same), "{:?}", seen);
        }
    }
}

#[test]
fn a_body_may_be_missing() {
    let head = frame(1, 4, 1, &get("/a"));
    let long = [&[1, 0, 0, 0, 1][..], &1_u32.to_be_bytes()].concat();
    let pieces = [
        Piece::Bytes(&head),
        Piece::Bytes(&long),
        Piece::Hole(65_000),
        Piece::Bytes(&[7; 536]),
        Piece::Bytes(&head[..8]),
        Piece::Bytes(&[3]),
        Piece::Bytes(&head[9..]),
    ];
    assert_eq!(events(Parser::client(b""), &pieces), ["1 /a 15", "1 data 65545 end", "3 /a 15"]);
}

#[test]
fn what_is_wrong_is_said_once() {
    let long = vec![0; 20_000];
    let cases: [(&str, Vec<u8>); 17] = [
        ("a preface", b"PRI * HTTP/2.0\r\n\r\nSX".to_vec()),
        ("an even stream", frame(1, 4, 2, &get("/a"))),
        ("no stream", frame(1, 4, 0, &get("/a"))),
        ("data of no stream", frame(0, 0, 0, b"a")),
        ("a promise of a client's", frame(5, 4, 1, b"\0\0\0\x02\x82")),
        ("more padding than there is", frame(1, 12, 1, b"\x05\x82")),
        ("padding of nothing", frame(1, 12, 1, b"")),
        ("a priority of nothing", frame(1, 0x24, 1, b"\x82")),
        ("a continuation of nothing", frame(9, 4, 1, b"\x82")),
        ("headers that go on elsewhere", [frame(1, 0, 1, b"\x82"), frame(9, 4, 3, b"\x82")].concat()),
        ("something between headers", [frame(1, 0, 1, b"\x82"), frame(6, 0, 0, b"12345678")].concat()),
        ("a table's size", frame(1, 4, 1, b"\x3f\xff\xff\xff\x7f")),
        ("an index", frame(1, 4, 1, b"\xff\x40")),
        ("a short reset", frame(3, 0, 1, b"abc")),
        ("a short ping", frame(6, 0, 0, b"abc")),
        ("settings", frame(4, 0, 0, b"abc")),
        ("a short goodbye", frame(7, 0, 0, b"abc")),
    ];
    for (what, bytes) in cases {
        let preface: &[u8] = if what == "a preface" { PREFACE } else { b"" };
        let after = frame(1, 4, 7, &get("/after"));
        let seen = events(Parser::client(preface), &[Piece::Bytes(&bytes), Piece::Bytes(&after)]);
        assert_eq!(seen, ["Failed(Malformed)"], "{what}");
    }
    let flood = [frame(1, 0, 1, &long), frame(9, 0, 1, &long).repeat(4)].concat();
    assert_eq!(events(Parser::client(b""), &[Piece::Bytes(&flood)]), ["Failed(HeadTooLarge)"]);
}

#[test]
fn what_a_server_promises_is_read_for_what_follows() {
    let bytes = [
        frame(4, 1, 0, b""),
        frame(5, 12, 1, b"\x01\0\0\0\x02\x41\x01h!"),
        frame(1, 4, 1, b"\x08\x03103"),
        frame(1, 4, 1, b"\x88\xbe"),
        frame(0, 1, 1, b"ok"),
        frame(3, 0, 3, b"\0\0\0\x07"),
    ]
    .concat();
    let seen = events(Parser::server(), &[Piece::Bytes(&bytes)]);
    assert_eq!(seen, ["1 103 14", "1 200 11", "1 data 11 end", "Reset(3)"]);
}

#[test]
fn a_connection_is_recognised_in_its_middle() {
    let ping = frame(6, 0, 0, b"12345678");
    assert!(is_request(&[ping.clone(), frame(1, 5, 9, &get("/a"))].concat()));
    assert!(is_request(&frame(1, 0x2d, 9, &[&[1, 0, 0, 0, 0, 9][..], &get("/a"), b"!"].concat())));
    let others = [
        Vec::new(),
        ping.clone(),
        frame(1, 5, 9, b"\x88"), // an answer
        frame(1, 5, 8, &get("/a")),
        [frame(1, 5, 9, &get("/a")), b"more".to_vec()].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for other in others {
        assert!(!is_request(&other), "{other:x?}");
    }
    assert!(is_server(&frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])) && is_server(&frame(4, 0, 0, b"")));
    assert!(!is_server(&frame(4, 1, 0, b"")) && !is_server(b"HTTP/1.1 200 OK") && !is_server(&ping));
}
