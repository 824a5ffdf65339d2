//! Who is saturated, since when and why: queues, busy workers and lags with answers that are known beforehand.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use harness::client::Address;
use harness::client::Client;
use harness::client::Connection;
use harness::client::Mode;
use harness::container::Container;
use harness::container::First;
use harness::container::Recipe;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::life::named;
use harness::meters::batches;
use harness::meters::expect;
use harness::meters::expect_that;
use harness::meters::most;
use harness::observer::Event;
use harness::observer::Observer;
use harness::observer::instances;
use harness::python::Python;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use harness::traffic::send_all;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a hung worker hangs, in ms: longer than it takes to see and to say it.
const HANG: u32 = 14_000;

fn launch(class: &'static str, args: &[&str]) -> Launch {
    let app = if ["asgi", "uvicorn.workers.UvicornWorker"].contains(&class) {
        "fastapi_app:app"
    } else {
        "wsgi_app:app"
    };
    Launch::new(class, app).args(&["--timeout", "120", "--graceful-timeout", "1"]).args(args)
}

/// An observer that reports every second.
fn observer() -> Observer {
    Observer::start(&["--meter-period", "1"])
}

fn name(meter: &str) -> String {
    format!("instance_gunicorn_{meter}")
}

fn at(meter: &str, listener: &str) -> String {
    format!("instance_gunicorn_{meter}{{listener={listener}}}")
}

/// Waits for the `Saturated` event of a service, begun or over.
fn saturated(observer: &Observer, service: &str, over: bool) -> Event {
    let mut seen = Vec::new();
    observer.wait(PATIENCE, |lines| {
        seen = named(lines, service, "Saturated").into_iter().cloned().collect();
        seen.iter().any(|event| event.end_ms.is_some() == over)
    });
    match seen.as_slice() {
        [event] if event.end_ms.is_some() == over => event.clone(),
        all => panic!("not one event (over: {over}): {all:#?}\n{}", observer.stderr()),
    }
}

fn parameters(event: &Event, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| event.parameters.get(*name).cloned().unwrap_or_default()).collect()
}

/// A connection with a request on it whose answer nobody waits for.
fn ask(address: &Address, request: &Request) -> Connection {
    let mut connection = Connection::open(address).unwrap();
    let text = format!("GET {}?{} HTTP/1.1\r\nHost: here\r\n\r\n", request.path, request.query);
    connection.write_raw(text.as_bytes()).unwrap();
    connection
}

fn hang(address: &Address, action: &str) -> Connection {
    ask(address, &Request::get(action).query(&format!("ms={HANG}")))
}

fn plain(address: &Address, count: usize) -> Vec<Connection> {
    (0..count).map(|_| ask(address, &Request::get("plain"))).collect()
}

fn tcp(gunicorn: &Gunicorn) -> SocketAddr {
    match gunicorn.address() {
        Address::Tcp(address) | Address::Tls(address, _) => *address,
        Address::Unix(path) | Address::TlsUnix(path, _) => panic!("a port is served, not {}", path.display()),
    }
}

/// `ListenOverflows` of this test's network namespace.
fn overflows() -> f64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "ListenOverflows").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

#[test]
fn hung_sync_workers_fill_the_accept_queue() {
    let stage = Stage::enter("backlog");
    let observer = observer();
    let gunicorn = Gunicorn::start(&stage, &launch("sync", &["--backlog", "8"]));
    let (address, master) = (gunicorn.address(), gunicorn.master_name());
    let listener = tcp(&gunicorn).to_string();
    let workers: Vec<String> = gunicorn.workers().iter().map(|pid| gunicorn.worker_name(*pid)).collect();
    observer.wait_instances(&gunicorn.workers());
    let (queue, limit) = (at("accept_queue", &listener), at("accept_queue_limit", &listener));
    expect(&observer, &master, &[(queue.clone(), 0.0), (limit.clone(), 8.0), (name("respawns"), 0.0)]);
    // One after the other: of two at a time the second might wait for the first one's worker.
    let mut clients = Vec::new();
    for _ in &workers {
        clients.push(hang(address, "slow"));
        thread::sleep(Duration::from_millis(300));
    }
    for worker in &workers {
        let busy = [("requests_in_flight", 1.0), ("requests_in_flight_max", 1.0), ("busy", 100.0)];
        let rest = [("accepts", 1.0), ("requests", 0.0), ("unread_connections", 0.0)];
        let wanted: Vec<_> = busy.iter().chain(&rest).map(|(meter, value)| (name(meter), *value)).collect();
        expect(&observer, worker, &wanted);
    }
    let before = overflows();
    clients.extend(plain(address, 9));
    expect(&observer, &master, &[(queue.clone(), 9.0), (limit, 8.0)]);
    let refused = TcpStream::connect_timeout(&tcp(&gunicorn), Duration::from_millis(300));
    assert!(refused.is_err(), "a tenth connection finds no place");
    expect_that(&observer, &master, &name("listen_overflows"), |now| now > before && now == overflows());
    let event = saturated(&observer, gunicorn.service(), false);
    assert_eq!((&*event.instance, &*event.kind), (&*master, "Error"));
    let names = ["cause", "listener", "depth", "limit", "workers", "busy", "unread"];
    assert_eq!(parameters(&event, &names), ["accept-queue", &*listener, "9", "8", "2", "2", "0"]);
    // The hung ones come round, and serve what waited.
    expect(&observer, &master, &[(queue, 0.0)]);
    clients.iter_mut().for_each(|client| drop(client.drain()));
    for (pid, count) in gunicorn.counts() {
        let count = count as f64;
        let wanted = [("accepts", count), ("requests", count), ("requests_in_flight", 0.0), ("busy", 0.0)];
        let wanted: Vec<_> = wanted.iter().map(|(meter, value)| (name(meter), *value)).collect();
        expect(&observer, &gunicorn.worker_name(pid), &wanted);
        assert_eq!(most(&observer, &gunicorn.worker_name(pid), &name("loop_lag")), None, "sync has no loop");
        let waited = most(&observer, &gunicorn.worker_name(pid), &format!("{}{{p=99}}", name("queue_wait")));
        assert!(waited.unwrap() > 5e6, "{waited:?} µs");
    }
    let over = saturated(&observer, gunicorn.service(), true);
    assert_eq!((&over.uuid, over.start_ms), (&event.uuid, event.start_ms));
    assert!(over.end_ms.unwrap() - over.start_ms > 5_000, "{over:#?}");
    assert_eq!(gunicorn.counts().values().sum::<usize>(), 11);
    observer.stop().assert_code(0);
}

#[test]
fn a_full_pool_leaves_connections_unread() {
    let stage = Stage::enter("pool");
    let observer = observer();
    let gunicorn = Gunicorn::start(&stage, &launch("gthread", &["--threads", "3"]).workers(1));
    let (address, master) = (gunicorn.address(), gunicorn.master_name());
    let worker = gunicorn.worker_name(gunicorn.workers()[0]);
    observer.wait_instances(&gunicorn.workers());
    let mut clients: Vec<_> = (0..3).map(|_| hang(address, "slow")).collect();
    expect(&observer, &worker, &[(name("requests_in_flight"), 3.0)]);
    clients.extend(plain(address, 7));
    let wanted =
        [("requests_in_flight", 3.0), ("unread_connections", 7.0), ("accepts", 10.0), ("busy", 100.0)];
    expect(&observer, &worker, &wanted.map(|(meter, value)| (name(meter), value)));
    expect(&observer, &master, &[(at("accept_queue", &tcp(&gunicorn).to_string()), 0.0)]);
    let event = saturated(&observer, gunicorn.service(), false);
    assert_eq!(
        parameters(&event, &["cause", "depth", "workers", "busy", "unread"]),
        ["pool", "0", "1", "1", "7"]
    );
    clients.iter_mut().for_each(|client| client.finish_writing());
    clients.iter_mut().for_each(|client| drop(client.drain()));
    let wanted = [("requests_in_flight", 0.0), ("unread_connections", 0.0), ("requests", 10.0)];
    expect(&observer, &worker, &wanted.map(|(meter, value)| (name(meter), value)));
    assert_eq!(saturated(&observer, gunicorn.service(), true).uuid, event.uuid);
    observer.stop().assert_code(0);
}

/// A loop that a request blocks, and what waits for it meanwhile.
fn blocked(class: &'static str, args: &[&str]) {
    let stage = Stage::enter("blocked");
    let observer = observer();
    let gunicorn = Gunicorn::start(&stage, &launch(class, args).workers(1));
    let (address, master) = (gunicorn.address(), gunicorn.master_name());
    let worker = gunicorn.worker_name(*gunicorn.workers().first().unwrap());
    observer.wait_instances(&gunicorn.workers());
    let mut kept = Client::new(address, Mode::KeepAlive);
    for _ in 0..5 {
        assert_eq!(kept.send(&Request::get("plain")).status, Some(200));
    }
    expect(&observer, &worker, &[(name("requests"), 5.0)]);
    let lag = most(&observer, &worker, &name("loop_lag"));
    assert!(lag.is_some_and(|lag| lag < 500.0), "a free loop is {lag:?} ms late");
    let blocker = hang(address, "block");
    expect(&observer, &worker, &[(name("requests_in_flight"), 1.0)]);
    let mut clients = plain(address, 5);
    let queue = at("accept_queue", &tcp(&gunicorn).to_string());
    expect(&observer, &master, &[(queue.clone(), 5.0)]);
    let event = saturated(&observer, gunicorn.service(), false);
    assert_eq!(parameters(&event, &["cause", "depth", "busy"]), ["loop", "5", "1"], "{class}");
    clients.push(blocker);
    clients.iter_mut().for_each(Connection::finish_writing);
    clients.iter_mut().for_each(|client| drop(client.drain()));
    expect(&observer, &master, &[(queue, 0.0)]);
    expect(&observer, &worker, &[(name("requests"), 11.0), (name("requests_in_flight"), 0.0)]);
    let lag = most(&observer, &worker, &name("loop_lag")).unwrap();
    assert!((4_000.0..f64::from(HANG) + 2_000.0).contains(&lag), "{class}: {lag} ms");
    assert_eq!(saturated(&observer, gunicorn.service(), true).uuid, event.uuid);
    observer.stop().assert_code(0);
}

#[test]
fn a_blocked_asgi_loop() {
    blocked("asgi", &["--asgi-loop", "asyncio"]);
}

#[test]
fn a_blocked_uvicorn_loop() {
    blocked("uvicorn.workers.UvicornWorker", &[]);
}

#[test]
fn with_reuse_port_a_queue_is_its_workers() {
    let stage = Stage::enter("reuse");
    let observer = observer();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let gunicorn = Gunicorn::start(&stage, &launch("sync", &["--reuse-port"]).port(port));
    let address = gunicorn.address();
    let queue = at("accept_queue", &tcp(&gunicorn).to_string());
    let pids = gunicorn.workers();
    observer.wait_instances(&pids);
    let _stuck = hang(address, "slow");
    let mut stuck = None;
    observer.wait(PATIENCE, |lines| {
        let busy = |pid: &&u32| {
            let last = batches(lines, &gunicorn.worker_name(**pid))
                .pop()
                .and_then(|meters| meters.get(&name("requests_in_flight")));
            last == Some(&1.0)
        };
        stuck = pids.iter().find(busy).copied();
        stuck.is_some()
    });
    let stuck = stuck.unwrap();
    let free = *pids.iter().find(|pid| **pid != stuck).unwrap();
    // Who is answered closes at once: a sync worker waits for that.
    let client = || {
        let mut connection = ask(address, &Request::get("plain"));
        thread::spawn(move || drop(connection.drain()))
    };
    let clients: Vec<_> = (0..24).map(|_| client()).collect();
    wait(PATIENCE, || gunicorn.counts().get(&free).filter(|count| **count > 0).copied());
    thread::sleep(Duration::from_secs(1)); // the free one serves its share meanwhile
    let served = gunicorn.counts().get(&free).copied().unwrap_or(0);
    let stranded = (clients.len() - served) as f64;
    assert!(stranded > 0.0, "no connection came to the stuck worker");
    expect(&observer, &gunicorn.worker_name(stuck), &[(queue.clone(), stranded)]);
    expect(&observer, &gunicorn.worker_name(free), &[(queue.clone(), 0.0)]);
    observer.wait(Duration::ZERO, |lines| {
        let masters = batches(lines, &gunicorn.master_name());
        assert!(
            !masters.is_empty() && masters.iter().all(|meters| !meters.contains_key(&queue)),
            "it does not listen"
        );
        true
    });
    let event = saturated(&observer, gunicorn.service(), false);
    let wanted = ["accept-queue", &*stranded.to_string(), &*stuck.to_string(), "1"];
    assert_eq!(parameters(&event, &["cause", "depth", "worker", "busy"]), wanted);
    observer.stop().assert_code(0);
}

#[test]
fn a_unix_socket_has_a_queue_too() {
    let stage = Stage::enter("unix");
    let observer = observer();
    let sync = Gunicorn::start(&stage, &launch("sync", &["--backlog", "4"]).workers(1).unix());
    let pool = Gunicorn::start(&stage, &launch("gthread", &["--threads", "2"]).workers(1).unix());
    let path = |gunicorn: &Gunicorn| match gunicorn.address() {
        Address::Unix(path) | Address::TlsUnix(path, _) => format!("unix:{}", path.display()),
        Address::Tcp(address) | Address::Tls(address, _) => panic!("a Unix socket is served, not {address}"),
    };
    observer.wait_instances(&[sync.workers(), pool.workers()].concat());
    let mut clients =
        vec![hang(sync.address(), "slow"), hang(pool.address(), "slow"), hang(pool.address(), "slow")];
    let worker = |gunicorn: &Gunicorn| gunicorn.worker_name(gunicorn.workers()[0]);
    expect(&observer, &worker(&sync), &[(name("requests_in_flight"), 1.0)]);
    expect(&observer, &worker(&pool), &[(name("requests_in_flight"), 2.0)]);
    clients.extend(plain(sync.address(), 5));
    clients.extend(plain(pool.address(), 6));
    let queue = |meter| at(meter, &path(&sync));
    expect(
        &observer,
        &sync.master_name(),
        &[(queue("accept_queue"), 5.0), (queue("accept_queue_limit"), 4.0)],
    );
    expect(&observer, &worker(&sync), &[(name("unread_connections"), 0.0)]);
    expect(&observer, &pool.master_name(), &[(at("accept_queue", &path(&pool)), 0.0)]);
    expect(&observer, &worker(&pool), &[(name("unread_connections"), 6.0)]);
    let event = saturated(&observer, sync.service(), false);
    assert_eq!(parameters(&event, &["cause", "listener", "depth"]), ["accept-queue", &*path(&sync), "5"]);
    let event = saturated(&observer, pool.service(), false);
    assert_eq!(parameters(&event, &["cause", "unread"]), ["pool", "6"]);
    observer.stop().assert_code(0);
}

#[test]
fn a_queue_is_read_in_its_own_network_namespace() {
    let stage = Stage::enter("netns");
    let observer = observer();
    let service = stage.service();
    let launch = launch("sync", &["--bind", "127.0.0.1:9000"]).workers(1).env("SW_AGENT_NAME", &service);
    let container = Container::start(&stage, &Recipe::new(First::Gunicorn, "box", launch));
    let master = container.master();
    observer.wait_instances(&[master.pid, container.workers()[0].pid]);
    let mut found = None;
    observer.wait(PATIENCE, |lines| {
        found = instances(lines, &service)
            .find(|found| found.pid == master.pid)
            .map(|found| found.instance.clone());
        found.is_some()
    });
    let instance = found.unwrap();
    let script = format!(
        r"
import fcntl, socket, struct, time
up = struct.pack('16sh14x', b'lo', 0x41)  # IFF_UP | IFF_RUNNING
fcntl.ioctl(socket.socket(), 0x8914, up)  # SIOCSIFFLAGS
def ask(path):
    client = socket.create_connection(('127.0.0.1', 9000))
    client.sendall(b'GET %s HTTP/1.1\r\nHost: h\r\n\r\n' % path)
    return client
first = ask(b'/slow/n1?ms={HANG}')
time.sleep(0.5)
rest = [ask(b'/plain/n2') for _ in range(3)]
time.sleep(60)
"
    );
    let mut clients = Command::new("nsenter")
        .args(["--net", "--target", &master.pid.to_string()])
        .arg(Python::standard().script("python"))
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    expect(
        &observer,
        &instance,
        &[(at("accept_queue", "127.0.0.1:9000"), 3.0), (at("accept_queue", "unix:/srv/state/socket"), 0.0)],
    );
    clients.kill().unwrap();
    clients.wait().unwrap();
    observer.stop().assert_code(0);
}

#[test]
fn a_socket_that_a_supervisor_holds_is_its_masters() {
    let stage = Stage::enter("held");
    let observer = observer();
    let service = stage.service();
    let launch = Launch::new("sync", "wsgi_app:app").workers(1).env("SW_AGENT_NAME", &service);
    let recipe = Recipe::new(First::Gunicorn, "held", launch).program("/srv/app/held_server.py");
    let container = Container::start(&stage, &recipe);
    let (master, worker) = (container.master(), *container.workers().first().unwrap());
    assert_ne!(master.pid, container.first(), "who holds the socket is another");
    observer.wait_instances(&[master.pid, worker.pid]);
    let of = |pid: u32| {
        let mut found = None;
        observer.wait(PATIENCE, |lines| {
            found =
                instances(lines, &service).find(|found| found.pid == pid).map(|found| found.instance.clone());
            found.is_some()
        });
        found.unwrap()
    };
    let _stuck = hang(&container.address(), "slow");
    expect(&observer, &of(worker.pid), &[(name("requests_in_flight"), 1.0)]);
    let _clients = plain(&container.address(), 2);
    expect(&observer, &of(master.pid), &[(at("accept_queue", "unix:/srv/state/socket"), 2.0)]);
    observer.stop().assert_code(0);
}

#[test]
fn accepts_and_requests_are_the_applications_own_counts() {
    for class in ["sync", "gthread", "gevent", "asgi"] {
        let stage = Stage::enter("counts");
        let observer = observer();
        let gunicorn = Gunicorn::start(&stage, &launch(class, &[]));
        observer.wait_instances(&gunicorn.workers());
        let requests = |count: usize| (0..count).map(|_| Request::get("plain")).collect::<Vec<_>>();
        let sent = send_all(gunicorn.address(), Mode::New, 4, requests(200));
        assert!(sent.iter().all(|sent| sent.status == Some(200)), "{class}");
        let counted = gunicorn.counts();
        assert_eq!(counted.values().sum::<usize>(), 200);
        for (pid, count) in counted {
            let wanted = [("accepts", count as f64), ("requests", count as f64), ("requests_in_flight", 0.0)];
            expect(&observer, &gunicorn.worker_name(pid), &wanted.map(|(meter, value)| (name(meter), value)));
        }
        if class != "sync" {
            let before: BTreeMap<u32, usize> = gunicorn.counts();
            send_all(gunicorn.address(), Mode::KeepAlive, 4, requests(100));
            let after = gunicorn.counts();
            assert_eq!(after.values().sum::<usize>(), before.values().sum::<usize>() + 100);
            for (pid, count) in after {
                expect(&observer, &gunicorn.worker_name(pid), &[(name("requests"), count as f64)]);
                let accepts = most(&observer, &gunicorn.worker_name(pid), &name("accepts")).unwrap();
                let own = before.get(&pid).copied().unwrap_or(0) as f64;
                assert!(accepts >= own && accepts <= own + 4.0, "{class}: {accepts} after {own}");
            }
        }
        let saturated = observer.stop().lines;
        assert!(named(&saturated, gunicorn.service(), "Saturated").is_empty(), "{class} keeps up");
    }
}

#[test]
fn respawns_are_those_that_nobody_asked_for() {
    let stage = Stage::enter("respawns");
    let observer = observer();
    let gunicorn = Gunicorn::start(&stage, &launch("sync", &["--max-requests", "3"]).workers(1));
    let looping =
        Gunicorn::looping(&stage, &Launch::new("sync", "wild_app:app").workers(1).env("WILD_IMPORT", "exit"));
    let mut client = Client::new(gunicorn.address(), Mode::New);
    for round in 1..=3_u32 {
        let before = gunicorn.workers();
        (0..3).for_each(|_| drop(client.send(&Request::get("plain"))));
        gunicorn.wait_workers(1, &before);
        expect(&observer, &gunicorn.master_name(), &[(name("respawns"), f64::from(round))]);
    }
    // What signals ask for does not count.
    let before = gunicorn.workers();
    gunicorn.signal(Signal::HUP);
    gunicorn.wait_workers(1, &before);
    gunicorn.signal(Signal::TTIN);
    gunicorn.wait_workers(2, &[]);
    gunicorn.signal(Signal::TTOU);
    gunicorn.wait_workers(1, &[]);
    thread::sleep(Duration::from_secs(2));
    expect(&observer, &gunicorn.master_name(), &[(name("respawns"), 3.0)]);
    // A worker that did not boot was one that had to be replaced: as many as were ever forked, but for the last one.
    looping.signal(Signal::STOP);
    wait(Duration::from_secs(5), || {
        (!looping.booted().iter().any(|pid| harness::gunicorn::alive(*pid))).then_some(())
    });
    let died = looping.booted().len() as f64;
    expect_that(&observer, &looping.master_name(), &name("respawns"), |now| now == died || now == died + 1.0);
    looping.signal(Signal::CONT);
    observer.stop().assert_code(0);
}
