//! Traffic from a seed: connections are kept or new, requests are pipelined and cut anywhere, as chance has it.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::env;
use std::thread;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use fastrand::Rng;

use crate::client::Address;
use crate::client::Client;
use crate::client::Mode;
use crate::client::Sent;
use crate::request::Request;

/// The seed, to have the same traffic again.
const SEED: &str = "SW_TEST_SEED";
/// How many requests there are.
const REQUESTS: &str = "SW_TEST_REQUESTS";
/// Bytes of a batch before its last request begins: what a probe copies of a read holds all heads.
const BATCH: usize = 12_000;
/// The longest header, in bytes; with it, a head that begins in a batch is within what a probe copies.
const HEADER: usize = 3_000;

/// Traffic as a seed has it.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Where chance begins.
    pub seed: u64,
    /// How many requests.
    pub requests: usize,
    /// Over how many connections at a time.
    pub connections: usize,
    /// The most requests that wait for an answer on one connection.
    pub depth: usize,
}

impl Random {
    /// Over eight connections, with a seed and so many requests unless the environment has others. Says which.
    pub fn new(requests: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos().into());
        let seed = variable(SEED).unwrap_or(now);
        let requests = variable(REQUESTS).and_then(|n| usize::try_from(n).ok()).unwrap_or(requests);
        eprintln!("{SEED}={seed} {REQUESTS}={requests}");
        Self { seed, requests, connections: 8, depth: 1 }
    }

    /// With up to so many requests pipelined.
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Sends all at full speed, and returns what became of them.
    pub fn send(self, address: &Address) -> Vec<Sent> {
        let (each, more) = (self.requests / self.connections, self.requests % self.connections);
        let talk = |number: usize| {
            let rng = Rng::with_seed(self.seed.wrapping_add(number as u64));
            let count = each + usize::from(number < more);
            let address = address.clone();
            thread::spawn(move || talk(&address, rng, count, self.depth))
        };
        let threads: Vec<_> = (0..self.connections).map(talk).collect();
        let joined =
            |thread: thread::JoinHandle<_>| thread.join().unwrap_or_else(|_| panic!("a client panicked"));
        threads.into_iter().flat_map(joined).collect()
    }
}

/// A number from the environment.
pub fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?} and has to be a number")))
}

/// One connection after the other.
fn talk(address: &Address, mut rng: Rng, count: usize, depth: usize) -> Vec<Sent> {
    let mut client = Client::new(address, Mode::KeepAlive);
    let mut all = Vec::with_capacity(count);
    let host = address.host();
    while all.len() < count {
        if rng.u8(..6) == 0 {
            client.hang_up();
        }
        let most = if rng.bool() { 1 } else { rng.usize(1..=depth) };
        let (mut batch, mut wire) = (Vec::new(), Vec::new());
        while batch.len() < most.min(count - all.len()) && wire.len() < BATCH {
            batch.push(request(&mut rng));
            wire.extend(batch.iter().rev().take(1).flat_map(|last| last.wire(&host)));
        }
        if rng.u8(..16) == 0
            && let Some(last) = batch.pop()
        {
            wire.truncate(wire.len() - last.wire(&host).len());
            let last = last.header("Connection", "close");
            wire.extend(last.wire(&host));
            batch.push(last);
        }
        all.extend(client.batch(&batch, &pieces(&mut rng, &wire)));
    }
    all
}

/// A request of any sort that each test application answers at once, and whose answer leaves the connection open.
fn request(rng: &mut Rng) -> Request {
    let small = |rng: &mut Rng| vec![b'b'; rng.usize(..600)];
    let body = |rng: &mut Rng| if rng.u8(..50) == 0 { vec![b'b'; rng.usize(..40_000)] } else { small(rng) };
    let request = match rng.u8(..16) {
        0..6 => Request::get("plain"),
        6 => Request::get("plain").query("a=b&c=%20"),
        7 | 8 => Request::post("echo", body(rng)),
        9 => Request { method: "PUT", ..Request::post("echo", body(rng)) },
        // Small, since the sizes of chunks have to be within what a probe copies of a read.
        10 => Request::chunked("echo", &[&small(rng), b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
        11 => Request::get("stream").query("n=3&size=20"),
        12 => Request::get(if rng.bool() { "empty" } else { "same" }),
        13 => Request::get(if rng.bool() { "missing" } else { "fail" }),
        14 => Request::new("HEAD", "plain"),
        _ => Request::new("DELETE", "plain"),
    };
    match rng.u8(..8) {
        0 => request.header("X-Long", "h".repeat(rng.usize(..HEADER))),
        1 => request.header("X-One", "1").header("X-Two", "2"),
        _ => request,
    }
}

/// The bytes as one piece, in a few, or each for itself at the begin.
fn pieces<'a>(rng: &mut Rng, wire: &'a [u8]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = match rng.u8(..8) {
        0..5 => Vec::new(),
        5 => (1..rng.usize(2..40)).collect(),
        _ => (0..rng.usize(1..5)).map(|_| rng.usize(..wire.len())).collect(),
    };
    cuts.sort_unstable();
    let (mut rest, mut done, mut pieces) = (wire, 0, Vec::new());
    for cut in cuts {
        let Some((piece, after)) = rest.split_at_checked(cut - done) else { break };
        pieces.push(piece);
        (rest, done) = (after, cut);
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_and_a_seed_repeats() {
        let wire: Vec<u8> = (0..200).collect();
        let mut rng = Rng::with_seed(1);
        for _ in 0..1_000 {
            assert_eq!(pieces(&mut rng, &wire).concat(), wire);
        }
        let sorts = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|_| request(&mut rng).method).collect::<Vec<_>>()
        };
        assert_eq!(sorts(7), sorts(7));
        assert_ne!(sorts(7), sorts(8));
    }
}
