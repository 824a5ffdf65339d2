//! Many requests over many connections at once.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use crate::client::Address;
use crate::client::Client;
use crate::client::Mode;
use crate::client::Sent;
use crate::request::Request;

/// The most requests of one traffic without an end of its own.
const LIMIT: usize = 200_000;

/// Requests on their way.
pub struct Traffic {
    threads: Vec<JoinHandle<Vec<Sent>>>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").field("sent", &self.sent()).finish_non_exhaustive()
    }
}

impl Traffic {
    /// Sends `GET`s of an action over so many connections at full speed until [`Traffic::finish`].
    pub fn endless(address: &Address, mode: Mode, connections: usize, action: &'static str) -> Self {
        let left = Arc::new(AtomicUsize::new(LIMIT));
        Self::start(address, mode, connections, move || {
            let more = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            more.ok().map(|_| Request::get(action))
        })
    }

    fn start(
        address: &Address,
        mode: Mode,
        connections: usize,
        next: impl Fn() -> Option<Request> + Send + Sync + 'static,
    ) -> Self {
        let next = Arc::new(next);
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let worker = || {
            let (next, stop, count) = (Arc::clone(&next), Arc::clone(&stop), Arc::clone(&count));
            let mut client = Client::new(address, mode);
            thread::spawn(move || {
                let mut all = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let Some(request) = next() else { break };
                    all.push(client.send(&request));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                all
            })
        };
        let threads = (0..connections).map(|_| worker()).collect();
        Self { threads, stop, count }
    }

    /// How many have been answered so far.
    pub fn sent(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Sends no more and returns what was sent.
    pub fn finish(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(self) -> Vec<Sent> {
        let joined =
            |thread: JoinHandle<_>| thread.join().unwrap_or_else(|_| panic!("a client thread panicked"));
        self.threads.into_iter().flat_map(joined).collect()
    }
}

/// Sends all requests over so many connections and returns what became of them.
pub fn send_all(address: &Address, mode: Mode, connections: usize, requests: Vec<Request>) -> Vec<Sent> {
    let queue = Mutex::new(VecDeque::from(requests));
    let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    Traffic::start(address, mode, connections, next).join()
}

/// `count` plain requests.
pub fn plain(count: usize) -> Vec<Request> {
    (0..count).map(|_| Request::get("plain")).collect()
}

/// `count` requests of every sort that each test application answers.
pub fn mixed(count: usize) -> Vec<Request> {
    let sort = |i: usize| match i % 14 {
        0 => Request::get("plain"),
        1 => Request::post("echo", format!("body {i}")),
        2 => Request::chunked("echo", &[b"one", b"two", b"three"]),
        3 => Request::get("stream").query("n=7&size=50"),
        4 => Request::get("empty"),
        5 => Request::get("same"),
        6 => Request::get("missing"),
        7 => Request::get("fail"),
        8 => Request::get("slow").query("ms=15"),
        9 => Request::get("large").query("kib=100"),
        10 => Request::new("HEAD", "plain"),
        11 => Request::new("DELETE", "plain").query("why=test"),
        12 => Request { method: "PUT", ..Request::post("echo", vec![b'x'; 40_000]) },
        _ => Request::get("broken"),
    };
    (0..count).map(sort).collect()
}
