//! The whole path: a real gunicorn, the real `sw-observe`, a real OAP, which is then asked what it understood.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::gunicorn::kill;
use harness::oap::Entity;
use harness::oap::Ports;
use harness::oap::Server;
use harness::oap::eventually;
use harness::observer::Line;
use harness::observer::Observer;
use harness::request::Request;
use harness::stage::Stage;
use harness::traffic::plain;
use harness::traffic::send_all;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

/// Until OAP shows something, with the longest wait between two attempts to reach it.
const SOON: Duration = Duration::from_secs(45);
const TOKEN: &str = "right";
/// Seconds between two meter reports.
const METERS: u64 = 2;
const TRACE: &str = "live-oap-trace";
/// One that was sampled: trace, segment, span 3, service, instance, endpoint, address; all in Base64.
const SW8: &str = "1-bGl2ZS1vYXAtdHJhY2U=-Y2FsbGVyLXNlZ21lbnQ=-3-Y2FsbGVy-Y2FsbGVyLTE=-L2Zyb250-ZGVtbzo4MDAw";

/// One path through the life of both sides: each start of an OAP takes some ten seconds.
#[test]
fn oap_shows_what_gunicorn_did() {
    let stage = Stage::enter("oap");
    let ports = Ports::free();
    let at = ports.endpoint();
    let meters = METERS.to_string();
    let options = |token| {
        [
            "--oap",
            &at,
            "--authentication",
            token,
            "--heartbeat",
            "1",
            "--meter-period",
            &meters,
            "--tags=agent",
        ]
    };
    let observer = Observer::start(&options(TOKEN));
    let mut gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app"));
    observer.wait_instances(&gunicorn.workers());
    let mut sent = send_all(gunicorn.address(), Mode::New, 2, plain(20));
    let refused = || observer.stderr().matches(&format!("cannot reach OAP {at}")).count();
    eventually("warning", SOON, || (refused() == 1).then_some(()));

    let server = Server::start_at(ports, Some(TOKEN));
    let stranger = Observer::start(&[options("wrong").as_slice(), &["--service", "stranger"]].concat());
    eventually("connection", SOON, || observer.stderr().contains("connected to OAP").then_some(()));
    assert_eq!(refused(), 1, "warned more than once:\n{}", observer.stderr());
    sent.extend(send_all(gunicorn.address(), Mode::New, 4, requests()));

    check_instances(&server, &gunicorn);
    check_traces(&server, &gunicorn, &sent);
    check_metrics(&server, &gunicorn, &sent);
    check_meters(&server, &gunicorn);
    check_stranger(&server, stranger, &at);

    let old = gunicorn.workers();
    kill(old[0], Signal::TERM);
    gunicorn.wait_workers(2, &old[..1]);
    let recycled = gunicorn.workers().into_iter().find(|pid| !old.contains(pid)).expect("a new worker");
    sent.extend(send_all(gunicorn.address(), Mode::New, 2, plain(10)));
    eventually("recycled worker", SOON, || {
        named(&server, &gunicorn).contains(&gunicorn.worker_name(recycled)).then_some(())
    });
    traces(&server, &gunicorn, sent.len());
    check_events(&server, &mut gunicorn, old[0]);

    let server = server.restart();
    let after = send_all(gunicorn.address(), Mode::New, 2, plain(10));
    check_instances(&server, &gunicorn);
    traces(&server, &gunicorn, after.len());

    let pids: Vec<_> = gunicorn.workers().into_iter().chain([gunicorn.master()]).collect();
    gunicorn.stop();
    observer.wait_gone(&pids);
    thread::sleep(Duration::from_secs(2 * METERS));
    assert_eq!(server.traces(gunicorn.service()).len(), after.len());
    let report = observer.stop();
    report.assert_code(0);
    let of_ours = |line: &&Line| matches!(line, Line::Meters { service, .. } | Line::Gone { service, .. } if service == gunicorn.service());
    let last = report.lines.iter().rfind(of_ours);
    assert!(matches!(last, Some(Line::Gone { .. })), "after the end of gunicorn: {last:?}");
}

/// Good ones, failed ones, and one with a caller.
fn requests() -> Vec<Request> {
    let mut requests = plain(24);
    requests.extend((0..8).map(|_| Request::get("missing")));
    requests.extend((0..7).map(|n| Request::post("echo", format!("body {n}"))));
    requests.push(Request::get("plain").query("a=b").header("sw8", SW8));
    requests
}

/// The names of all that live.
fn live(gunicorn: &Gunicorn) -> BTreeMap<String, u32> {
    let workers = gunicorn.workers().into_iter().map(|pid| (gunicorn.worker_name(pid), pid));
    workers.chain([(gunicorn.master_name(), gunicorn.master())]).collect()
}

fn named(server: &Server, gunicorn: &Gunicorn) -> BTreeSet<String> {
    let instances = server.instances(gunicorn.service());
    instances.iter().filter_map(|instance| Some(instance["name"].as_str()?.to_owned())).collect()
}

fn check_instances(server: &Server, gunicorn: &Gunicorn) {
    eventually("service", SOON, || {
        server.services().iter().any(|name| name == gunicorn.service()).then_some(())
    });
    let live = live(gunicorn);
    let instances = eventually("master and workers with their language", SOON, || {
        let instances = server.instances(gunicorn.service());
        let known = instances.iter().all(|instance| instance["language"] == "PYTHON");
        (known && instances.len() == live.len()).then_some(instances)
    });
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    for instance in instances {
        let name = instance["name"].as_str().expect("a name");
        let pid = live.get(name).unwrap_or_else(|| panic!("{name} is none of {live:?}"));
        let value = |name: &str| {
            let attributes = instance["attributes"].as_array().expect("attributes");
            let found = attributes.iter().find(|attribute| attribute["name"] == name);
            found.unwrap_or_else(|| panic!("no {name}: {instance}"))["value"]
                .as_str()
                .expect("text")
                .to_owned()
        };
        assert_eq!(value("OS Name"), "posix");
        assert_eq!(value("Process No."), pid.to_string());
        assert_eq!(value("hostname"), hostname.trim());
        assert_eq!(value("python_implementation"), "CPython");
        assert!(value("python_version").starts_with("3."), "{instance}");
        assert!(!value("ipv4s").is_empty(), "{instance}");
    }
}

/// One worker was killed by this test; then the master reloads.
fn check_events(server: &Server, gunicorn: &mut Gunicorn, killed: u32) {
    let service = gunicorn.service().to_owned();
    let of = |instance: &str, count: usize| {
        let over = |events: &Vec<Value>| {
            events.len() == count && events.iter().all(|event| event["endTime"].as_i64() > Some(0))
        };
        eventually(&format!("{count} events of {instance}"), SOON, || {
            Some(server.events(&service, instance)).filter(over)
        })
    };
    let name = |event: &Value| event["name"].as_str().expect("a name").to_owned();
    let parameter = |event: &Value, key: &str| {
        let parameters = event["parameters"].as_array().expect("parameters");
        let found = parameters.iter().find(|parameter| parameter["key"] == key);
        found.and_then(|parameter| parameter["value"].as_str()).map(str::to_owned)
    };
    let events = of(&gunicorn.worker_name(killed), 2);
    assert_eq!(events.iter().map(name).collect::<Vec<_>>(), ["Start", "Exit"]);
    let exit = &events[1];
    let facts = ["cause", "signal", "sender_pid"].map(|key| parameter(exit, key).expect(key));
    assert_eq!(facts, ["killed".to_owned(), "15".to_owned(), std::process::id().to_string()], "{exit}");
    assert_eq!((exit["layer"].as_str(), parameter(exit, "pid")), (Some("GENERAL"), Some(killed.to_string())));

    let old = gunicorn.workers();
    kill(gunicorn.master(), Signal::HUP);
    gunicorn.wait_workers(2, &old);
    let events = of(&gunicorn.master_name(), 2);
    assert_eq!(events.iter().map(name).collect::<Vec<_>>(), ["Start", "Reload"]);
    assert_eq!(parameter(&events[1], "outcome").as_deref(), Some("reloaded"));
    for pid in old {
        let events = of(&gunicorn.worker_name(pid), 2);
        assert_eq!(parameter(&events[1], "cause").as_deref(), Some("reload"), "{events:?}");
    }
}

/// Exactly so many, once there are at least that many.
fn traces(server: &Server, gunicorn: &Gunicorn, count: usize) -> Vec<Value> {
    let traces = eventually(&format!("{count} traces"), SOON, || {
        Some(server.traces(gunicorn.service())).filter(|traces| traces.len() >= count)
    });
    assert_eq!(traces.len(), count);
    traces
}

fn check_traces(server: &Server, gunicorn: &Gunicorn, sent: &[Sent]) {
    let traces = traces(server, gunicorn, sent.len());
    let found: BTreeMap<_, _> = traces
        .iter()
        .map(|trace| (trace["endpointNames"][0].as_str().expect("an endpoint"), trace))
        .collect();
    for sent in sent {
        let trace = found.get(sent.path.as_str()).unwrap_or_else(|| panic!("no trace of {}", sent.path));
        assert_eq!(trace["isError"], sent.status.expect("a status") >= 400, "{trace}");
    }
    let paths: BTreeSet<_> = sent.iter().map(|sent| sent.path.clone()).collect();
    eventually("an endpoint per path", SOON, || {
        (server.endpoints(gunicorn.service()).into_iter().collect::<BTreeSet<_>>() == paths).then_some(())
    });

    let sent = sent.iter().find(|sent| found[sent.path.as_str()]["traceIds"] == json!([TRACE]));
    let sent = sent.expect("one request continues the caller's trace");
    let spans = server.trace(TRACE);
    let [span] = spans.as_slice() else { panic!("not one span: {spans:?}") };
    let (begin, end) =
        (span["startTime"].as_f64().expect("a time"), span["endTime"].as_f64().expect("a time"));
    assert!(sent.start - 2.0 <= begin && begin <= end && end <= sent.end + 5.0, "{sent:?} {span}");
    let expected = json!({
        "traceId": TRACE, "segmentId": found[sent.path.as_str()]["segmentId"], "spanId": 0, "parentSpanId": -1,
        "refs": [{ "traceId": TRACE, "parentSegmentId": "caller-segment", "parentSpanId": 3, "type": "CROSS_PROCESS" }],
        "serviceCode": gunicorn.service(),
        "serviceInstanceName": gunicorn.worker_name(sent.worker.expect("the worker that answered")),
        "startTime": span["startTime"], "endTime": span["endTime"], "endpointName": sent.path, "type": "Entry",
        "peer": format!("127.0.0.1:{}", sent.port.expect("a port")), "component": "Python", "isError": false,
        "layer": "Http",
        "tags": [
            { "key": "http.method", "value": "GET" },
            { "key": "http.url", "value": format!("http://{}{}", sent.host, sent.path) },
            { "key": "http.status_code", "value": "200" },
        ],
    });
    assert_eq!(*span, expected);
}

fn check_metrics(server: &Server, gunicorn: &Gunicorn, sent: &[Sent]) {
    let service = gunicorn.service();
    let sum = |expression: &str, entity: Entity<'_>, count: usize| {
        let count = i64::try_from(count).expect("few");
        eventually(&format!("{expression} of {count} for {entity:?}"), SOON, || {
            (server.metric(expression, entity).iter().sum::<i64>() == count).then_some(())
        });
    };
    sum("service_cpm", Entity::Service(service), sent.len());
    for (pid, count) in gunicorn.counts() {
        let served = sent.iter().filter(|sent| sent.worker == Some(pid)).count();
        assert_eq!(served, count, "what {pid} counted");
        sum("service_instance_cpm", Entity::Instance(service, &gunicorn.worker_name(pid)), count);
    }
    sum("endpoint_cpm", Entity::Endpoint(service, &sent[0].path), 1);
}

/// What OAP has of each instance, against what the kernel says now. OAP keeps whole numbers.
fn check_meters(server: &Server, gunicorn: &Gunicorn) {
    let total = field("/proc/meminfo", "MemTotal:");
    for (name, pid) in live(gunicorn) {
        let latest = |meter: &str| {
            let meter = format!("meter_instance_pvm_{meter}");
            let entity = Entity::Instance(gunicorn.service(), &name);
            eventually(&format!("{meter} of {name}"), SOON, || server.metric(&meter, entity).pop())
        };
        let status = format!("/proc/{pid}/status");
        let resident = 100 * field(&status, "VmRSS:") / total;
        assert_eq!(latest("thread_active_count"), field(&status, "Threads:"), "{name}");
        assert!((latest("process_mem_utilization") - resident).abs() <= 1, "{name}: {resident} %");
        assert!((0..=100).contains(&latest("process_cpu_utilization")), "{name}");
        assert!((0..=100).contains(&latest("total_cpu_utilization")), "{name}");
        assert!((1..=100).contains(&latest("total_mem_utilization")), "{name}");
    }
}

/// A number from a file of `/proc`, without its unit.
fn field(file: &str, name: &str) -> i64 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Whoever has the wrong token says so, ends as it should, and leaves no trace.
fn check_stranger(server: &Server, stranger: Observer, at: &str) {
    let refusal = format!("OAP {at} refuses the observer");
    eventually("refusal", SOON, || stranger.stderr().contains(&refusal).then_some(()));
    let report = stranger.stop();
    report.assert_code(0);
    assert_eq!(report.stderr.matches(&refusal).count(), 1, "{}", report.stderr);
    assert!(!server.services().contains(&"stranger".to_owned()));
    assert_eq!(server.traces("stranger").len(), 0);
}
