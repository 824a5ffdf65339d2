//! Control groups: ends for want of memory, a group that is killed, and what the path of a group tells of a container.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::fs;
use std::process;
use std::time::Duration;

use harness::cgroup::Cgroup;
use harness::client::Client;
use harness::client::Mode;
use harness::client::Sent;
use harness::container::Container;
use harness::container::First;
use harness::container::Recipe;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::alive;
use harness::gunicorn::kill;
use harness::life::cause;
use harness::life::exit;
use harness::observer::Instance;
use harness::observer::Observer;
use harness::observer::instances;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
/// The limit of a group for a gunicorn with two workers, which need a third of it.
const MIB: u64 = 120;
const CONTAINER: &str = "4f1d2c3b4a5968778695a4b3c2d1e0f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const POD: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

fn wild() -> Launch {
    Launch::new("sync", "wild_app:app")
}

fn both(name: &str, case: impl Fn(&Stage, bool)) {
    for late in [false, true] {
        case(&Stage::enter(name), late);
    }
}

/// The observer, first or last, and a gunicorn all of whose processes are in a group.
fn grouped(stage: &Stage, late: bool, group: &Cgroup) -> (Observer, Gunicorn) {
    let early = (!late).then(|| Observer::start(&[]));
    let gunicorn = Gunicorn::start(stage, &wild());
    for pid in [vec![gunicorn.master()], gunicorn.workers()].concat() {
        group.add(pid);
    }
    let observer = early.unwrap_or_else(|| Observer::start(&[]));
    observer.wait_instances(&gunicorn.workers());
    (observer, gunicorn)
}

fn ask(gunicorn: &Gunicorn, action: &str, query: &str) -> Sent {
    Client::new(gunicorn.address(), Mode::New).send(&Request::get(action).query(query))
}

/// What the final Exit event of a process says.
fn ended(observer: &Observer, gunicorn: &Gunicorn, pid: u32) -> Option<(String, Option<String>)> {
    let mut found = None;
    observer.wait(PATIENCE, |lines| {
        let event = exit(lines, gunicorn.service(), pid);
        found = event.map(|event| {
            let cause = event.parameters.get("cause").cloned().unwrap_or_default();
            (cause, event.parameters.get("sender_pid").cloned())
        });
        found.is_some()
    });
    found
}

/// The worker itself asks for too much.
#[test]
fn a_worker_that_eats_all_memory() {
    both("oom-self", |stage, late| {
        let group = Cgroup::memory(&format!("sw-{}", stage.service()), MIB);
        let (observer, gunicorn) = grouped(stage, late, &group);
        let old = gunicorn.workers();
        let sent = ask(&gunicorn, "eat", "mib=400");
        assert!(sent.status.is_none(), "400 MiB fit in {MIB}: {sent:?}");
        let victim = wait(PATIENCE, || old.iter().copied().find(|pid| !alive(*pid))).unwrap();
        gunicorn.wait_workers(2, &[victim]);
        assert_eq!(group.oom_kills(), 1, "the kernel's count of kills");
        let how = ended(&observer, &gunicorn, victim);
        assert_eq!(how.map(|(cause, _)| cause).as_deref(), Some("oom"), "{}", observer.stderr());
        observer.stop().assert_code(0);
    });
}

/// Another task asks for too much, and this worker is chosen: the signal has a foreign sender.
#[test]
fn a_worker_that_dies_of_anothers_appetite() {
    both("oom-other", |stage, late| {
        let group = Cgroup::memory(&format!("sw-{}", stage.service()), MIB);
        let (observer, gunicorn) = grouped(stage, late, &group);
        let victim = ask(&gunicorn, "eat", "mib=40").worker.unwrap();
        fs::write(format!("/proc/{victim}/oom_score_adj"), "1000").unwrap();
        kill(victim, Signal::STOP); // so that the other one serves
        let mut eater = None;
        for _ in 0..(MIB / 5) {
            eater = ask(&gunicorn, "eat", "mib=5").worker;
            if group.oom_kills() > 0 {
                break;
            }
        }
        assert!(eater.is_some_and(|eater| eater != victim), "{eater:?} has eaten, not {victim}");
        assert_eq!(group.oom_kills(), 1, "the kernel's count of kills");
        let how = ended(&observer, &gunicorn, victim);
        assert_eq!(how.map(|(cause, _)| cause).as_deref(), Some("oom"), "{}", observer.stderr());
        gunicorn.wait_workers(2, &[victim]);
        observer.stop().assert_code(0);
    });
}

/// `cgroup.kill` is an order from outside, by whoever wrote to the file.
#[test]
fn a_killed_group() {
    both("cgroup-kill", |stage, late| {
        let group = Cgroup::v2(&format!("sw-{}", stage.service()));
        let early = (!late).then(|| Observer::start(&[]));
        let gunicorn = Gunicorn::start(stage, &wild());
        let observer = early.unwrap_or_else(|| Observer::start(&[]));
        let old = gunicorn.workers();
        observer.wait_instances(&old);
        group.add(old[0]);
        group.kill();
        let fresh = gunicorn.wait_workers(2, &old[..1]);
        let me = Some(process::id().to_string());
        assert_eq!(ended(&observer, &gunicorn, old[0]), Some(("killed".to_owned(), me.clone())));
        observer.wait_instances(&fresh);
        let all = [vec![gunicorn.master()], fresh].concat();
        for pid in &all {
            group.add(*pid);
        }
        group.kill();
        for pid in all {
            assert_eq!(ended(&observer, &gunicorn, pid), Some(("killed".to_owned(), me.clone())), "{pid}");
        }
        observer.stop().assert_code(0);
    });
}

/// The instances of a gunicorn in a container in this group, which have a service that is found by `is_ours`.
fn told(stage: &Stage, late: bool, recipe: &Recipe<'_>, service: &str) -> Vec<Instance> {
    let early = (!late).then(|| Observer::start(&[]));
    let container = Container::start(stage, recipe);
    let observer = early.unwrap_or_else(|| Observer::start(&[]));
    let workers: Vec<_> = container.workers().iter().map(|member| member.pid).collect();
    observer.wait_instances(&workers);
    let report = observer.stop();
    report.assert_code(0);
    let found: Vec<_> = instances(&report.lines, service).cloned().collect();
    assert_eq!(found.len(), workers.len() + 1, "instances of {service}: {:?}", report.lines);
    found
}

fn assert_property(instance: &Instance, wanted: &str) {
    let found = instance.properties.values().any(|value| value.as_str() == Some(wanted));
    assert!(found, "no property of {} is {wanted}: {:?}", instance.instance, instance.properties);
}

/// Paths as Docker and as Kubernetes make them, by either of their drivers.
#[test]
fn ids_in_the_path_of_a_group() {
    let flat = POD.replace('-', "_");
    let paths = [
        (format!("docker/{CONTAINER}"), false),
        (format!("system.slice/docker-{CONTAINER}.scope"), false),
        (format!("kubepods/burstable/pod{POD}/{CONTAINER}"), true),
        (
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{flat}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            true,
        ),
    ];
    both("ids", |stage, late| {
        for (path, is_pod) in &paths {
            let group = Cgroup::plain(&format!("sw-test-{}/{path}", process::id()));
            let service = stage.service();
            let launch = wild().workers(1).env("SW_AGENT_NAME", &service);
            let recipe = Recipe::new(First::Tini, "box-ids", launch).within(&group);
            for instance in told(stage, late, &recipe, &service) {
                assert_property(&instance, CONTAINER);
                if *is_pod {
                    assert_property(&instance, POD);
                }
            }
        }
    });
}

/// Nothing names an embedded gunicorn, so the pod's name does: a Deployment's and a StatefulSet's.
#[test]
fn the_name_of_a_workload() {
    both("workload", |stage, late| {
        for (pod, workload) in [("shop-7d9f8b6c5d-x2x4z", "shop"), ("ledger-3", "ledger")] {
            let path = format!("sw-test-{}/kubepods/burstable/pod{POD}/{CONTAINER}", process::id());
            let group = Cgroup::plain(&path);
            let launch = wild().workers(1).env("HOSTNAME", pod);
            let recipe =
                Recipe::new(First::Gunicorn, pod, launch).program("/srv/app/embedded.py").within(&group);
            for instance in told(stage, late, &recipe, workload) {
                assert!(instance.instance.starts_with(&format!("{pod}-master(1)")), "{instance:?}");
                assert_property(&instance, POD);
            }
        }
    });
}

/// A worker's end is the same in a container whose memory is limited: what most people have.
#[test]
fn a_container_with_too_little_memory() {
    both("oom-box", |stage, late| {
        let group = Cgroup::memory(&format!("sw-{}", stage.service()), MIB);
        let service = stage.service();
        let launch = wild().env("SW_AGENT_NAME", &service);
        let early = (!late).then(|| Observer::start(&[]));
        let container =
            Container::start(stage, &Recipe::new(First::Gunicorn, "box-oom", launch).within(&group));
        let observer = early.unwrap_or_else(|| Observer::start(&[]));
        let old = container.workers();
        observer.wait_instances(&[old[0].pid, old[1].pid]);
        Client::new(&container.address(), Mode::New).send(&Request::get("eat").query("mib=400"));
        let victim = wait_victim(&container, &old.iter().map(|old| old.pid).collect::<Vec<_>>());
        assert_eq!(group.oom_kills(), 1, "the kernel's count of kills");
        let reported = observer.wait(PATIENCE, |lines| cause(lines, &service, victim) == Some("oom"));
        assert!(reported, "no exit with cause oom for {victim}\n{}", observer.stderr());
        drop(container);
        observer.stop().assert_code(0);
    });
}

fn wait_victim(container: &Container, old: &[u32]) -> u32 {
    let gone = || {
        let left = container.workers();
        old.iter().copied().find(|pid| !left.iter().any(|member| member.pid == *pid))
    };
    wait(PATIENCE, gone).unwrap()
}
