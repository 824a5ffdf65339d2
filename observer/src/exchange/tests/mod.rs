//! Conversations on connections, by hand.
mod chance;
mod http2;
mod room;
mod session;

use super::*;
use observer_ebpf::record::Header;

const WORKER: u32 = 7;
const CONN: Conn = Conn { sock: 1, born: 1 };

/// A table fed by hand; its clock ticks once per record.
struct Bench {
    exchanges: Exchanges,
    found: Findings,
    now: u64,
    offsets: [u64; 2],
}

impl Bench {
    fn new() -> Bench {
        Bench { exchanges: Exchanges::new(8), found: Findings::default(), now: 100, offsets: [0, 0] }
    }

    fn accepted() -> Bench {
        let mut bench = Bench::new();
        bench.open(CONN, 1);
        bench
    }

    fn header(&mut self, pid: u32) -> Header {
        self.now += 1;
        Header { at: self.now, tgid: pid, tid: pid + 1, kind: 0, zero: 0, len: 0 }
    }

    fn open(&mut self, conn: Conn, accepted: u16) {
        let mut address = [0; 16]; // IPv4 inside IPv6
        address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 9]);
        let opened = Opened {
            header: self.header(WORKER),
            conn,
            ready: 0,
            family: AF_INET6,
            accepted,
            local_port: 8000,
            peer_port: 4000,
            local: address,
            peer: address,
            netns: 0,
            zero: 0,
        };
        self.exchanges.opened(&opened, &mut self.found);
    }

    fn moved(&mut self, out: bool, pid: u32, bytes: &[u8], hole: u32) {
        let header = self.header(pid);
        let size = u32::try_from(bytes.len()).unwrap() + hole;
        let offset = self.offsets[usize::from(out)];
        let ready = if out { 0 } else { header.at - 1 };
        let moved = Moved { header, conn: CONN, offset, ready, size, flags: 0 };
        self.offsets[usize::from(out)] += u64::from(size);
        if out {
            self.exchanges.sent(&moved, bytes, &mut self.found);
        } else {
            self.exchanges.received(&moved, bytes, &mut self.found);
        }
    }

    fn read(&mut self, bytes: &str) {
        self.moved(false, WORKER, bytes.as_bytes(), 0);
    }

    fn write(&mut self, bytes: &str) {
        self.moved(true, WORKER, bytes.as_bytes(), 0);
    }

    /// Records of so many bytes that the ring lost.
    fn lose(&mut self, out: bool, bytes: u64) {
        self.offsets[usize::from(out)] += bytes;
    }

    fn close(&mut self) {
        let closed = Closed { header: self.header(WORKER), conn: CONN };
        self.exchanges.closed(&closed, &mut self.found);
    }

    /// `target status end` of every exchange so far; `!` marks those that were cut.
    fn seen(&self) -> String {
        let show = |exchange: &Exchange| {
            let cut = if exchange.outcome == Outcome::Cut { "!" } else { "" };
            let status = exchange.status.map_or("-".to_owned(), |status| status.to_string());
            format!("{cut}{} {status} {}", exchange.target, exchange.end.0)
        };
        self.found.exchanges.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.found.drops.named().collect()
    }
}

const NONE: [(&str, u64); 0] = [];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const STREAMED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn an_exchange_has_its_times_bytes_and_process() {
    let mut bench = Bench::accepted();
    bench.moved(false, WORKER, b"POST /a HTTP/1.1\r\n", 0); // 102
    bench.moved(false, WORKER + 10, b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n", 0);
    bench.write("HTTP/1.1 100 Continue\r\n\r\n");
    bench.read("body");
    bench.write("HTTP/1.1 201 OK\r\nContent-Le"); // 106
    bench.moved(true, WORKER + 10, b"ngth: 4\r\n\r\nab", 0);
    bench.write("cd"); // 108
    let exchange = &bench.found.exchanges[0];
    assert_eq!((exchange.pid, exchange.tid, exchange.status), (WORKER, WORKER + 1, Some(201)));
    assert_eq!((exchange.ready, exchange.start), (Some(KernelTime(101)), KernelTime(102)));
    assert_eq!(exchange.accepted, Some(KernelTime(101)));
    assert_eq!((exchange.first_byte, exchange.end), (Some(KernelTime(106)), KernelTime(108)));
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (65, 67));
    assert_eq!(exchange.outcome, Outcome::Complete);
    let Ends::Tcp { local, peer } = &exchange.ends else { panic!("no addresses") };
    assert_eq!((local.to_string(), peer.to_string()), ("10.0.0.9:8000".into(), "10.0.0.9:4000".into()));
    assert_eq!(bench.drops(), NONE);
    bench.read(&get("/b"));
    bench.write(OK);
    assert_eq!(bench.found.exchanges[1].accepted, None);
}

/// `from>to` of every turn so far, with what the last request had waited.
fn turns(bench: &mut Bench) -> String {
    let turns = std::mem::take(&mut bench.found.turns);
    let waited = |turn: &Turn| turn.waited.map_or(String::new(), |ns| format!(" after {ns}"));
    turns
        .iter()
        .map(|turn| format!("{}>{}{}", turn.from, turn.to, waited(turn)))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn requests_in_flight_are_counted_up_and_down() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.read(&get("/b"));
    assert_eq!(turns(&mut bench), "0>1 after 1, 1>2 after 1");
    bench.write(OK);
    bench.write(OK);
    bench.read("GET /c HTTP/1.1\r\n");
    assert_eq!(turns(&mut bench), "2>1, 1>0");
    bench.read("Host: h\r\n\r\n");
    bench.close();
    assert_eq!(turns(&mut bench), "0>1 after 1, 1>0");
    let mut bench = Bench::accepted();
    bench.moved(false, WORKER, get("/a").as_bytes(), 0);
    bench.exchanges.exited(WORKER, KernelTime(200), &mut bench.found);
    assert_eq!(
        bench.found.turns.last().map(|turn| (turn.pid, turn.at, turn.to)),
        Some((WORKER, KernelTime(200), 0))
    );
    turns(&mut bench);
    bench.write(OK);
    bench.close();
    assert_eq!(turns(&mut bench), "");
    // One that goes over to another protocol is no request any more.
    let mut bench = Bench::accepted();
    bench.read(&get("/ws"));
    bench.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    assert_eq!(turns(&mut bench), "0>1 after 1, 1>0");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut bench = Bench::accepted();
    bench.read(&format!("{}HEAD /b HTTP/1.1\r\n\r\n{}", get("/a"), &get("/c")[..9])); // 102
    bench.read(&get("/c")[9..]);
    bench.write(OK); // 104
    bench.write(&format!("HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n{OK}")); // 105
    assert_eq!(bench.seen(), "/a 200 104, /b 404 105, /c 200 105");
    assert_eq!(bench.found.exchanges[2].start, KernelTime(102));
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn a_response_before_the_end_of_its_request_is_its_own() {
    let mut bench = Bench::accepted();
    bench.read("POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nab");
    bench.write(OK); // 103
    bench.read(&format!("cdef{}", get("/b")));
    bench.write(OK); // 105
    assert_eq!(bench.seen(), "/a 200 103, /b 200 105");
    assert_eq!(bench.found.exchanges[1].request_bytes, get("/b").len() as u64);
}

#[test]
fn a_response_without_length_ends_with_its_last_write() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.write("HTTP/1.0 200 OK\r\n\r\n");
    bench.write("HTTP/1.1 200 no head"); // 104
    bench.close();
    assert_eq!(bench.seen(), "/a 200 104");
    assert_eq!(bench.drops(), NONE);
    assert!(bench.found.ignored.is_empty());
}

#[test]
fn what_is_open_at_the_end_is_cut() {
    let mut bench = Bench::accepted();
    bench.read(&format!("{}{}", get("/a"), get("/b")));
    bench.write(&OK[..OK.len() - 1]);
    bench.close(); // 104
    assert_eq!(bench.seen(), "!/a 200 104, !/b - 104");
    assert!(bench.drops().is_empty());
}

#[test]
fn requests_after_a_response_that_closes_were_not_served() {
    let mut bench = Bench::accepted();
    bench.read(&format!("{}{}", get("/a"), get("/b")));
    bench.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); // 103
    bench.close();
    assert_eq!(bench.seen(), "/a 200 103");
    assert_eq!(bench.drops(), [("cut", 1)]);
    assert!(bench.found.ignored.is_empty());
}

#[test]
fn a_process_takes_its_open_exchanges_with_it() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.moved(false, WORKER + 1, get("/b").as_bytes(), 0);
    bench.exchanges.exited(WORKER, KernelTime(500), &mut bench.found);
    assert_eq!(bench.seen(), "!/a - 500");
    bench.write(OK);
    bench.write(OK); // 105
    bench.exchanges.exited(WORKER, KernelTime(600), &mut bench.found);
    assert_eq!(bench.seen(), "!/a - 500, /b 200 105");
    assert!(bench.drops().is_empty());
}

#[test]
fn a_socket_born_again_cuts_what_was_open() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.open(Conn { sock: 1, born: 300 }, 1);
    assert_eq!(bench.seen(), "!/a - 300");
    bench.write(OK);
    bench.open(CONN, 1);
    assert_eq!((bench.exchanges.connections(), bench.drops()), (1, vec![("gap", 1)]));
}

#[test]
fn garbage_is_given_up_after_what_waits() {
    let mut bench = Bench::accepted();
    bench.read(&format!("{}\0\0", get("/a")));
    assert!(bench.found.ignored.is_empty());
    bench.write(OK); // 103
    assert_eq!((bench.seen(), bench.found.ignored.as_slice()), ("/a 200 103".into(), &[CONN][..]));
    bench.write("HTTP/1.1 400 Bad\r\n\r\n");
    bench.read(&get("/b"));
    assert_eq!(bench.drops(), [("not_http", 1)]);
    assert_eq!((bench.found.ignored.len(), bench.found.exchanges.len()), (1, 1));
}

#[test]
fn a_response_nobody_asked_for_is_nobodys() {
    let mut bench = Bench::accepted();
    bench.write("HTTP/1.1 408 Slow\r\nContent-Length: 1\r\n\r\n");
    bench.read(&get("/a"));
    bench.write("x");
    bench.write(OK); // 105
    assert_eq!(bench.seen(), "/a 200 105");
    assert_eq!(bench.drops(), [("response_without_request", 1)]);
}

#[test]
fn an_upgrade_ends_the_exchange_and_the_interest() {
    let mut bench = Bench::accepted();
    bench.read(&get("/ws"));
    bench.write("HTTP/1.1 101 Switching\r\nUpgrade: something\r\n\r\n\u{1}\u{2}"); // 103
    assert_eq!((bench.seen(), bench.found.ignored.as_slice()), ("/ws 101 103".into(), &[CONN][..]));
    assert_eq!(bench.drops(), [("upgraded", 1)]);
}

#[test]
fn a_websocket_is_counted_and_not_read() {
    let mut bench = Bench::accepted();
    bench.read(&get("/ws"));
    let handshake = "HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\n\r\n";
    bench.moved(true, WORKER, format!("{handshake}GET").as_bytes(), 2); // 103: a frame goes with it
    bench.read(&get("/a"));
    bench.lose(false, 7);
    bench.moved(false, WORKER, b"", 3);
    bench.moved(true, WORKER + 1, b"", 9); // an app child's
    bench.close();
    assert_eq!((bench.seen(), bench.drops()), ("/ws 101 103".into(), NONE.to_vec()));
    assert_eq!((bench.found.ignored.len(), bench.found.counted.as_slice()), (0, &[CONN][..]));
    let carried: Vec<_> = bench.found.carried.iter().map(|c| (c.pid, c.received, c.sent)).collect();
    let asked = get("/a").len() as u64;
    assert_eq!(carried, [(WORKER, 0, 5), (WORKER, asked, 0), (WORKER, 10, 0), (WORKER + 1, 0, 9)]);
}

#[test]
fn a_refused_tunnel_stays_http() {
    let mut bench = Bench::accepted();
    bench.read("CONNECT h:1 HTTP/1.1\r\n\r\n");
    bench.write("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n"); // 103
    bench.read(&get("/a"));
    bench.write(OK); // 105
    assert_eq!(bench.seen(), "h:1 405 103, /a 200 105");
}

#[test]
fn a_pipeline_has_a_limit() {
    let mut bench = Bench::accepted();
    bench.read(&get("/").repeat(130));
    bench.write(&OK.repeat(130));
    assert_eq!((bench.found.exchanges.len(), bench.found.ignored.as_slice()), (128, &[CONN][..]));
    assert_eq!(bench.drops(), [("response_without_request", 2), ("pipeline_too_deep", 1)]);
}

#[test]
fn a_connection_joined_late_waits_for_a_request() {
    let mut bench = Bench::new();
    bench.read("rest of a body\r\nGET /no HTTP/1.1\r\n\r\n");
    bench.write("rest of a response");
    bench.write(OK);
    bench.read(&get("/a"));
    bench.write("rest\r\n");
    bench.write(OK); // 106
    assert_eq!(bench.seen(), "/a 200 106");
    assert_eq!(bench.found.exchanges[0].ends, Ends::Unknown);
    assert_eq!((bench.drops(), bench.found.ignored.len()), (NONE.to_vec(), 0));
}

#[test]
fn a_connection_of_a_client_is_ignored() {
    let mut bench = Bench::new();
    bench.open(CONN, 0);
    bench.write(&get("/out"));
    bench.read(OK);
    assert_eq!((bench.seen(), bench.found.ignored.as_slice()), (String::new(), &[CONN][..]));
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn the_longest_idle_connection_is_let_go_and_counted() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    for sock in 2..10 {
        bench.open(Conn { sock, born: 1 }, 1);
    }
    assert_eq!((bench.exchanges.connections(), bench.drops()), (8, vec![("connections_full", 1)]));
}

#[test]
fn lost_records_inside_a_body_shift_nothing() {
    let mut bench = Bench::accepted();
    bench.read("POST /a HTTP/1.1\r\nContent-Length: 9000\r\n\r\n");
    bench.lose(false, 5000);
    bench.moved(false, WORKER, b"x", 3999);
    bench.write("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"); // 104
    bench.lose(true, 9000);
    bench.read(&get("/b"));
    bench.write(OK); // 106
    assert_eq!(bench.seen(), "/a 200 104, /b 200 106");
    assert_eq!(bench.found.exchanges[0].response_bytes, 9041);
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn lost_heads_are_counted_and_the_next_request_pairs_again() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.lose(true, OK.len() as u64 + 7); // its response
    bench.lose(false, 40); // and a request
    bench.read(&get("/c"));
    bench.write(OK); // 104
    bench.read(&get("/d"));
    bench.write(OK); // 106
    assert_eq!(bench.seen(), "/c 200 104, /d 200 106");
    assert_eq!(bench.drops(), [("gap", 2)]);
}

#[test]
fn a_lost_response_costs_its_own_exchange_only() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.lose(true, OK.len() as u64);
    bench.read(&get("/b"));
    bench.write(OK); // 104
    bench.read(&get("/c"));
    bench.lose(true, 20);
    bench.write(&OK[20..]);
    bench.read(&get("/d"));
    bench.write(OK); // 108
    assert_eq!(bench.seen(), "/b 200 104, /d 200 108");
    assert_eq!(bench.drops(), [("gap", 4)]); // each response, and each request without one
}

#[test]
fn a_pair_that_a_lost_request_could_have_shifted_is_not_told() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.lose(true, OK.len() as u64);
    bench.lose(false, get("/b").len() as u64);
    bench.write(OK); // it answers /b
    bench.read(&get("/c"));
    bench.write(OK); // 105
    assert_eq!(bench.seen(), "/c 200 105");
    assert_eq!(bench.drops(), [("gap", 3)]); // a response, a request, and the pair in doubt
}

#[test]
fn a_response_whose_framing_was_lost_ends_with_its_last_write() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.moved(true, WORKER, format!("{STREAMED}1\r\nx\r\n").as_bytes(), 9); // 103
    bench.read(&get("/b"));
    bench.moved(true, WORKER, format!("{STREAMED}1\r\nx\r\n").as_bytes(), 9); // 105
    bench.close();
    assert_eq!(bench.seen(), "/a 200 103, /b 200 105");
    assert!(bench.drops().is_empty());
}

#[test]
fn a_head_that_was_not_copied_whole_still_has_its_status() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.moved(true, WORKER, b"HTTP/1.1 503 Busy\r\nSet-Cookie: ", 5000);
    bench.write("more"); // 104
    bench.read(&get("/b"));
    bench.write(OK); // 106
    assert_eq!((bench.seen(), bench.drops().len()), ("/a 503 104, /b 200 106".into(), 0));
}

#[test]
fn a_chunk_whose_end_was_not_copied_is_followed() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a"));
    bench.write(STREAMED);
    bench.moved(true, WORKER, b"1000\r\nabc", 4096 - 3 + 2);
    bench.write("0\r\n\r\n"); // 105
    assert_eq!((bench.seen(), bench.drops()), ("/a 200 105".into(), NONE.to_vec()));
}

#[test]
fn a_pipeline_that_lost_its_order_is_given_up() {
    let mut bench = Bench::accepted();
    bench.read(&get("/a").repeat(3));
    bench.lose(true, 3);
    bench.write(&OK[3..]);
    bench.write(OK);
    assert_eq!((bench.seen(), bench.found.ignored.as_slice()), (String::new(), &[CONN][..]));
    assert_eq!(bench.drops(), [("gap", 4)]); // a response, and the three requests
}

#[test]
fn a_panic_is_caught() {
    assert_eq!(guarded(|| 1), Some(1));
    assert_eq!(guarded(|| -> u8 { panic!("as a parser would") }), None);
}
