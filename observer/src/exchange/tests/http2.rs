//! Connections that speak HTTP/2.
use super::*;
use crate::protocol::http2::PREFACE;

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A header with index of its name, not to be kept.
fn header(name: u8, value: &str) -> Vec<u8> {
    let name = if name < 15 { vec![name] } else { vec![15, name - 15] };
    [name, vec![u8::try_from(value.len()).unwrap()], value.as_bytes().to_vec()].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(1, WHOLE, stream, &[vec![0x82], header(4, path), header(1, "h")].concat())
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(1, END_HEADERS, stream, &[vec![0x83], header(4, path), header(1, "h")].concat())
}

/// An answer with a body of two bytes.
fn ok(stream: u32) -> Vec<u8> {
    [frame(1, END_HEADERS, stream, b"\x88"), frame(0, END_STREAM, stream, b"ok")].concat()
}

impl Bench {
    fn reads(&mut self, bytes: &[u8]) {
        self.moved(false, WORKER, bytes, 0);
    }

    fn writes(&mut self, bytes: &[u8]) {
        self.moved(true, WORKER, bytes, 0);
    }

    /// One whose client has said its preface, and its server what comes first.
    fn http2() -> Bench {
        let mut bench = Bench::accepted(); // 101
        bench.reads(PREFACE); // 102
        bench.writes(&SETTINGS); // 103
        bench
    }
}

#[test]
fn a_stream_has_its_times_bytes_process_and_headers() {
    let mut bench = Bench::http2();
    let long = |name: &str, value: &str| {
        let len = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, len(name)], name.as_bytes(), &[len(value)], value.as_bytes()].concat()
    };
    let block = [
        vec![0x83, 0x87],
        header(4, "/a?b"),
        header(1, "shop"),
        long("sw8", "1-x"),
        long("sw8-correlation", "c"),
        long("traceparent", "00-y"),
    ]
    .concat();
    let (head, tail) = block.split_at(9);
    bench.moved(false, WORKER, &frame(1, 0, 1, head), 0); // 104
    bench.moved(false, WORKER + 10, &frame(9, END_HEADERS, 1, tail), 0);
    bench.moved(false, WORKER, &frame(0, END_STREAM, 1, &[0; 900])[..40], 869);
    bench.writes(&frame(1, END_HEADERS, 1, b"\x08\x03103")); // 107
    bench.writes(&frame(1, END_HEADERS, 1, b"\x08\x03201")); // 108
    bench.moved(true, WORKER, &frame(0, 0, 1, &[0; 5000])[..100], 4909);
    assert_eq!(bench.seen(), "");
    bench.writes(&frame(1, WHOLE, 1, b"\0\x01t\x01r")); // 110
    let exchange = &bench.found.exchanges[0];
    assert_eq!((exchange.pid, exchange.tid, exchange.status), (WORKER, WORKER + 1, Some(201)));
    assert_eq!((exchange.ready, exchange.start), (Some(KernelTime(103)), KernelTime(104)));
    assert_eq!(exchange.accepted, Some(KernelTime(101)));
    assert_eq!((exchange.first_byte, exchange.end), (Some(KernelTime(108)), KernelTime(110)));
    let bytes = (9 + 9 + block.len() + 9 + 900, 14 + 14 + 9 + 5000 + 9 + 5);
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (bytes.0 as u64, bytes.1 as u64));
    assert_eq!((exchange.method.as_str(), exchange.target.as_str()), ("POST", "/a?b"));
    let headers = [&exchange.host, &exchange.sw8, &exchange.correlation, &exchange.traceparent];
    let headers = headers.map(|header| header.as_deref().unwrap());
    assert_eq!(headers, ["shop", "1-x", "c", "00-y"]);
    assert_eq!(exchange.outcome, Outcome::Complete);
    assert!(matches!(exchange.ends, Ends::Tcp { .. }));
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn streams_end_in_any_order() {
    let mut bench = Bench::http2();
    let asked: Vec<u8> = (0..5).flat_map(|n| get(2 * n + 1, &format!("/{n}"))).collect();
    bench.reads(&asked);
    for stream in [3, 9, 1, 7, 5] {
        bench.writes(&ok(stream)); // from 105 on
    }
    assert_eq!(bench.seen(), "/1 200 105, /4 200 106, /0 200 107, /3 200 108, /2 200 109");
    let turns: Vec<(u32, u32)> = bench.found.turns.iter().map(|turn| (turn.from, turn.to)).collect();
    assert_eq!(turns, [(0, 5), (5, 4), (4, 3), (3, 2), (2, 1), (1, 0)]);
    assert_eq!(bench.drops(), NONE);
}

/// Whoever speaks first, and wherever what they say is cut.
#[test]
fn the_beginning_may_be_in_pieces() {
    let talk = [PREFACE, &SETTINGS, &get(1, "/a")].concat();
    for cut in 0..talk.len() {
        for greeted in [false, true] {
            let mut bench = Bench::accepted();
            let (first, rest) = talk.split_at(cut);
            if cut > 0 {
                bench.reads(first);
            }
            if greeted {
                bench.writes(&SETTINGS);
            }
            bench.reads(rest);
            bench.writes(&ok(1));
            bench.close();
            let exchange = &bench.found.exchanges[0];
            let begins = if cut < PREFACE.len() + SETTINGS.len() + 1 { rest } else { first };
            let read = 102 + u64::from(begins == rest) * (u64::from(cut > 0) + u64::from(greeted));
            assert_eq!((exchange.status, exchange.pid), (Some(200), WORKER), "{cut} {greeted}");
            assert_eq!(exchange.start, KernelTime(read), "{cut} {greeted}");
            assert_eq!(bench.drops(), NONE, "{cut} {greeted}");
        }
    }
}

#[test]
fn what_is_cut_off_is_told() {
    let mut bench = Bench::http2();
    bench.reads(&[post(1, "/a"), get(3, "/b"), post(5, "/c"), get(7, "/d")].concat()); // 104
    bench.reads(&frame(3, 0, 1, &[0; 4])); // 105
    bench.reads(&frame(0, END_STREAM, 1, b"late"));
    bench.writes(&frame(1, END_HEADERS, 3, b"\x88"));
    bench.writes(&frame(3, 0, 3, &[0; 4])); // 108
    bench.writes(&ok(1)); // its client had left
    bench.writes(&ok(5)); // 110
    bench.writes(&frame(3, 0, 5, &[0; 4])); // what it did not read of the body is not wanted
    bench.reads(&frame(3, 0, 5, &[0; 4]));
    bench.close(); // 113
    assert_eq!(bench.seen(), "!/a - 105, !/b 200 108, /c 200 110, !/d - 113");
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn a_process_ends_with_its_streams() {
    let mut bench = Bench::http2();
    bench.reads(&get(1, "/a"));
    bench.moved(false, WORKER + 1, &get(3, "/b"), 0);
    bench.exchanges.exited(WORKER, KernelTime(200), &mut bench.found);
    bench.moved(true, WORKER + 1, &ok(3), 0); // 106
    bench.close();
    assert_eq!(bench.seen(), "!/a - 200, /b 200 106");
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn what_a_server_says_it_will_not_serve_is_counted() {
    let mut bench = Bench::http2();
    bench.reads(&[get(1, "/a"), get(3, "/b"), get(5, "/c")].concat());
    bench.writes(&frame(7, 0, 0, b"\0\0\0\x01\0\0\0\0"));
    bench.writes(&ok(1));
    bench.close();
    assert_eq!(bench.seen(), "/a 200 106");
    assert_eq!(bench.drops(), [("cut", 2)]);
}

/// Where headers may be among what is missing, nothing is told any more.
#[test]
fn a_gap_ends_it() {
    for out in [false, true] {
        let mut bench = Bench::http2();
        bench.reads(&[post(1, "/a"), get(3, "/b")].concat());
        bench.lose(out, 30);
        bench.reads(&frame(0, END_STREAM, 1, b"body"));
        bench.writes(&ok(1));
        bench.writes(&ok(3));
        bench.reads(&get(5, "/c"));
        bench.close();
        assert_eq!((bench.seen().as_str(), bench.drops()), ("", vec![("gap", 2)]), "{out}");
        assert_eq!(bench.found.ignored, [CONN]);
    }
    let mut bench = Bench::http2();
    bench.moved(false, WORKER, &[], 40);
    assert_eq!(bench.drops(), [("gap", 1)]);
    // Part of a body may be lost.
    let mut bench = Bench::http2();
    bench.reads(&post(1, "/a"));
    bench.reads(&frame(0, END_STREAM, 1, &[0; 900])[..300]);
    bench.lose(false, 500);
    bench.reads(&[0; 109]);
    bench.writes(&ok(1));
    assert_eq!((bench.seen().as_str(), bench.drops()), ("/a 200 107", vec![]));
}

#[test]
fn what_is_malformed_is_counted() {
    let mut bench = Bench::http2();
    bench.reads(&get(1, "/a"));
    bench.reads(b"GET / HTTP/1.1\r\n\r\n");
    bench.close();
    assert_eq!((bench.seen().as_str(), bench.drops()), ("", vec![("gap", 1), ("http2", 1)]));
    let mut bench = Bench::http2();
    bench.reads(&frame(1, WHOLE, 1, b"\x86")); // neither method nor target
    bench.reads(&get(3, "/b"));
    bench.writes(&ok(3));
    bench.writes(&ok(5)); // nobody asked for that
    assert_eq!(bench.seen(), "/b 200 106");
    assert_eq!(bench.drops(), [("not_http", 1), ("response_without_request", 1)]);
}

#[test]
fn an_upgrade_is_the_first_stream() {
    let mut bench = Bench::accepted();
    let ask = "GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    bench.read(ask); // 102
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    bench.write(agreed);
    bench.writes(&SETTINGS);
    bench.reads(&[PREFACE, &SETTINGS].concat());
    bench.writes(&ok(1)); // 106
    bench.reads(&get(3, "/next"));
    bench.writes(&ok(3)); // 108
    assert_eq!(bench.seen(), "/up 200 106, /next 200 108");
    let exchange = &bench.found.exchanges[0];
    assert_eq!((exchange.start, exchange.first_byte), (KernelTime(102), Some(KernelTime(106))));
    let bytes = (ask.len() as u64, (agreed.len() + ok(1).len()) as u64);
    assert_eq!((exchange.request_bytes, exchange.response_bytes), bytes);
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn a_tunnel_has_its_host_as_target() {
    let mut bench = Bench::http2();
    bench.reads(&frame(1, END_HEADERS, 1, &[header(2, "CONNECT"), header(1, "db:5432")].concat()));
    bench.reads(&frame(0, 0, 1, b"bytes"));
    bench.writes(&ok(1));
    assert_eq!(bench.seen(), "db:5432 200 106");
    assert_eq!(bench.found.exchanges[0].method, "CONNECT");
}

#[test]
fn one_that_was_there_before_is_counted() {
    let mut bench = Bench::new();
    bench.reads(&get(7, "/a"));
    bench.reads(&get(9, "/b"));
    bench.close();
    assert_eq!((bench.seen().as_str(), bench.drops()), ("", vec![("http2", 1)]));
    assert_eq!(bench.found.ignored, [CONN]);
    // Nothing had been said on it.
    let mut bench = Bench::new();
    bench.reads(PREFACE);
    bench.writes(&SETTINGS);
    bench.reads(&get(1, "/a"));
    bench.writes(&ok(1));
    assert_eq!((bench.seen().as_str(), bench.drops()), ("/a 200 104", vec![]));
    // The worker asks somebody else.
    let mut bench = Bench::new();
    bench.writes(&get(7, "/a"));
    bench.reads(&ok(7));
    assert_eq!((bench.drops(), bench.found.ignored.len()), (vec![], 1));
}

/// What a connection holds is bounded, and given back.
#[test]
fn floods_are_bounded() {
    let mut bench = Bench::http2();
    for n in 0..1_100 {
        bench.reads(&post(2 * n + 1, "/a"));
    }
    assert_eq!(bench.drops(), [("pipeline_too_deep", 1_100 - 1_024)]);
    assert!(bench.exchanges.room.taken() > 100_000);
    bench.reads(&frame(1, 0, 9_001, &[0; 16_384]));
    for _ in 0..4 {
        bench.reads(&frame(9, 0, 9_001, &[0; 16_384]));
    }
    assert!(bench.drops().contains(&("head_too_large", 1)), "{:?}", bench.drops());
    assert_eq!(bench.exchanges.room.taken(), 0);
    let mut bench = Bench::http2();
    bench.reads(&[0x82; 9]);
    bench.close();
    assert_eq!(bench.exchanges.room.taken(), 0);
}
