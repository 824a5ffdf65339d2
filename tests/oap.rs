//! Reports to a real OAP, which is then asked what it understood.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use harness::dashboard;
use harness::oap::Entity;
use harness::oap::Server;
use harness::oap::eventually;
use harness::oap::now_ms;
use harness::sample;
use observer::identity::Instance;
use observer::report::Oap;
use observer::report::Report;
use observer::report::grpc::Settings;
use observer::stats::SharedDrops;
use observer::trace::Segment;
use observer::trace::SpanKind;
use serde_json::Value;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = "synthetic|tests";

fn reporter(settings: Settings) -> (Oap, Arc<SharedDrops>) {
    let drops = Arc::new(SharedDrops::default());
    (Oap::start(settings, Arc::clone(&drops)).expect("good settings"), drops)
}

/// An entry span with a call that it made.
fn with_exit(mut segment: Segment) -> Segment {
    let mut exit = segment.spans[0].clone();
    exit.id = 1;
    exit.parent = 0;
    exit.refs.clear();
    exit.kind = SpanKind::Exit;
    exit.operation = "/downstream".into();
    exit.peer = "10.0.0.9:80".into();
    exit.component = 7002;
    segment.spans.insert(0, exit);
    segment
}

fn failed(mut segment: Segment) -> Segment {
    segment.spans[0].is_error = true;
    segment.spans[0].operation = "/fail".into();
    segment.spans[0].tags[2].1 = "500".into();
    segment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oap_understands_what_is_reported() {
    let began = Instant::now();
    let server = Server::start();
    println!("started in {:.1?}, {} MiB", began.elapsed(), server.memory() / 1024);

    let began = Instant::now();
    let (oap, drops) = reporter(Settings::new(server.endpoint()));
    let workers = [sample::worker(SERVICE, 9), sample::worker(SERVICE, 10)];
    let now = now_ms();
    for worker in &workers {
        oap.send(Report::Hello(worker.clone()));
        for n in 0..5 {
            let id = format!("{}-{n}", worker.process.pid);
            oap.send(Report::Segment(sample::segment(worker, &id, now - 1000)));
        }
        let before = sample::meters(worker, now - 20_000);
        oap.send(Report::Meters(before.clone()));
        let mut after = before;
        after.at_ms = now;
        after.meters[7].value += 60.0;
        oap.send(Report::Meters(after));
        oap.send(Report::Meters(sample::own_meters(worker, now - 20_000, 1.0)));
        oap.send(Report::Meters(sample::own_meters(worker, now, 2.0)));
    }
    oap.send(Report::Segment(with_exit(sample::segment(&workers[0], "with-exit", now - 500))));
    oap.send(Report::Segment(failed(sample::segment(&workers[0], "failed", now - 500))));

    eventually("service", SOON, || server.services().contains(&SERVICE.to_owned()).then_some(()));
    println!("service after {:.1?}", began.elapsed());
    check_instances(&server);
    check_traces(&server, &workers[0].name, now);
    check_metrics(&server, &workers);
    check_own_meters(&server, &workers[0].name);
    check_dashboard(&server, &workers[1].name);
    check_events(&server, &oap, &workers, now);
    println!("all after {:.1?}, {} MiB", began.elapsed(), server.memory() / 1024);

    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

fn check_instances(server: &Server) {
    let instances = eventually("two instances", SOON, || {
        let instances = server.instances(SERVICE);
        let known = instances.iter().all(|instance| instance["language"] == "PYTHON");
        (known && instances.len() == 2).then_some(instances)
    });
    let worker =
        instances.iter().find(|instance| instance["name"] == "base-master(7)-child(9)").expect("worker 9");
    let attributes = json!([
        { "name": "OS Name", "value": "posix" },
        { "name": "Process No.", "value": "9" },
        { "name": "hostname", "value": "node" },
        { "name": "python_implementation", "value": "CPython" },
        { "name": "python_version", "value": "3.12.3" },
        { "name": "ipv4s", "value": "127.0.0.1" },
    ]);
    assert_eq!(worker["attributes"], attributes);
}

fn check_traces(server: &Server, instance: &str, now: i64) {
    let traces = eventually("twelve traces", SOON, || {
        let traces = server.traces(SERVICE);
        (traces.len() == 12).then_some(traces)
    });
    let errors: Vec<_> = traces.iter().filter(|trace| trace["isError"] == true).collect();
    assert_eq!((errors.len(), &errors[0]["endpointNames"]), (1, &json!(["/fail"])));

    let mut spans = server.trace("trace-with-exit");
    spans.sort_by_key(|span| span["spanId"].as_i64());
    let tags = json!([
        { "key": "http.method", "value": "GET" },
        { "key": "http.url", "value": "http://demo:8000/hello" },
        { "key": "http.status_code", "value": "200" },
    ]);
    let span = |id: i64, kind: &str, operation: &str, peer: &str, component: &str, refs: Value| {
        json!({
            "traceId": "trace-with-exit", "segmentId": "with-exit", "spanId": id, "parentSpanId": id - 1,
            "refs": refs, "serviceCode": SERVICE, "serviceInstanceName": instance, "startTime": now - 500,
            "endTime": now - 480, "endpointName": operation, "type": kind, "peer": peer, "component": component,
            "isError": false, "layer": "Http", "tags": tags,
        })
    };
    let caller = json!([{ "traceId": "trace-with-exit", "parentSegmentId": "caller-segment", "parentSpanId": 2,
                          "type": "CROSS_PROCESS" }]);
    assert_eq!(
        spans,
        [
            span(0, "Entry", "/hello", "127.0.0.1:40000", "Flask", caller),
            span(1, "Exit", "/downstream", "10.0.0.9:80", "Requests", json!([])),
        ]
    );
    eventually("edge of the topology", SOON, || {
        server.calls(SERVICE).contains(&format!("caller -> {SERVICE}")).then_some(())
    });
}

fn check_metrics(server: &Server, workers: &[Instance; 2]) {
    let sum = |expression: &str, entity: Entity<'_>, expected: i64| {
        eventually(expression, SOON, || {
            (server.metric(expression, entity).iter().sum::<i64>() == expected).then_some(())
        });
    };
    sum("service_cpm", Entity::Service(SERVICE), 12);
    sum("service_instance_cpm", Entity::Instance(SERVICE, &workers[0].name), 7);
    sum("service_instance_cpm", Entity::Instance(SERVICE, &workers[1].name), 5);
    sum("endpoint_cpm", Entity::Endpoint(SERVICE, "/hello"), 11);
    sum("endpoint_cpm", Entity::Endpoint(SERVICE, "/fail"), 1);
    let endpoints = eventually("endpoints", SOON, || {
        let endpoints = server.endpoints(SERVICE);
        (endpoints.len() == 2).then_some(endpoints)
    });
    assert!(endpoints.contains(&"/hello".to_owned()) && endpoints.contains(&"/fail".into()), "{endpoints:?}");
    assert!(server.metric("service_resp_time", Entity::Service(SERVICE)).iter().all(|ms| *ms == 20));
    let sla = server.metric("service_sla", Entity::Service(SERVICE));
    assert!(sla.iter().any(|sla| (5000..10_000).contains(sla)), "one of twelve failed: {sla:?}");

    // OAP stores whole numbers.
    for (meter, expected) in [
        ("total_cpu_utilization", 33),
        ("process_cpu_utilization", 13),
        ("total_mem_utilization", 41),
        ("process_mem_utilization", 3),
        ("gc_g0", 700),
        ("gc_g1", 60),
        ("gc_g2", 5),
        ("thread_active_count", 4),
    ] {
        for worker in workers {
            let name = format!("meter_instance_pvm_{meter}");
            let entity = Entity::Instance(SERVICE, &worker.name);
            let values =
                eventually(&name, SOON, || Some(server.metric(&name, entity)).filter(|v| !v.is_empty()));
            assert!(values.iter().all(|value| *value == expected), "{name}: {values:?}");
        }
    }
    // Two readings, 60 ms apart: the increase, averaged with the first one's 0 if both fall into one minute.
    let entity = Entity::Instance(SERVICE, &workers[0].name);
    let increase = eventually("increase of gc_time", SOON, || {
        server.metric("meter_instance_pvm_gc_time", entity).into_iter().max().filter(|ms| *ms > 0)
    });
    assert!([30, 60].contains(&increase), "{increase} ms");
}

/// The rules of `deploy/oap`: each value as it was sent, with each of its labels.
fn check_own_meters(server: &Server, instance: &str) {
    let entity = Entity::Instance(SERVICE, instance);
    for (at, rule) in dashboard::rules().into_iter().enumerate() {
        let name = format!("meter_{}", rule.name);
        let cases = match &rule.label {
            None => vec![(name.clone(), 0)],
            Some(label) => {
                let each = sample::LABELS.iter().enumerate();
                each.map(|(n, value)| (format!("{name}{{{label}='{value}'}}"), n)).collect()
            }
        };
        for (expression, label) in cases {
            let value = sample::own_value(at, label);
            if rule.is_increase {
                // As of gc_time: the increase, averaged with the first one's 0 if both fall into one minute.
                let increase = eventually(&expression, SOON, || {
                    server.metric(&expression, entity).into_iter().max().filter(|found| *found > 0)
                });
                assert!(
                    [value / 2, (value + 1) / 2, value].contains(&increase),
                    "{expression}: {increase} of {value}"
                );
            } else {
                let values = eventually(&expression, SOON, || {
                    Some(server.metric(&expression, entity)).filter(|v| !v.is_empty())
                });
                assert!(
                    values.iter().all(|found| *found == value),
                    "{expression}: {values:?} and not {value}"
                );
            }
        }
    }
}

/// OAP takes the dashboard at its start, hands it out as it is, and has numbers for each of its charts.
fn check_dashboard(server: &Server, instance: &str) {
    let (id, configuration) = dashboard::template();
    assert_eq!(server.dashboard(&id), configuration);
    let entity = Entity::Instance(SERVICE, instance);
    let tabs = dashboard::widgets(&configuration).into_iter();
    for expression in tabs.flat_map(|(_, widgets)| widgets).flat_map(|widget| dashboard::expressions(&widget))
    {
        eventually(&expression, SOON, || (!server.metric(&expression, entity).is_empty()).then_some(()));
    }
    for expression in dashboard::expressions(&configuration) {
        server.metric(&expression, entity);
    }
}

fn check_events(server: &Server, oap: &Oap, workers: &[Instance; 2], now: i64) {
    let parameters = |cause: &str, pid: u32| json!([{ "key": "cause", "value": cause }, { "key": "pid", "value": pid.to_string() }]);
    let source =
        |worker: &Instance| json!({ "service": SERVICE, "serviceInstance": &*worker.name, "endpoint": "" });
    // The start can be seen before there is an end; then both are one.
    let [start, end] = sample::exit(&workers[0], "exit-1", now - 5000);
    oap.send(Report::Event(start));
    let events = eventually("start of an event", SOON, || {
        Some(server.events(SERVICE, &workers[0].name)).filter(|events| !events.is_empty())
    });
    let started = json!({
        "uuid": "exit-1", "source": source(&workers[0]), "name": "Exit", "type": "Normal", "message": "asked to end",
        "parameters": parameters("shutdown", 9), "startTime": now - 5000, "endTime": 0, "layer": "GENERAL",
    });
    assert_eq!(events, [started]);
    oap.send(Report::Event(end));
    let ended = |uuid: &str, worker, pid| {
        json!({
            "uuid": uuid, "source": source(worker), "name": "Exit", "type": "Error",
            "message": "killed: it did not end in time", "parameters": parameters("graceful-timeout", pid),
            "startTime": now - 5000, "endTime": now - 3000, "layer": "GENERAL",
        })
    };
    let all_of = |worker: &Instance| {
        eventually("end of an event", SOON, || {
            let events = server.events(SERVICE, &worker.name);
            events.first().is_some_and(|event| event["endTime"] != 0).then_some(events)
        })
    };
    assert_eq!(all_of(&workers[0]), [ended("exit-1", &workers[0], 9)]);

    // Both at once, and then one that is longer than OAP can hold, in every sign that it escapes.
    for event in sample::exit(&workers[1], "exit-2", now - 5000) {
        oap.send(Report::Event(event));
    }
    assert_eq!(all_of(&workers[1]), [ended("exit-2", &workers[1], 10)]);
    let [_, mut long] = sample::exit(&workers[1], "exit-2", now - 5000);
    long.message = "ü😀\"\\<".repeat(1000);
    long.parameters.push(("sender", "\u{1}\"\\<=&'>\u{2028}ü😀".repeat(1000)));
    oap.send(Report::Event(long.clone()));
    let stored = eventually("long event", SOON, || {
        let event = server.events(SERVICE, &workers[1].name).pop()?;
        (event["parameters"].as_array()?.len() == 3).then_some(event)
    });
    let begins = |stored: &Value, sent: &str| {
        let kept = stored.as_str().and_then(|text| text.strip_suffix('…')).unwrap_or_default();
        assert!(!kept.is_empty() && sent.starts_with(kept), "{stored}");
    };
    begins(&stored["message"], &long.message);
    let sender = |list: &Value| {
        let list = list.as_array().cloned().unwrap_or_default();
        list.into_iter().find(|pair| pair["key"] == "sender").unwrap_or_default()
    };
    begins(&sender(&stored["parameters"])["value"], &long.parameters[2].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oap_takes_only_the_right_token() {
    let server = Server::start_with(Some("right"));
    for (authentication, left) in [(None, 1), (Some("wrong".to_owned()), 1), (server.token(), 0)] {
        let (oap, _) = reporter(Settings { authentication, ..Settings::new(server.endpoint()) });
        let worker = sample::worker(SERVICE, 9);
        oap.send(Report::Segment(sample::segment(&worker, "token", now_ms())));
        assert_eq!(oap.stop(SOON).await, left);
    }
    eventually("trace", SOON, || (server.traces(SERVICE).len() == 1).then_some(()));
}
