//! Clients that want to fill memory: tens of thousands of connections, heads that never end. It stays bounded, what is lost
//! has its reason, and the next request is right.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use harness::classes::asgi;
use harness::client::Address;
use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::flood;
use harness::flood::EACH;
use harness::flood::Flood;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::Report;
use harness::observer::segments;
use harness::random::variable;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use harness::usage::resident_kib;
use harness::verdict::Expectation;

/// How many connections there are, where the environment does not say it.
const CONNECTIONS: usize = 20_000;
/// After so many connections a request is sent. It is answered when all before it are accepted: asyncio has the accept queue
/// take no more than 100, and who finds it full comes again a second later.
const BETWEEN: usize = 80;
/// Connections that the observer follows, fewer than there are.
const FOLLOWED: usize = 8_192;
/// How long one of these may take to be done with.
const PATIENCE: Duration = Duration::from_secs(30);

/// One worker that takes all connections that come.
fn patient() -> Launch {
    asgi().workers(1).args(&["--worker-connections", "1000000"])
}

fn ask(address: &Address, request: Request) -> Sent {
    Client::new(address, Mode::New).send(&request)
}

/// A request cut in the middle of its head.
fn cut() -> Request {
    Request::get("plain").cut([30])
}

fn memory(report: &Report, what: &str, from_kib: u64, to_kib: u64, most_kib: u64) {
    let more = to_kib.saturating_sub(from_kib);
    eprintln!("{what}: {from_kib} KiB and {more} more, lost {:?}", report.drops());
    assert!(more <= most_kib, "{what} take {more} KiB, more than {most_kib}");
}

#[test]
fn idle_connections() {
    let count = variable("SW_TEST_CONNECTIONS").and_then(|n| usize::try_from(n).ok()).unwrap_or(CONNECTIONS);
    let count = count / BETWEEN * BETWEEN;
    flood::allow();
    let stage = Stage::enter("idle");
    let observer = Observer::on(&stage, &["--max-connections", &FOLLOWED.to_string()]);
    let clients = count.div_ceil(EACH);
    let gunicorn = Gunicorn::start(&stage, &patient().workers(clients + 1));
    observer.wait_instances(&gunicorn.workers());
    let mut sent = vec![ask(gunicorn.address(), Request::get("plain"))];
    observer.wait_requests(&gunicorn, &sent);
    let before = resident_kib(observer.pid());
    let begin = Instant::now();
    let mut floods: Vec<_> = (0..clients).map(|number| Flood::start(number, gunicorn.address())).collect();
    for step in 0..count / BETWEEN {
        floods[step % clients].open(BETWEEN);
        sent.push(ask(gunicorn.address(), Request::get("plain")));
    }
    eprintln!("{count} connections in {:?}", begin.elapsed());
    sent.push(ask(gunicorn.address(), cut()));
    // The first one, of which nothing is known any more, and the last one are connections like others.
    let last = count / BETWEEN - 1;
    floods[0].get(0, "/plain/idle-first");
    floods[last % clients].get((last / clients + 1) * BETWEEN - 1, "/plain/idle-last");
    let idle =
        ["first", "last"].map(|which| Sent { path: format!("/plain/idle-{which}"), ..sent[0].clone() });
    observer.wait_requests(&gunicorn, &sent);
    let during = resident_kib(observer.pid());
    drop(floods);
    sent.push(ask(gunicorn.address(), Request::get("plain")));
    observer.wait_requests(&gunicorn, &sent);
    let report = observer.stop();
    memory(&report, "idle connections", before, during, FOLLOWED as u64 * 3 + 8 * 1024);
    let full = report.drops().get("connections_full").copied().unwrap_or(0);
    assert!(full + FOLLOWED as u64 >= count as u64, "{full} connections had to go of {count}");
    let reasons = ["connections_full", "sockets_full", "response_without_request"];
    Expectation::new(&gunicorn, &sent).maybe(&idle).losing(&reasons).check(&report);
    for sent in &idle {
        let seen = segments(&report.lines, gunicorn.service()).filter(|s| s.spans[0].operation == sent.path);
        assert_eq!(seen.count(), 1, "{}", sent.path);
    }
}

/// Heads of 40 KB each that never end, of which each alone is allowed: together they are more than there is room for.
#[test]
fn heads_that_never_end() {
    const SLOW: usize = 4_000;
    const ROUNDS: usize = 5;
    flood::allow();
    let stage = Stage::enter("slow");
    let observer = Observer::on(&stage, &[]);
    let gunicorn = Gunicorn::start(&stage, &patient());
    observer.wait_instances(&gunicorn.workers());
    let mut sent = vec![ask(gunicorn.address(), Request::get("plain"))];
    observer.wait_requests(&gunicorn, &sent);
    let before = resident_kib(observer.pid());
    let Address::Tcp(address) = gunicorn.address() else { panic!("no TCP port") };
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..SLOW {
        slow.push(TcpStream::connect(address).unwrap());
        if number % BETWEEN == 0 {
            sent.push(ask(gunicorn.address(), Request::get("plain")));
        }
    }
    let field = |round: usize| format!("X-Slow-{round}: {}\r\n", "s".repeat(7_900));
    for round in 0..ROUNDS {
        let begin = if round == 0 { "GET /plain/slow HTTP/1.1\r\nHost: a\r\n" } else { "" };
        for (number, connection) in slow.iter_mut().enumerate() {
            connection.write_all(format!("{begin}{}", field(round)).as_bytes()).unwrap();
            if number % BETWEEN == 0 {
                sent.push(ask(gunicorn.address(), Request::get("plain")));
            }
        }
    }
    let counted = |observer: &Observer| observer.stderr().contains("head_too_large");
    let lost = wait(PATIENCE, || counted(&observer).then_some(()));
    assert!(lost.is_some(), "no head was too large:\n{}", observer.stderr());
    sent.push(ask(gunicorn.address(), Request::get("plain")));
    sent.push(ask(gunicorn.address(), cut()));
    observer.wait_requests(&gunicorn, &sent);
    let during = resident_kib(observer.pid());
    drop(slow);
    sent.push(ask(gunicorn.address(), Request::get("plain")));
    observer.wait_requests(&gunicorn, &sent);
    let report = observer.stop();
    memory(&report, "heads that never end", before, during, 120 * 1024);
    let too_large = report.drops().get("head_too_large").copied().unwrap_or(0);
    assert!((500..SLOW as u64).contains(&too_large), "{too_large} of {SLOW} heads were too large");
    // A server may answer what it has when the client goes: with 400, to a head that has no end.
    let maybe = [Sent { path: "/plain/slow".into(), ..sent[0].clone() }];
    let reasons = ["head_too_large", "response_without_request", "gap"];
    Expectation::new(&gunicorn, &sent).maybe(&maybe).losing(&reasons).check(&report);
}
