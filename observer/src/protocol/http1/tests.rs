//! Both parsers, by hand and by chance.
use super::head::Side;
use super::*;
use proptest::prelude::*;

/// Events of pieces that all belong to one read or write.
fn run<S: Side>(parser: &mut Parser<S>, context: S::Context, pieces: &[Piece<'_>]) -> Vec<Event<S::Head>> {
    parser.begin_op();
    let mut events = Vec::new();
    for piece in pieces {
        let mut piece = *piece;
        while let Some(event) = parser.step(&mut piece, context) {
            events.push(event);
        }
        assert!(piece.is_empty());
    }
    events
}

fn requests(bytes: &[u8]) -> Vec<Event<RequestHead>> {
    run(&mut Parser::<Request>::from_start(), (), &[Piece::Bytes(bytes)])
}

fn responses(asked: Asked, bytes: &[u8]) -> Vec<Event<ResponseHead>> {
    run(&mut Parser::<Response>::from_start(), asked, &[Piece::Bytes(bytes)])
}

/// Targets of the requests that were read to their end, and what went wrong.
fn targets(bytes: &[u8]) -> String {
    let mut seen = Vec::new();
    for event in requests(bytes) {
        match event {
            Event::Began => {}
            Event::Proxied(client) => seen.push(format!("{client:?}")),
            Event::Head(head) => seen.push(head.target.into()),
            Event::Ended => seen.push(".".into()),
            Event::Failed(fault) => seen.push(format!("{fault:?}")),
        }
    }
    seen.join(" ")
}

fn statuses(asked: Asked, bytes: &[u8]) -> String {
    let mut seen = Vec::new();
    for event in responses(asked, bytes) {
        match event {
            Event::Began | Event::Proxied(_) => {}
            Event::Head(head) => seen.push(head.status.to_string()),
            Event::Ended => seen.push(".".into()),
            Event::Failed(fault) => seen.push(format!("{fault:?}")),
        }
    }
    seen.join(" ")
}

#[test]
fn a_request_head_gives_what_spans_need() {
    let bytes =
        b"PUT /a?b HTTP/1.1\r\nhOST: h:1\r\nSW8: x\r\nsw8: y\r\nSw8-Correlation: c\r\nTraceParent: z\r\nOther: \xff\r\n\r\n";
    let head = RequestHead {
        method: "PUT".into(),
        target: "/a?b".into(),
        host: Some("h:1".into()),
        sw8: Some("x".into()),
        correlation: Some("c".into()),
        traceparent: Some("z".into()),
    };
    assert_eq!(requests(bytes), [Event::Began, Event::Head(head), Event::Ended]);
}

#[test]
fn requests_follow_one_another() {
    assert_eq!(
        targets(b"GET /1 HTTP/1.1\r\n\r\n\r\n\r\nGET /2 HTTP/1.0\n\nGET * HTTP/1.1\r\n\r\n"),
        "/1 . /2 . * ."
    );
    assert_eq!(
        targets(b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n"),
        "/1 . /2 ."
    );
    let chunked = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
        3;a=b\r\nabc\r\n0A \r\n0123456789\r\n0\r\nX: y\r\n\r\nGET http://h/2 HTTP/1.1\r\n\r\n";
    assert_eq!(targets(chunked), "/1 . http://h/2 .");
}

#[test]
fn a_line_of_a_proxy_comes_first_only() {
    let named = "Some(1.1.1.1:3) /1 .";
    assert_eq!(targets(b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\nGET /1 HTTP/1.1\r\n\r\n"), named);
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x01\x01\x01\x02\x02\x02\x02\0\x03\0\x04";
    let request = b"GET /1 HTTP/1.1\r\n\r\n";
    assert_eq!(targets(&[header, &request[..]].concat()), named);
    assert_eq!(targets(&[request, &header[..]].concat()), "/1 . NotHttp");
    assert_eq!(targets(&[b"\r\n\r\n\r\n", &request[..]].concat()), "/1 .");
    assert_eq!(targets(b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0"), "NotHttp");
    assert_eq!(targets(b"GET /1 HTTP/1.1\r\n\r\nPROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n"), "/1 . NotHttp");
}

#[test]
fn other_protocols_are_recognised() {
    assert_eq!(targets(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "Http2");
    assert_eq!(targets(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), "Tls");
    assert_eq!(targets(b"\x00\x8c\x01\x00\x0e\x00REQUEST_METHOD"), "Uwsgi");
    assert_eq!(targets(b"GET /1 HTTP/1.1\r\n\r\n\x16\x03\x01"), "/1 . NotHttp");
    assert_eq!(
        targets(b"GET /1\r\nHost: a\r\n\r\nGET /2 HTTP/0.9\r\n\r\nGET /3 HTTP/2.0\r\n\r\n"),
        "/1 . /2 . /3 ."
    );
    assert_eq!(targets(b"hello\r\n"), "NotHttp");
    assert_eq!(targets(b"GET 1\r\n"), "NotHttp");
    assert_eq!(targets(b"GET /1 2\r\n"), "NotHttp");
    assert_eq!(targets(b"GET /1 HTTP/3.0\r\n\r\n"), "NotHttp");
    assert_eq!(targets(b"GET  HTTP/1.1\r\n\r\n"), "NotHttp");
    assert_eq!(targets(b"CONNECT h:443 HTTP/1.1\r\n\r\n\x16\x03\x01"), "h:443 .");
}

#[test]
fn contradictory_framing_ends_what_is_known() {
    let with = |headers: &str| targets(format!("POST /1 HTTP/1.1\r\n{headers}\r\n\r\nabcd").as_bytes());
    assert_eq!(with("Content-Length: 4\r\nContent-Length: 4"), "/1 .");
    assert_eq!(with("Content-Length: 4, 4"), "/1 .");
    assert_eq!(with("Content-Length: 4\r\nContent-Length: 5"), "/1 Gap");
    assert_eq!(with("Content-Length: +4"), "/1 Gap");
    assert_eq!(with("Content-Length: 99999999999999999999"), "/1 Gap");
    assert_eq!(with("Content-Length:"), "/1 Gap");
    assert_eq!(with("Transfer-Encoding: chunked, x"), "/1 Gap");
    assert_eq!(with("Content-Length: 4\r\nTransfer-Encoding: chunked"), "/1"); // chunks count: "abcd" begins a size
    assert_eq!(with("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), "/1 Gap");
    assert_eq!(with("Transfer-Encoding: chunked\r\n\r\n\r\n"), "/1 Gap");
    assert_eq!(with("Transfer-Encoding: chunked\r\n\r\n-1\r\n"), "/1 Gap");
    assert_eq!(with("Content-Length: 4\r\n 4"), "/1 Gap");
    assert_eq!(with("Bad\0Name: x\r\nContent-Length : 4"), "/1 Gap");
}

/// Some servers take what others refuse, and go on behind it.
#[test]
fn odd_headers_hide_no_others() {
    let read = |headers: &str| {
        let bytes =
            format!("POST /1 HTTP/1.1\r\n{headers}\r\nHost: h\r\nSw8: x\r\nContent-Length: 4\r\n\r\nabcd");
        let head = requests(bytes.as_bytes()).into_iter().find_map(|event| match event {
            Event::Head(head) => Some(head),
            Event::Proxied(_) | Event::Began | Event::Ended | Event::Failed(_) => None,
        });
        let head = head.unwrap();
        (targets([bytes.as_bytes(), b"GET /2 HTTP/1.1\r\n\r\n"].concat().as_slice()), head.host, head.sw8)
    };
    let wanted = ("/1 . /2 .".to_owned(), Some("h".into()), Some("x".into()));
    for odd in [
        "A: b\r\n  folded\r\n\tmore",
        "A: b\x01c",
        "A\0: b",
        "No colon",
        ": no name",
        "A : b",
        "Transfer-Encoding: identity",
    ] {
        assert_eq!(read(odd), wanted, "{odd:?}");
    }
    assert_eq!(read(&vec!["A: b"; 300].join("\r\n")), wanted);
}

#[test]
fn odd_targets_show_lossily() {
    assert_eq!(targets(b"GET /\xff\x01\x7f HTTP/1.1\r\n\r\n"), "/\u{fffd}\u{fffd}\u{fffd} .");
    assert_eq!(targets("GET /ä b HTTP/1.1\r\n\r\n".as_bytes()), "/ä b .");
}

#[test]
fn of_a_long_text_the_beginning_is_kept() {
    let line = format!("GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(20_000), "h".repeat(20_000));
    let events = requests(line.as_bytes());
    let [_, Event::Head(RequestHead { target, host: Some(host), .. }), Event::Ended] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((target.len(), host.len()), (8_190, 8_190));
}

#[test]
fn a_head_has_a_limit() {
    let mut bytes = b"GET /1 HTTP/1.1\r\nX: ".to_vec();
    bytes.resize(HEAD_LIMIT - 4, b'x');
    bytes.extend_from_slice(b"\r\n\r\n");
    assert_eq!(targets(&bytes), "/1 .");
    bytes.insert(20, b'x');
    assert_eq!(targets(&bytes), "HeadTooLarge");
}

#[test]
fn responses_end_by_their_framing() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let two =
        |first: &str| statuses(Asked::Other, format!("{first}{ok}Content-Length: 0\r\n\r\n").as_bytes());
    assert_eq!(two("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), "204 . 200 .");
    assert_eq!(two("HTTP/1.1 304\r\n\r\n"), "304 . 200 .");
    assert_eq!(two("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"), "100 103 200 .");
    assert_eq!(two(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")), "200 . 200 .");
    assert_eq!(two(&format!("{ok}Content-Length: 2\r\n\r\nxy")), "200 . 200 .");
    assert_eq!(two(&format!("{ok}\r\n")), "200");
    assert_eq!(two("nonsense\r\n"), "Gap");
    assert_eq!(two("HTTP/1.1 099 No\r\n\r\n"), "Gap");
    assert_eq!(statuses(Asked::Head, format!("{ok}Content-Length: 9\r\n\r\n").as_bytes()), "200 .");
    assert_eq!(statuses(Asked::Connect, format!("{ok}\r\nxx").as_bytes()), "200 Upgraded");
    let switched = |to: &str| statuses(Asked::Other, format!("HTTP/1.1 101 Go\r\n{to}\r\n\u{1}").as_bytes());
    assert_eq!(switched("upgrade:  WebSocket \r\n"), "101 WebSocket");
    assert_eq!([switched("Upgrade: x\r\n"), switched("")], ["101 Upgraded", "101 Upgraded"]);
}

#[test]
fn a_response_says_whether_it_is_the_last() {
    let last = |bytes: &[u8]| match responses(Asked::Other, bytes).as_slice() {
        [_, Event::Head(head), ..] => head.last,
        _ => panic!("no head"),
    };
    assert!(last(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n"));
    assert!(!last(b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(last(b"HTTP/1.0 200 OK\r\n\r\n"));
    assert!(!last(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn holes_are_skipped_where_a_length_is_known() {
    let mut parser = Parser::<Request>::from_start();
    let head = b"POST /1 HTTP/1.1\r\nContent-Length: 10\r\n\r\nab";
    let events = run(&mut parser, (), &[Piece::Bytes(head), Piece::Hole(8)]);
    assert_eq!(events.last(), Some(&Event::Ended));
    // The line end after a chunk's data says nothing; a chunk's size does.
    let head = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc";
    let events = run(
        &mut parser,
        (),
        &[Piece::Bytes(head), Piece::Hole(8), Piece::Hole(1), Piece::Bytes(b"0\r\n\r\n")],
    );
    assert_eq!(events.last(), Some(&Event::Ended));
    let events = run(&mut parser, (), &[Piece::Bytes(head), Piece::Hole(10)]);
    assert_eq!(events.last(), Some(&Event::Failed(Fault::Gap)));
}

#[test]
fn a_status_is_told_without_its_headers() {
    let run = |bytes: &[u8]| {
        run(&mut Parser::<Response>::from_start(), Asked::Other, &[Piece::Bytes(bytes), Piece::Hole(9)])
    };
    let head = Event::Head(ResponseHead { status: 500, phrase: Phrase::of(b"Oh"), last: false });
    assert_eq!(run(b"HTTP/1.1 500 Oh\r\nX: "), [Event::Began, head, Event::Failed(Fault::Gap)]);
    assert_eq!(run(b"HTTP/1.1 500 Oh"), [Event::Began, Event::Failed(Fault::Gap)]);
    assert_eq!(run(b"HTTP/1.1 100 Go\r\n"), [Event::Began, Event::Failed(Fault::Gap)]);
}

#[test]
fn a_lost_parser_goes_on_only_at_the_start_of_an_op() {
    let request = b"GET /1 HTTP/1.1\r\n\r\n";
    let mut parser = Parser::<Request>::from_start();
    assert_eq!(
        run(&mut parser, (), &[Piece::Bytes(b"GET "), Piece::Hole(1)]).last(),
        Some(&Event::Failed(Fault::Gap))
    );
    assert_eq!(run(&mut parser, (), &[Piece::Hole(2), Piece::Bytes(request)]), []);
    assert_eq!(run(&mut parser, (), &[Piece::Bytes(b"\r\n"), Piece::Bytes(request)]), []);
    assert_eq!(run(&mut parser, (), &[Piece::Bytes(b"GET /1 HT")]), []);
    assert_eq!(run(&mut parser, (), &[Piece::Bytes(request)]).len(), 3);
    let mut parser = Parser::<Response>::from_middle();
    assert_eq!(run(&mut parser, Asked::Other, &[Piece::Bytes(b"HTTP/1.1 200")]), []);
    assert_eq!(run(&mut parser, Asked::Other, &[Piece::Bytes(b"HTTP/1.1 204 x\r\n\r\n")]).len(), 3);
}

/// Bytes that look like HTTP more often than chance would have it.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 x\r\n", b"HTTP/1.1 100 x\r\n", b"\r\n", b"\n",
            b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"PROXY x\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"\x21\x11\0\x0c", b"\x16\x03",
            b"CONNECT h:1 HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"Content-Length: -1\r\n", b"ffffffffffffffff\r\n", b"\0",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// `bytes` cut at some of its places.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<Piece<'a>> {
    let mut at: Vec<usize> = cuts.iter().map(|index| index.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Piece::Bytes(&bytes[pair[0]..pair[1]])).collect()
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(bytes in hostile(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9)) {
        let pieces = cut(&bytes, &cuts);
        prop_assert_eq!(run(&mut Parser::<Request>::from_start(), (), &pieces), requests(&bytes));
        for asked in [Asked::Head, Asked::Connect, Asked::Other] {
            prop_assert_eq!(run(&mut Parser::<Response>::from_start(), asked, &pieces), responses(asked, &bytes));
        }
    }

    #[test]
    fn nothing_makes_a_parser_panic_or_loop(ops in prop::collection::vec((hostile(), 0u64..9), 0..6)) {
        let mut request = Parser::<Request>::from_start();
        let mut response = Parser::<Response>::from_start();
        for (bytes, hole) in &ops {
            let pieces = [Piece::Bytes(bytes), Piece::Hole(*hole)];
            // An event takes a byte, or is one of the two or three that a byte can cause.
            prop_assert!(run(&mut request, (), &pieces).len() <= 3 * bytes.len() + 3);
            prop_assert!(run(&mut response, Asked::Other, &pieces).len() <= 3 * bytes.len() + 3);
            prop_assert!(request.head.len() <= HEAD_LIMIT && response.head.len() <= HEAD_LIMIT);
        }
    }
}
