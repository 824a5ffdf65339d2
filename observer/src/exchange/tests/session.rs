//! Connections whose bytes are those of a TLS session.
use super::*;

/// A record of a session's bytes.
fn session(bench: &mut Bench, out: bool, offset: u64, bytes: &str) {
    let header = bench.header(WORKER);
    let size = u32::try_from(bytes.len()).unwrap();
    let moved = Moved { header, conn: CONN, offset, ready: 0, size, flags: moved::PLAIN };
    match out {
        true => bench.exchanges.sent(&moved, bytes.as_bytes(), &mut bench.found),
        false => bench.exchanges.received(&moved, bytes.as_bytes(), &mut bench.found),
    }
}

#[test]
fn a_session_takes_the_place_of_encrypted_bytes() {
    let mut bench = Bench::accepted();
    bench.read("\x16\x03\x01\x02");
    session(&mut bench, false, 0, "");
    let request = get("/a");
    session(&mut bench, false, 0, &request);
    session(&mut bench, true, 0, OK);
    bench.write("what is left of the encrypted bytes");
    session(&mut bench, false, request.len() as u64, &request);
    session(&mut bench, true, OK.len() as u64, OK);
    bench.close();
    assert_eq!(bench.seen(), "/a 200 105, /a 200 108");
    assert!(bench.found.exchanges.iter().all(|exchange| exchange.encrypted));
    assert_eq!(bench.found.exchanges[0].accepted, Some(KernelTime(101)));
    assert_eq!(bench.drops(), NONE);
}

#[test]
fn an_encrypted_connection_without_a_session_is_counted_once() {
    let mut bench = Bench::accepted();
    bench.read("\x16\x03\x01\x02");
    bench.read("\x16\x03\x01\x02");
    assert_eq!(bench.drops(), NONE);
    bench.close();
    assert_eq!(bench.drops(), [("tls", 1)]);
    assert!(bench.found.ignored.is_empty());
    let mut bench = Bench::accepted();
    bench.read("\x16\x03\x01\x02");
    bench.exchanges.exited(WORKER, KernelTime(200), &mut bench.found);
    bench.close();
    assert_eq!(bench.drops(), [("tls", 1)]);
}

#[test]
fn a_session_is_joined_in_its_middle() {
    let mut bench = Bench::new();
    bench.read("\x17\x03\x03");
    session(&mut bench, false, 0, "");
    session(&mut bench, true, 0, "rest of a response");
    session(&mut bench, false, 0, &get("/a"));
    session(&mut bench, true, 18, OK);
    assert_eq!(bench.seen(), "/a 200 105");
    assert_eq!(bench.drops(), NONE);
}
