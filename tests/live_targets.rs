//! What is watched and what is not: targets, exclusions, gunicorns with an agent inside; and under which names.
#![expect(clippy::panic, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::process;
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::cgroup::Cgroup;
use harness::client::Address;
use harness::client::Client;
use harness::client::Connection;
use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::life::events;
use harness::life::roles;
use harness::observer::Instance;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::Report;
use harness::observer::binary;
use harness::observer::instances;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
/// Until then what began is looked at: the ring is read every 50 ms.
const KNOWN: Duration = Duration::from_secs(1);
/// How OAP cuts names of services and instances.
const LIMIT: usize = 70;

/// With these arguments and no target of its own.
fn watching(args: &[String]) -> Observer {
    let observer = Observer::spawn(Command::new(binary()).arg("--print=json").args(args));
    let ready = observer.wait(PATIENCE, |lines| lines.iter().any(|line| matches!(line, Line::Ready { .. })));
    assert!(ready, "sw-observe is not ready with {args:?}; its log:\n{}", observer.stderr());
    observer
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn one(stage: &Stage) -> Gunicorn {
    let name = stage.service();
    Gunicorn::start(stage, &Launch::new("sync", "wsgi_app:app").workers(1).args(&["--name", &name]))
}

fn port(gunicorn: &Gunicorn) -> u16 {
    match gunicorn.address() {
        Address::Tcp(address) | Address::Tls(address, _) => address.port(),
        Address::Unix(path) | Address::TlsUnix(path, _) => panic!("{} has no port", path.display()),
    }
}

fn get(gunicorn: &Gunicorn) {
    let sent = Client::new(gunicorn.address(), Mode::New).send(&Request::get("plain"));
    assert_eq!(sent.status, Some(200), "{sent:?}");
}

/// Both processes of each are instances of this service, with a segment each; of all others nothing is said.
fn assert_only(report: &Report, all: &[&Gunicorn], wanted: &[(usize, &str)], args: &[String]) {
    for (at, gunicorn) in all.iter().enumerate() {
        let pids: BTreeSet<u32> = gunicorn.ever().into_iter().chain([gunicorn.master()]).collect();
        let of = |line: &Line| {
            let Line::Instance(instance) = line else { return None };
            pids.contains(&instance.pid).then(|| instance.service.clone())
        };
        let services: Vec<String> = report.lines.iter().filter_map(of).collect();
        let service = wanted.iter().find(|(wanted, _)| *wanted == at).map(|(_, service)| *service);
        let expected = vec![service.unwrap_or_default(); if service.is_some() { pids.len() } else { 0 }];
        assert_eq!(services, expected, "{args:?}, gunicorn {at}\n{}", report.stderr);
        match service {
            Some(service) => assert!(segments(&report.lines, service).count() > 0, "{args:?}: {service}"),
            None => {
                let own = gunicorn.service();
                assert_eq!(segments(&report.lines, own).count(), 0, "{args:?}: {own}");
                assert!(events(&report.lines, own).is_empty(), "{args:?}: {own}");
                let left = pids.iter().filter(|pid| roles(&report.lines, **pid).pop().flatten().is_some());
                assert_eq!(left.count(), 0, "{args:?}: {own} has roles");
            }
        }
    }
}

/// Each key of a target, exclusions, several targets with names of their own; all is there before the observer.
#[test]
fn conditions_of_targets() {
    let stage = Stage::enter("targets");
    let (a, b, c) = (one(&stage), one(&stage), one(&stage));
    let all = [&a, &b, &c];
    let [own_a, own_b, own_c] = all.map(Gunicorn::service);
    let group = Cgroup::plain(&format!("sw-targets-{}", process::id()));
    group.add(b.master());
    let others = format!("--exclude cmd=*pytest* --exclude pid={}", process::id());
    let (pid, door) = (b.master(), port(&c));
    let cases: [(String, Vec<(usize, &str)>); 8] = [
        (format!("--target gunicorn:service={own_a}"), vec![(0, own_a)]),
        (format!("--target gunicorn:pid={pid}"), vec![(1, own_b)]),
        (format!("--target gunicorn:port={door}"), vec![(2, own_c)]),
        (format!("--target gunicorn:cgroup=*/sw-targets-{}", process::id()), vec![(1, own_b)]),
        (format!("--target gunicorn:cmd=*--name*{}*", name_of(&a)), vec![(0, own_a)]),
        (format!("--exclude service={own_a} {others}"), vec![(1, own_b), (2, own_c)]),
        (
            format!("--target gunicorn:port={door},as=three --target gunicorn:pid={pid},as=two"),
            vec![(1, "two"), (2, "three")],
        ),
        (
            format!("--target gunicorn:service=live-targets-* --exclude port={door},service={own_c}"),
            vec![(0, own_a), (1, own_b)],
        ),
    ];
    for (args, wanted) in cases {
        let args = words(&args);
        let observer = watching(&args);
        all.iter().for_each(|gunicorn| get(gunicorn));
        observer
            .wait(PATIENCE, |lines| wanted.iter().all(|(_, service)| segments(lines, service).count() > 0));
        assert_only(&observer.stop(), &all, &wanted, &args);
    }
}

/// What gunicorn itself is called, from its command line.
fn name_of(gunicorn: &Gunicorn) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", gunicorn.master())).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    line.split("--name\0").nth(1).and_then(|rest| rest.split('\0').next()).unwrap_or_default().to_owned()
}

/// What comes later is a target or none just the same, whatever happens to it.
#[test]
fn targets_that_come_later() {
    let stage = Stage::enter("later");
    let service = stage.service();
    let args = words(&format!("--target gunicorn:service={service}"));
    let observer = watching(&args);
    let launch = Launch::new("gthread", "wsgi_app:app").workers(1);
    let target = Gunicorn::start(&stage, &launch.clone().env("SW_AGENT_NAME", &service));
    let other = Gunicorn::start(&stage, &launch);
    thread::sleep(KNOWN);
    babble(&other); // its worker was forked before it was known to be none
    for gunicorn in [&target, &other] {
        let old = gunicorn.workers();
        get(gunicorn);
        gunicorn.signal(Signal::HUP);
        gunicorn.wait_workers(1, &old);
        get(gunicorn);
    }
    observer.wait(PATIENCE, |lines| segments(lines, &service).count() == 2);
    let report = observer.stop();
    assert_only(&report, &[&target, &other], &[(0, &service)], &args);
    assert_eq!(report.drops().get("not_http").copied().unwrap_or_default(), 0, "{}", report.stderr);
}

/// Says what is no request; who reads it counts that.
fn babble(gunicorn: &Gunicorn) {
    for _ in 0..10 {
        let mut connection = Connection::open(gunicorn.address()).unwrap_or_else(|error| panic!("{error}"));
        connection.write_raw(b"no request\r\n\r\n").unwrap_or_else(|error| panic!("{error}"));
        connection.drain();
    }
}

/// What the SkyWalking agent's starter leaves in the environment is a reason to stand aside; other vendors' is none.
#[test]
fn an_agent_inside() {
    let stage = Stage::enter("inside");
    let signs = [
        ("prefork", "gunicorn", true),
        ("SW_PYTHON_PREFIX", "/opt/python", true),
        ("PYTHONPATH", "/opt/site-packages/skywalking/bootstrap/loader", true),
        ("DD_SERVICE", "other", false),
        ("NEW_RELIC_APP_NAME", "other", false),
        ("PYTHONPATH", "/opt/opentelemetry/instrumentation/auto_instrumentation", false),
    ];
    for (name, value, is_inside) in signs {
        let launch = Launch::new("sync", "wsgi_app:app").workers(1).env(name, value);
        let first = Observer::start(&[]);
        let gunicorn = Gunicorn::start(&stage, &launch);
        let late = Observer::start(&[]);
        let beside = Observer::start(&["--beside-agent"]);
        let both = [gunicorn.master(), gunicorn.workers().first().copied().unwrap_or_default()];
        beside.wait_instances(&both);
        get(&gunicorn);
        assert!(
            beside.wait(PATIENCE, |lines| segments(lines, gunicorn.service()).count() == 1),
            "{name} with --beside-agent\n{}",
            beside.stderr()
        );
        beside.stop();
        for observer in [first, late] {
            let expected = if is_inside { 0 } else { 1 };
            observer.wait(PATIENCE, |lines| segments(lines, gunicorn.service()).count() >= expected);
            let report = observer.stop();
            let found: Vec<&Instance> = instances(&report.lines, gunicorn.service()).collect();
            let pids: Vec<u32> = found.iter().map(|instance| instance.pid).collect();
            assert_eq!(pids, if is_inside { &both[..1] } else { &both[..] }, "{name}={value}");
            let said = found.iter().filter(|one| one.properties.contains_key("sw_observe")).count();
            assert_eq!(said, usize::from(is_inside), "{name}={value}: {found:?}");
            assert_eq!(segments(&report.lines, gunicorn.service()).count(), expected, "{name}={value}");
            let lines = report.stderr.lines().filter(|line| line.contains(gunicorn.service()));
            assert_eq!(lines.count(), usize::from(is_inside), "{name}={value}\n{}", report.stderr);
        }
    }
}

/// Every format, first and late; a base that nobody chose, and one that is too long for OAP.
#[test]
fn formats_of_instances() {
    let stage = Stage::enter("formats");
    let long = |tail: &str| format!("{}{tail}", "x".repeat(LIMIT));
    let launch = || Launch::new("sync", "wsgi_app:app");
    let long_one = launch().env("SW_AGENT_NAME", &long("a")).env("SW_AGENT_INSTANCE_NAME", &long("a"));
    let long_two = launch().env("SW_AGENT_NAME", &long("b")).env("SW_AGENT_INSTANCE_NAME", &long("b"));
    let gunicorns = [
        Gunicorn::start(&stage, &launch()),
        Gunicorn::start(&stage, &launch().env("SW_AGENT_INSTANCE_NAME", "")),
        Gunicorn::start(&stage, &long_one),
        Gunicorn::start(&stage, &long_two),
    ];
    let pids: Vec<u32> = gunicorns
        .iter()
        .flat_map(|gunicorn| gunicorn.workers().into_iter().chain([gunicorn.master()]))
        .collect();
    for format in ["agent", "manual", "random"] {
        let observer = Observer::start(&["--instance-format", format, "--namespace", "space"]);
        observer.wait_instances(&pids);
        let report = observer.stop();
        let found: Vec<&Instance> = report
            .lines
            .iter()
            .filter_map(|line| if let Line::Instance(instance) = line { Some(instance) } else { None })
            .filter(|instance| pids.contains(&instance.pid))
            .collect();
        assert_eq!(found.len(), pids.len(), "{format}");
        let names: BTreeSet<_> = found.iter().map(|one| (&one.service, &one.instance)).collect();
        assert_eq!(names.len(), pids.len(), "{format}: two have one name: {names:?}");
        let services: BTreeSet<_> = found.iter().map(|one| &one.service).collect();
        assert_eq!(services.len(), gunicorns.len(), "{services:?}");
        for one in &found {
            assert!(one.instance.chars().count() <= LIMIT && one.service.chars().count() <= LIMIT, "{one:?}");
            assert!(one.service.ends_with("|space"), "{one:?}");
        }
        let [first, host, ..] = &gunicorns;
        for gunicorn in [first, host] {
            let base = base(&found, gunicorn);
            let expected = match (format, gunicorn.service() == first.service()) {
                (_, true) => stage.base.clone(),
                ("random", false) => base.chars().filter(char::is_ascii_hexdigit).take(32).collect(),
                _ => hostname(),
            };
            assert_eq!(base, expected, "{format}");
            for pid in gunicorn.workers() {
                let master = if format == "manual" {
                    String::new()
                } else {
                    format!("-master({})", gunicorn.master())
                };
                let wanted = format!("{base}{master}-child({pid})");
                assert!(
                    found.iter().any(|one| one.pid == pid && one.instance == wanted),
                    "{wanted}: {found:?}"
                );
            }
        }
    }
}

/// What the name of a master begins with.
fn base(found: &[&Instance], gunicorn: &Gunicorn) -> String {
    let master = found.iter().find(|one| one.pid == gunicorn.master()).map(|one| one.instance.as_str());
    master.and_then(|name| name.split_once("-master(")).map(|(base, _)| base.to_owned()).unwrap_or_default()
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
