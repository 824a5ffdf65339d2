//! Containers without Docker: numbers inside that repeat, processes that change their parent, a torn down namespace.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]
//! Each with the observer there first, and with one that comes when everything runs.

use std::collections::BTreeSet;
use std::process;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::container::Container;
use harness::container::First;
use harness::container::Member;
use harness::container::Recipe;
use harness::container::parent;
use harness::gunicorn::Launch;
use harness::gunicorn::kill;
use harness::life::cause;
use harness::life::exit;
use harness::life::role;
use harness::life::roles;
use harness::observer::Instance;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::Report;
use harness::observer::instances;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

fn launch(service: &str) -> Launch {
    Launch::new("sync", "wild_app:app").env("SW_AGENT_NAME", service)
}

/// The first worker of each is number 101 inside, the second 102.
fn numbered(service: &str) -> Launch {
    launch(service).env("TEST_LAST_PID", "100")
}

/// Starts the observer first or last.
fn observed<T>(late: bool, start: impl FnOnce() -> T) -> (Observer, T) {
    if late {
        let started = start();
        return (Observer::start(&[]), started);
    }
    let observer = Observer::start(&[]);
    let started = start();
    (observer, started)
}

/// Each case with the observer first and late.
fn both(name: &str, case: impl Fn(&Stage, &str, bool)) {
    for late in [false, true] {
        let stage = Stage::enter(name);
        case(&stage, &stage.service(), late);
    }
}

fn pids(members: &[Member]) -> Vec<u32> {
    members.iter().map(|member| member.pid).collect()
}

fn send(container: &Container, count: usize) -> Vec<Sent> {
    let mut client = Client::new(&container.address(), Mode::New);
    let sent: Vec<_> = (0..count).map(|_| client.send(&Request::get("plain"))).collect();
    assert!(sent.iter().all(|sent| sent.status == Some(200)), "{sent:?}");
    sent
}

/// The number outside of the process whose number inside an action answered.
fn forked(container: &Container) -> Member {
    let sent = Client::new(&container.address(), Mode::New).send(&Request::get("fork"));
    let inner = String::from_utf8_lossy(&sent.body).trim().parse().ok();
    let found = inner.and_then(|inner| container.member(inner));
    found.unwrap_or_else(|| panic!("no child was forked: {sent:?}"))
}

fn wait_role(observer: &Observer, pid: u32, wanted: &str) {
    let mut last = Vec::new();
    let found = observer.wait(PATIENCE, |lines| {
        last = roles(lines, pid).into_iter().map(|role| role.map(str::to_owned)).collect();
        role(lines, pid) == Some(wanted)
    });
    assert!(found, "{pid} is no {wanted} but {last:?}; log of sw-observe:\n{}", observer.stderr());
}

fn wait_causes(observer: &Observer, service: &str, ends: &[(u32, &str)]) {
    observer.wait(PATIENCE, |lines| ends.iter().all(|(pid, _)| cause(lines, service, *pid).is_some()));
    let mut seen = Vec::new();
    observer.wait(Duration::ZERO, |lines| {
        seen = ends.iter().map(|(pid, _)| (*pid, cause(lines, service, *pid).map(str::to_owned))).collect();
        true
    });
    let wanted: Vec<_> = ends.iter().map(|(pid, cause)| (*pid, Some((*cause).to_owned()))).collect();
    assert_eq!(seen, wanted, "causes (left: reported); log of sw-observe:\n{}", observer.stderr());
}

fn name_of(lines: &[Line], service: &str, pid: u32) -> Option<String> {
    instances(lines, service).find(|found| found.pid == pid).map(|found| found.instance.clone())
}

/// The master and the workers are instances by these names, each once, and nothing else of this service is.
fn assert_names(report: &Report, service: &str, wanted: &[(Member, String)]) {
    let mut seen: Vec<_> =
        instances(&report.lines, service).map(|found| (found.pid, found.instance.clone())).collect();
    let mut wanted: Vec<_> = wanted.iter().map(|(member, name)| (member.pid, name.clone())).collect();
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted, "instances (left: reported)\n{}", report.stderr);
}

/// The names of a container's master and of these workers, by their numbers inside.
fn names(base: &str, master: Member, workers: &[Member]) -> Vec<(Member, String)> {
    let own = format!("{base}-master({})", master.inner);
    let name = |worker: &Member| (*worker, format!("{own}-child({})", worker.inner));
    workers.iter().map(name).chain([(master, own.clone())]).collect()
}

/// Each request is reported once, under the instance that `name` gives for the worker that answered.
fn assert_served(report: &Report, service: &str, sent: &[Sent], name: impl Fn(u32) -> String) {
    for sent in sent {
        let of = |wanted: &&harness::observer::Segment| {
            wanted.spans.last().is_some_and(|span| span.operation == sent.path)
        };
        let found: Vec<_> =
            segments(&report.lines, service).filter(of).map(|s| s.instance.as_str()).collect();
        assert_eq!(found, [name(sent.worker.unwrap())], "{sent:?}\n{}", report.stderr);
    }
}

fn wait_segments(observer: &Observer, service: &str, count: usize) {
    observer.wait(PATIENCE, |lines| segments(lines, service).count() >= count);
}

/// Number 1 is the master, and so becomes the parent of what a killed worker leaves behind.
#[test]
fn an_app_child_that_comes_to_the_master_is_no_worker() {
    both("adopted", |stage, service, late| {
        let (observer, (container, child, old)) = observed(late, || {
            let container = Container::start(stage, &Recipe::new(First::Gunicorn, "box-86", launch(service)));
            let child = forked(&container);
            (container, child, parent(child.pid).unwrap())
        });
        let (master, first) = (container.master(), container.workers());
        observer.wait_instances(&pids(&first));
        wait_role(&observer, child.pid, "app-child");
        kill(old, Signal::KILL);
        let gone = first.iter().copied().find(|member| member.pid == old).unwrap();
        let second = container.wait_workers(2, &[gone]);
        assert_eq!(parent(child.pid), Some(master.pid), "the master has not taken the child");
        observer.wait_instances(&pids(&second));
        let sent = send(&container, 20);
        wait_causes(&observer, service, &[(old, "killed")]);
        wait_segments(&observer, service, 20);
        wait_role(&observer, child.pid, "app-child");
        kill(child.pid, Signal::KILL);
        let ended = observer.wait(PATIENCE, |lines| roles(lines, child.pid).last() == Some(&None));
        assert!(ended, "the child's end is not reported\n{}", observer.stderr());
        let report = observer.stop();
        report.assert_code(0);
        assert_eq!(roles(&report.lines, child.pid), [Some("app-child"), None]);
        let by = exit(&report.lines, service, old).and_then(|event| event.parameters.get("sender_pid"));
        assert_eq!(by, Some(&process::id().to_string()), "who killed");
        let all: BTreeSet<_> = first.iter().chain(&second).copied().collect();
        let all: Vec<_> = all.into_iter().collect();
        assert_names(&report, service, &names("box-86", master, &all));
        let name = |worker| format!("box-86-master({})-child({worker})", master.inner);
        assert_served(&report, service, &sent, name);
    });
}

/// The same, for an observer that finds it so: an orphan or an app child, but no worker.
#[test]
fn an_app_child_found_with_the_master_is_no_worker() {
    let stage = Stage::enter("found");
    let service = stage.service();
    let container = Container::start(&stage, &Recipe::new(First::Gunicorn, "box-86", launch(&service)));
    let (child, old) = (forked(&container), container.workers());
    kill(parent(child.pid).unwrap(), Signal::KILL);
    let gone = wait(PATIENCE, || old.iter().find(|m| !container.workers().contains(m)).copied()).unwrap();
    let workers = container.wait_workers(2, &[gone]);
    let observer = Observer::start(&[]);
    observer.wait_instances(&pids(&workers));
    send(&container, 20);
    wait_segments(&observer, &service, 20);
    let report = observer.stop();
    let found = role(&report.lines, child.pid);
    assert!(matches!(found, Some("orphan" | "app-child")), "{found:?} is the role of an app child");
    let name = name_of(&report.lines, &service, child.pid);
    assert_eq!(name, None, "an app child is an instance");
}

/// Two containers, the same numbers inside, the same service: host names keep them apart.
#[test]
fn two_containers_with_the_same_numbers_inside() {
    both("twins", |stage, service, late| {
        let start = |host| Container::start(stage, &Recipe::new(First::Tini, host, numbered(service)));
        let (observer, boxes) = observed(late, || [start("box-a"), start("box-b")]);
        let [a, b] = boxes.each_ref().map(|container| (container.master(), container.workers()));
        let inner = |(master, workers): &(Member, Vec<Member>)| {
            [*master].iter().chain(workers).map(|member| member.inner).collect::<Vec<_>>()
        };
        assert_eq!(inner(&a), inner(&b), "the containers have other numbers inside");
        observer.wait_instances(&pids(&[a.1.clone(), b.1.clone()].concat()));
        let sent = boxes.each_ref().map(|container| send(container, 20));
        wait_segments(&observer, service, 40);
        kill(a.1[0].pid, Signal::KILL);
        wait_causes(&observer, service, &[(a.1[0].pid, "killed")]);
        let report = observer.stop();
        report.assert_code(0);
        for (host, (master, _), sent) in [("box-a", &a, &sent[0]), ("box-b", &b, &sent[1])] {
            let name = |worker| format!("{host}-master({})-child({worker})", master.inner);
            assert_served(&report, service, sent, name);
        }
        let event = exit(&report.lines, service, a.1[0].pid).unwrap();
        assert_eq!(event.instance, format!("box-a-master({})-child({})", a.0.inner, a.1[0].inner));
        for container in &boxes {
            let (first, tini) = (container.first(), role(&report.lines, container.first()));
            assert_eq!(tini, None, "tini ({first}) has a role");
        }
    });
}

/// The same host name as well: still four workers, and each request with its own.
#[test]
fn two_containers_with_the_same_host_name() {
    both("clones", |stage, service, late| {
        let start = || Container::start(stage, &Recipe::new(First::Tini, "box", numbered(service)));
        let (observer, boxes) = observed(late, || [start(), start()]);
        let workers = boxes.each_ref().map(Container::workers);
        observer.wait_instances(&pids(&workers.concat()));
        let sent = boxes.each_ref().map(|container| send(container, 20));
        wait_segments(&observer, service, 40);
        let report = observer.stop();
        let found: BTreeSet<_> = instances(&report.lines, service).map(|found| &found.instance).collect();
        assert_eq!(found.len(), 6, "two masters and four workers have the names {found:?}");
        for (workers, sent) in workers.iter().zip(&sent) {
            let name = |worker: u32| {
                let member = workers.iter().find(|member| member.inner == worker).unwrap();
                name_of(&report.lines, service, member.pid).unwrap()
            };
            assert_served(&report, service, sent, name);
        }
    });
}

/// Number 1 is killed, so the kernel ends the rest.
#[test]
fn a_killed_first_process_takes_the_others_along() {
    both("torn", |stage, service, late| {
        for first in [First::Gunicorn, First::Tini] {
            let start = || Container::start(stage, &Recipe::new(first, "box-88", launch(service)));
            let (observer, container) = observed(late, start);
            let (master, workers) = (container.master(), container.workers());
            observer.wait_instances(&pids(&workers));
            kill(container.first(), Signal::KILL);
            let whole = if first == First::Gunicorn { "killed" } else { "container" };
            let mut ends = vec![(master.pid, whole)];
            ends.extend(workers.iter().map(|worker| (worker.pid, "container")));
            wait_causes(&observer, service, &ends);
            let report = observer.stop();
            report.assert_code(0);
            assert_names(&report, service, &names("box-88", master, &workers));
        }
    });
}

/// A killed worker's successor has its number inside, milliseconds later.
#[test]
fn a_number_that_is_used_again() {
    both("reused", |stage, service, late| {
        let recipe = Recipe::new(First::Gunicorn, "box-90", numbered(service).workers(1));
        let (observer, container) = observed(late, || Container::start(stage, &recipe));
        let mut all = container.workers();
        observer.wait_instances(&pids(&all));
        for _ in 0..3 {
            let old = all[all.len() - 1];
            kill(old.pid, Signal::KILL);
            let fresh = container.wait_workers(1, &[old])[0];
            assert_eq!(fresh.inner, old.inner, "ns_last_pid is not heeded");
            observer.wait_instances(&[fresh.pid]);
            send(&container, 5);
            all.push(fresh);
        }
        wait_segments(&observer, service, 15);
        let killed: Vec<_> = all.iter().take(3).map(|old| (old.pid, "killed")).collect();
        wait_causes(&observer, service, &killed);
        let report = observer.stop();
        report.assert_code(0);
        for member in &all {
            let found: Vec<_> = instances(&report.lines, service).filter(|i| i.pid == member.pid).collect();
            let is_named = |found: &Instance| found.instance.starts_with("box-90-master(1)-child(101)");
            assert!(matches!(found.as_slice(), [one] if is_named(one)), "{member:?}: {found:?}");
        }
        assert_eq!(segments(&report.lines, service).count(), 15);
    });
}

/// A pod whose containers share a pid namespace: number 1 is a pause, each gunicorn has a number above.
#[test]
fn a_pod_that_shares_its_processes() {
    both("pod", |stage, service, late| {
        let other = stage.service();
        let (observer, (_pause, a, b)) = observed(late, || {
            let pause = Container::start(stage, &Recipe::new(First::Pause, "pod-97", launch(service)));
            let beside = |first, name: &str| {
                Container::start(stage, &Recipe::new(first, "pod-97", launch(name)).beside(&pause))
            };
            let boxes = (beside(First::Gunicorn, service), beside(First::Tini, &other));
            (pause, boxes.0, boxes.1)
        });
        for (container, service) in [(&a, service), (&b, &*other)] {
            let (master, workers) = (container.master(), container.workers());
            assert!(master.inner > 1);
            observer.wait_instances(&pids(&workers));
            let sent = send(container, 10);
            wait_segments(&observer, service, 10);
            kill(master.pid, Signal::TERM);
            let ends: Vec<_> = workers.iter().chain([&master]).map(|m| (m.pid, "shutdown")).collect();
            wait_causes(&observer, service, &ends);
            let mut seen = Vec::new();
            observer.wait(Duration::ZERO, |lines| {
                seen = instances(lines, service).map(|found| (found.pid, found.instance.clone())).collect();
                true
            });
            seen.sort();
            let mut wanted: Vec<_> = names("pod-97", master, &workers)
                .into_iter()
                .map(|(member, name)| (member.pid, name))
                .collect();
            wanted.sort();
            assert_eq!(seen, wanted);
            assert_eq!(sent.len(), 10);
        }
        observer.stop().assert_code(0);
    });
}

/// A container by an OCI runtime, whose root is pivoted and not only changed.
#[test]
fn an_oci_runtime() {
    both("oci", |stage, service, late| {
        let start = || Container::start(stage, &Recipe::new(First::Crun, "box-oci", launch(service)));
        let (observer, mut container) = observed(late, start);
        let (master, workers) = (container.master(), container.workers());
        observer.wait_instances(&pids(&workers));
        let sent = send(&container, 20);
        wait_segments(&observer, service, 20);
        container.stop();
        let ends: Vec<_> = workers.iter().chain([&master]).map(|m| (m.pid, "shutdown")).collect();
        wait_causes(&observer, service, &ends);
        let report = observer.stop();
        report.assert_code(0);
        assert_names(&report, service, &names("box-oci", master, &workers));
        let name = |worker| format!("box-oci-master({})-child({worker})", master.inner);
        assert_served(&report, service, &sent, name);
    });
}
