//! What `--metrics-listen` serves while real gunicorns are watched: the numbers that are printed, and nothing of the dead.
#![expect(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::process::id;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use harness::client::Address;
use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::kill;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::binary;
use harness::observer::segments;
use harness::request::Request;
use harness::scrape;
use harness::scrape::Page;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;
use harness::traffic::plain;
use harness::traffic::send_all;
use rustix::process::Signal;

/// Until what was done is on the page: a meter period, a tick, the age of a page.
const SOON: Duration = Duration::from_secs(10);

/// Only the gunicorns of this test, so that counts can be compared.
fn start(stage: &str, address: SocketAddr, more: &[&str]) -> Observer {
    let target = format!("gunicorn:service=live-{stage}-{}-*", id());
    let mut command = Command::new(binary());
    command.args(["--target", &target, "--print=json", "--meter-period", "1"]);
    command.args(["--metrics-listen", &address.to_string()]).args(more);
    ready(&mut command)
}

/// Starts it and waits until its probes are attached.
fn ready(command: &mut Command) -> Observer {
    let observer = Observer::spawn(command);
    let ready = |lines: &[Line]| lines.iter().any(|line| matches!(line, Line::Ready { .. }));
    assert!(observer.wait(Duration::from_secs(30), ready), "not ready:\n{}", observer.stderr());
    observer
}

/// Scrapes until a page satisfies a condition.
fn until(address: SocketAddr, what: &str, enough: impl Fn(&Page) -> bool) -> Page {
    let mut last = None;
    let found = wait(SOON, || {
        let page = scrape::page(address);
        let done = enough(&page);
        last = Some(page.clone());
        done.then_some(page)
    });
    found.unwrap_or_else(|| {
        panic!("{what} not within {SOON:?}:\n{}", last.map(|page| page.text).unwrap_or_default())
    })
}

/// The meters of an instance that were printed, oldest first.
fn printed(observer: &Observer, service: &str, instance: &str) -> Vec<BTreeMap<String, f64>> {
    let mut all = Vec::new();
    observer.lines_from(0, |line| {
        if let Line::Meters { service: its, instance: name, meters, .. } = line
            && (its.as_str(), name.as_str()) == (service, instance)
        {
            all.push(scrape::exposed(service, instance, meters));
        }
    });
    all
}

/// Another gunicorn of this machine may have a process that ends before it was looked at.
const FOREIGN: &str = "sw_observe_lost_total{reason=\"facts_gone\"}";

/// The reasons for which something was lost, but for that of others.
fn own(drops: &BTreeMap<String, u64>) -> Vec<&str> {
    drops.keys().map(String::as_str).filter(|reason| !FOREIGN.contains(reason)).collect()
}

fn ended(observer: Observer) -> BTreeMap<String, u64> {
    let report = observer.stop();
    report.assert_code(0);
    report.drops().clone()
}

/// A line of `/proc/<pid>/status`.
fn status(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_page_has_the_numbers_that_are_printed() {
    let stage = Stage::enter("metrics");
    let address = scrape::free();
    // Nobody answers there: what was to go to OAP waits.
    let nobody = scrape::free().to_string();
    let observer = start("metrics", address, &["--oap", &nobody, "--queue-size", "5000"]);
    let gunicorn = Gunicorn::start(&stage, &Launch::new("gthread", "wsgi_app:app").args(&["--threads", "3"]));
    let workers = gunicorn.workers();
    observer.wait_instances(&[workers.clone(), vec![gunicorn.master()]].concat());

    // While it works, every scrape is a whole page.
    let stop = Arc::new(AtomicBool::new(false));
    let scraper = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut pages = 0;
            while !stop.load(Ordering::Relaxed) {
                scrape::page(address);
                pages += 1;
                thread::sleep(Duration::from_millis(20));
            }
            pages
        }
    });
    let sent = send_all(gunicorn.address(), Mode::New, 4, plain(2000));
    stop.store(true, Ordering::Relaxed);
    let pages: usize = scraper.join().unwrap();
    observer.wait_requests(&gunicorn, &sent);
    assert!(pages > 5, "only {pages} pages during the traffic");

    let served: usize = gunicorn.counts().values().sum();
    let page = until(address, "all segments", |page| {
        page.value("sw_observe_reports_total{kind=\"segments\"}") == served as f64
    });
    assert_eq!(served, sent.len());
    check_meters(&observer, &gunicorn, address, &workers);
    check_own(&observer, &page, served);
    scrape::check(&page);
    check_names(&page);
    let drops = ended(observer);
    // Nobody took what waited: the end is the first loss.
    assert_eq!(own(&drops), ["send_failed"]);
}

/// Each instance's series are its latest printed meters, and both are what the kernel says.
fn check_meters(observer: &Observer, gunicorn: &Gunicorn, address: SocketAddr, workers: &[u32]) {
    let names = workers.iter().map(|worker| (*worker, gunicorn.worker_name(*worker)));
    for (pid, name) in names.chain([(gunicorn.master(), gunicorn.master_name())]) {
        let before = printed(observer, gunicorn.service(), &name).len();
        let of = |page: &Page| page.of(gunicorn.service(), &name);
        let page = until(address, "meters", |page| !of(page).is_empty());
        let shown = of(&page);
        let equal = wait(SOON, || {
            let all = printed(observer, gunicorn.service(), &name);
            // A page is up to 1.5 s old, and a line is printed when it is due.
            all.iter().skip(before.saturating_sub(3)).any(|meters| same(meters, &shown)).then_some(())
        });
        assert!(equal.is_some(), "{name}: {shown:?} was not printed lately");
        let series = |name: &str| {
            let found = shown.iter().find(|(series, _)| series.starts_with(&format!("{name}{{")));
            *found.unwrap_or_else(|| panic!("no {name} in {shown:?}")).1
        };
        assert_eq!(series("gunicorn_process_threads"), status(pid, "Threads"), "{name}");
        let memory = fs::read_to_string("/proc/meminfo").unwrap();
        let total: f64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
        let resident = series("gunicorn_process_memory_ratio") * total;
        assert!((resident / status(pid, "VmRSS") - 1.0).abs() < 0.1, "{name}: {resident} KiB");
    }
}

/// The same series with the same values, but for the last digit: JSON is read to that.
fn same(one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs();
    one.len() == other.len() && one.iter().zip(other).all(|((a, x), (b, y))| a == b && near(*x, *y))
}

/// What the observer says of itself is what others say of it.
fn check_own(observer: &Observer, page: &Page, served: usize) {
    let pid = observer.pid();
    assert!((page.value("process_resident_memory_bytes") / 1024.0 / status(pid, "VmRSS") - 1.0).abs() < 0.3);
    let cpu = page.value("process_cpu_seconds_total");
    assert!((0.01..60.0).contains(&cpu), "{cpu} s of processor time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = page.value("process_start_time_seconds");
    assert!((now - 300.0..now).contains(&started), "started at {started}, now is {now}");
    let version = format!("sw_observe_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(page.value(&version), 1.0);
    assert_eq!(page.value("sw_observe_ring_bytes"), f64::from(8 << 20));
    assert!(
        page.value("sw_observe_records_total") > 3.0 * served as f64,
        "a request is three records at least"
    );
    assert_eq!(page.value("sw_observe_instances{role=\"worker\"}"), 2.0);
    assert_eq!(page.value("sw_observe_instances{role=\"master\"}"), 1.0);
    assert_eq!(page.value("sw_observe_queue_entries{kind=\"segments\"}"), served as f64);
    assert_eq!(page.value("sw_observe_queue_capacity_entries{kind=\"segments\"}"), 5000.0);
    let lost = |of: &str| page.series(of).filter(|(_, lost)| *lost > 0.0).count();
    assert_eq!(lost("sw_observe_lost_total{"), lost(FOREIGN), "{}", page.text);
    let mut attached = BTreeMap::new();
    observer.lines_from(0, |line| {
        if let Line::Ready { variants } = line {
            attached = serde_json::from_value(variants.clone()).unwrap();
        }
    });
    let attached: BTreeMap<String, String> = attached;
    let wanted: BTreeSet<String> = attached
        .iter()
        .map(|(probe, variant)| format!("sw_observe_probe_info{{probe=\"{probe}\",variant=\"{variant}\"}}"))
        .collect();
    let shown: BTreeSet<String> =
        page.series("sw_observe_probe_info{").map(|(series, _)| series.to_owned()).collect();
    assert_eq!(shown, wanted);
    // The kernel counts a run of a receiving and of a sending program for every request, and time for each.
    for probe in ["receive", "send", "fork", "heartbeat"] {
        let sum = |family: &str| -> f64 {
            let labels = format!("{family}{{probe=\"{probe}\"");
            page.series(&labels).map(|(_, value)| value).sum()
        };
        let (runs, seconds) =
            (sum("sw_observe_program_runs_total"), sum("sw_observe_program_run_seconds_total"));
        let least = if matches!(probe, "receive" | "send") { served as f64 } else { 2.0 };
        assert!(runs >= least, "{probe} ran {runs} times");
        let each = seconds / runs;
        assert!((1e-8..1e-3).contains(&each), "{probe}: {each} s a run");
    }
}

/// The page's families of sw-observe itself are those of README.md.
fn check_names(page: &Page) {
    let readme = fs::read_to_string(package().join("../README.md")).unwrap();
    let words =
        readme.split('`').filter(|word| word.starts_with("sw_observe_") || word.starts_with("process_"));
    let named: BTreeSet<&str> = words.filter(|word| word.is_ascii() && !word.contains(' ')).collect();
    let ours = |name: &&str| name.starts_with("sw_observe_") || name.starts_with("process_");
    assert_eq!(page.families().into_iter().filter(ours).collect::<BTreeSet<_>>(), named);
}

#[test]
fn who_is_gone_has_no_series() {
    let stage = Stage::enter("recycled");
    let address = scrape::free();
    let observer = start("recycled", address, &[]);
    let gunicorn =
        Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app").args(&["--max-requests", "30"]));
    let old = gunicorn.workers();
    observer.wait_instances(&old);
    let has =
        |page: &Page, worker: &u32| !page.of(gunicorn.service(), &gunicorn.worker_name(*worker)).is_empty();
    until(address, "series of the first workers", |page| old.iter().all(|worker| has(page, worker)));

    send_all(gunicorn.address(), Mode::New, 2, plain(80));
    let new = gunicorn.wait_workers(2, &old);
    observer.wait_gone(&old);
    let page = until(address, "series of the new workers", |page| {
        new.iter().all(|worker| has(page, worker)) && !old.iter().any(|worker| has(page, worker))
    });
    for worker in gunicorn.ever().iter().filter(|worker| !new.contains(worker)) {
        let name = gunicorn.worker_name(*worker);
        assert!(!page.text.contains(&name), "{name} is still on the page:\n{}", page.text);
    }
    assert_eq!(page.value("sw_observe_instances{role=\"worker\"}"), 2.0);
    ended(observer);
}

#[test]
fn losses_are_those_of_the_last_line() {
    let stage = Stage::enter("losses");
    let address = scrape::free();
    let observer = start("losses", address, &[]);
    let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app").workers(1));
    observer.wait_instances(&gunicorn.workers());
    let Address::Tcp(to) = gunicorn.address() else { panic!("not TCP") };
    for _ in 0..3 {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.write_all(b"\x16\x03\x01 not HTTP\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok();
    }
    let requests = (0..4).map(|_| Request::get("plain").header("sw8", "nonsense"));
    send_all(gunicorn.address(), Mode::New, 1, requests.collect());
    let lost =
        |page: &Page, reason: &str| page.value(&format!("sw_observe_lost_total{{reason=\"{reason}\"}}"));
    let page = until(address, "losses", |page| lost(page, "bad_sw8") == 4.0 && lost(page, "tls") == 3.0);
    assert_eq!(page.value("sw_observe_reports_total{kind=\"segments\"}"), 0.0);
    let drops = ended(observer);
    for (series, value) in page.series("sw_observe_lost_total{") {
        let reason = series.split('"').nth(1).unwrap();
        if series == FOREIGN {
            continue; // more may have come since
        }
        assert_eq!(value, drops.get(reason).copied().unwrap_or(0) as f64, "{reason}");
    }
    assert_eq!(own(&drops), ["bad_sw8", "tls"]);
}

#[test]
fn whoever_asks_cannot_hurt_it() {
    let stage = Stage::enter("asked");
    let address = scrape::free();
    let mut observer = start("asked", address, &[]);
    let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app"));
    observer.wait_instances(&gunicorn.workers());
    // Its sockets; it also keeps files of the processes that it has numbers of.
    let sockets = |observer: &Observer| {
        let files = fs::read_dir(format!("/proc/{}/fd", observer.pid())).unwrap().flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    scrape::page(address);
    let (before, memory) = (sockets(&observer), status(observer.pid(), "VmRSS"));

    let answer = |request: &[u8]| scrape::ask(address, request).unwrap();
    assert!(answer(b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(
        answer(b"\x16\x03\x01\x02\x00").is_empty() || !answer(b"\x16\r\n\r\n").starts_with("HTTP/1.1 200")
    );
    // It may hang up before all of it is there.
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "h".repeat(1 << 20));
    assert!(!scrape::ask(address, huge.as_bytes()).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let body = format!("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    assert!(answer(body.as_bytes()).starts_with("HTTP/1.1 405 "));

    // Idle, slow to ask, and slow to take the page.
    let idle: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let slow: Vec<_> = (0..30)
        .map(|_| {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
            socket
        })
        .collect();
    let begin = Instant::now();
    scrape::page(address);
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "a scrape beside 80 idle ones took {:?}",
        begin.elapsed()
    );
    let gone = wait(Duration::from_secs(20), || (sockets(&observer) <= before + 2).then_some(()));
    assert!(gone.is_some(), "{} sockets, {before} before", sockets(&observer));
    drop((idle, slow));
    let grown = status(observer.pid(), "VmRSS") - memory;
    assert!(grown < 8192.0, "it has grown by {grown} KiB");

    // It watches all the while.
    let sent = send_all(gunicorn.address(), Mode::New, 2, plain(50));
    observer.wait_requests(&gunicorn, &sent);
    assert!(observer.is_running());
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(segments(&report.lines, gunicorn.service()).count(), sent.len());
}

/// What is answered is whole; the rest is refused or cut with an error, and the stop does not wait for it.
#[test]
fn a_stop_does_not_wait_for_scrapes() {
    let _stage = Stage::enter("stopped");
    let address = scrape::free();
    let observer = start("stopped", address, &[]);
    let pid = observer.pid();
    let _idle: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    let scrapers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let (mut whole, until) = (0, Instant::now() + Duration::from_secs(30));
                while let Ok((head, _)) = scrape::get(address) {
                    assert!(head.starts_with("HTTP/1.1 200 ") && Instant::now() < until, "{head}");
                    whole += 1;
                }
                whole
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    kill(pid, Signal::TERM);
    let report = observer.stop();
    report.assert_code(0);
    assert!(report.took < Duration::from_secs(5), "{:?}", report.took);
    let whole: usize = scrapers.into_iter().map(|scraper| scraper.join().unwrap()).sum();
    assert!(whole > 4, "only {whole} pages");
    assert!(TcpStream::connect(address).is_err(), "somebody still listens");
}

/// A number that nobody counted is not on the page.
#[test]
fn without_the_right_to_it_costs_are_left_out() {
    let _stage = Stage::enter("uncounted");
    let address = scrape::free();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]).arg(binary());
    command.args(["--target", "gunicorn:service=nobody", "--print=json"]);
    command.args(["--metrics-listen", &address.to_string()]);
    let observer = ready(&mut command);
    let page = scrape::page(address);
    assert_eq!(page.series("sw_observe_program_").count(), 0, "{}", page.text);
    assert!(page.value("process_cpu_seconds_total") > 0.0);
    scrape::check(&page);
    let report = observer.stop();
    report.assert_code(0);
    let said = |line: &str| line.contains("WARN") && line.contains("CAP_SYS_ADMIN");
    assert_eq!(report.stderr.lines().filter(|line| said(line)).count(), 1, "{}", report.stderr);
}

/// In a network of its own, so that nobody but this test can ask.
#[test]
fn other_addresses_than_loopback_are_warned_about() {
    let _stage = Stage::enter("open");
    let warned =
        |stderr: &str| stderr.lines().any(|line| line.contains("WARN") && line.contains("is not loopback"));
    for address in ["0.0.0.0:9105", "[::]:9105"] {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(binary());
        command.args(["--target", "gunicorn:service=nobody", "--print=json", "--metrics-listen", address]);
        let report = ready(&mut command).stop();
        report.assert_code(0);
        assert!(warned(&report.stderr), "{address}:\n{}", report.stderr);
        assert!(report.stderr.contains(&format!("http://{address}/metrics")), "{}", report.stderr);
    }
    let report = start("open", scrape::free(), &[]).stop();
    report.assert_code(0);
    assert!(!warned(&report.stderr), "{}", report.stderr);
}
