//! Heads that are not whole and requests that wait take no more memory than there is for all of them.
use super::*;
use crate::exchange::room::COMMON;
use crate::exchange::room::OWN;

/// A table of connections, on each of which the same is read.
struct Crowd {
    exchanges: Exchanges,
    found: Findings,
    now: u64,
}

impl Crowd {
    fn new() -> Crowd {
        Crowd { exchanges: Exchanges::new(32_768), found: Findings::default(), now: 0 }
    }

    /// Bytes that connection number `sock` moves from `offset` on.
    fn moved(&mut self, sock: u64, out: bool, offset: usize, bytes: &[u8]) {
        self.now += 1;
        let header = Header { at: self.now, tgid: WORKER, tid: WORKER, kind: 0, zero: 0, len: 0 };
        let (offset, size) = (offset as u64, u32::try_from(bytes.len()).unwrap());
        let moved = Moved { header, conn: Conn { sock, born: 1 }, offset, ready: 0, size, flags: 0 };
        match out {
            true => self.exchanges.sent(&moved, bytes, &mut self.found),
            false => self.exchanges.received(&moved, bytes, &mut self.found),
        }
    }

    fn open(&mut self, sock: u64) {
        let mut bench = Bench::new();
        std::mem::swap(&mut bench.exchanges, &mut self.exchanges);
        bench.open(Conn { sock, born: 1 }, 1);
        std::mem::swap(&mut bench.exchanges, &mut self.exchanges);
    }

    fn close(&mut self, sock: u64) {
        let header = Header { at: self.now, tgid: WORKER, tid: WORKER, kind: 0, zero: 0, len: 0 };
        self.exchanges.closed(&Closed { header, conn: Conn { sock, born: 1 } }, &mut self.found);
    }

    fn taken(&self) -> usize {
        self.exchanges.room.taken()
    }
}

/// A head of so many bytes without its end.
fn begun(len: usize) -> Vec<u8> {
    let mut head = b"GET /slow HTTP/1.1\r\nX-Long: ".to_vec();
    head.resize(len, b'x');
    head
}

#[test]
fn heads_that_are_not_whole_have_a_limit_together() {
    let (mut crowd, head) = (Crowd::new(), begun(16 * 1024));
    let most = COMMON / (16 * 1024 - OWN);
    for sock in 0..10_000 {
        crowd.open(sock);
        crowd.moved(sock, false, 0, &head);
        assert!(crowd.taken() <= COMMON, "{} bytes of {sock} connections", crowd.taken());
    }
    let lost = crowd.found.drops.get(Reason::HeadTooLarge);
    assert!(lost + most as u64 >= 10_000 && lost < 10_000, "{lost} are lost, {most} have room");
    // Whoever comes now is read all the same: whole, or in pieces of the usual size.
    crowd.open(20_000);
    crowd.moved(20_000, false, 0, get("/whole").as_bytes());
    crowd.moved(20_000, true, 0, OK.as_bytes());
    let begin = get("/cut");
    crowd.moved(20_000, false, get("/whole").len(), &begin.as_bytes()[..9]);
    crowd.moved(20_000, false, get("/whole").len() + 9, &begin.as_bytes()[9..]);
    crowd.moved(20_000, true, OK.len(), OK.as_bytes());
    // So is the next request of one that lost its head, and the head of one that did not.
    crowd.moved(9_999, false, head.len(), b"\r\n\r\n");
    crowd.moved(9_999, true, 0, OK.as_bytes());
    crowd.moved(9_999, false, head.len() + 4, get("/next").as_bytes());
    crowd.moved(9_999, true, OK.len(), OK.as_bytes());
    crowd.moved(0, false, head.len(), b"\r\n\r\n");
    crowd.moved(0, true, 0, OK.as_bytes());
    let targets: Vec<_> = crowd.found.exchanges.iter().map(|exchange| exchange.target.as_str()).collect();
    assert_eq!(targets, ["/whole", "/cut", "/next", "/slow"]);
    for sock in 0..20_001 {
        crowd.close(sock);
    }
    assert_eq!(crowd.taken(), 0);
}

#[test]
fn requests_that_wait_have_a_limit_together() {
    let mut crowd = Crowd::new();
    let long = format!("GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n", "t".repeat(8_000), "h".repeat(8_000));
    for sock in 0..10_000 {
        crowd.open(sock);
        crowd.moved(sock, false, 0, long.as_bytes());
        assert!(crowd.taken() <= COMMON, "{} bytes of {sock} connections", crowd.taken());
    }
    let lost = crowd.found.drops.get(Reason::HeadTooLarge);
    assert!((1_000..10_000).contains(&lost), "{lost} are lost");
    // Many small ones on one connection are no way around it.
    let many = get("/small").repeat(100);
    for sock in 10_000..20_000 {
        crowd.open(sock);
        crowd.moved(sock, false, 0, many.as_bytes());
        assert!(crowd.taken() <= COMMON + 128 * 1024, "{} bytes of {sock} connections", crowd.taken());
    }
    assert!(crowd.found.drops.get(Reason::PipelineTooDeep) > 1_000);
    // What it is paired with is over in its turn, and the next one is told.
    crowd.moved(9_999, true, 0, OK.as_bytes());
    crowd.moved(9_999, false, long.len(), get("/next").as_bytes());
    crowd.moved(9_999, true, OK.len(), OK.as_bytes());
    let targets: Vec<_> = crowd.found.exchanges.iter().map(|exchange| exchange.target.as_str()).collect();
    assert_eq!(targets, ["/next"]);
    for sock in 0..20_000 {
        crowd.close(sock);
    }
    assert_eq!(crowd.taken(), 0);
}
