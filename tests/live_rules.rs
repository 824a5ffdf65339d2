//! What is left out on purpose, counted, and what is shown beside: by a master's environment, and by options above it.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Line;
use harness::observer::Observer;
use harness::observer::Segment;
use harness::observer::binary;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::wait;

const PATIENCE: Duration = Duration::from_secs(60);
/// Of trace `t`, and not sampled by who wrote it.
const SW8: &str = "0-dA==-cw==-3-c2hvcA==-aQ==-L3Vw-YTox";
const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const W3C_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Watches these and nobody else, so that what it counts is theirs.
fn watch(gunicorns: &[&Gunicorn], args: &[&str]) -> Observer {
    let target =
        |gunicorn: &&Gunicorn| ["--target".into(), format!("gunicorn:service={}", gunicorn.service())];
    let mut command = Command::new(binary());
    command.args(gunicorns.iter().flat_map(target)).arg("--print=json").args(args);
    let observer = Observer::spawn(&mut command);
    for gunicorn in gunicorns {
        observer.wait_instances(&gunicorn.workers());
    }
    observer
}

fn send(gunicorn: &Gunicorn, requests: &[Request]) {
    for request in requests {
        let sent = Client::new(gunicorn.address(), Mode::New).send(request);
        assert!(sent.status.is_some(), "{:?}\n{}", sent.error, gunicorn.log());
    }
}

/// What was reported of a service once a request came through that is never left out.
fn reported(observer: &Observer, gunicorn: &Gunicorn, last: &Request) -> Vec<Segment> {
    let mut found = Vec::new();
    let is_last = |segment: &Segment| segment.spans.iter().any(|span| span.operation == last.path);
    let came = observer.wait(PATIENCE, |lines: &[Line]| {
        found = segments(lines, gunicorn.service()).cloned().collect();
        found.iter().any(is_last)
    });
    assert!(came, "{} did not come: {found:?}\n{}", last.path, observer.stderr());
    found
}

fn operations(segments: &[Segment]) -> Vec<&str> {
    segments.iter().flat_map(|segment| &segment.spans).map(|span| span.operation.as_str()).collect()
}

fn named(mut request: Request, end: &str) -> Request {
    request.path += end;
    request
}

fn paths(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.path.as_str()).collect()
}

#[test]
fn each_master_has_the_rules_of_its_environment() {
    let stage = Stage::enter("rules");
    let one = Launch::new("sync", "flask_app:app")
        .workers(1)
        .env("SW_AGENT_TRACE_IGNORE_PATH", "/nothing,/echo/*")
        .env("SW_PLUGIN_HTTP_IGNORE_METHOD", "put")
        .env("SW_AGENT_IGNORE_SUFFIX", ".txt")
        .env("SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS", "true")
        .env("SW_PLUGIN_HTTP_HTTP_PARAMS_LENGTH_THRESHOLD", "22");
    let two = Launch::new("sync", "flask_app:app").workers(1).env("SW_SAMPLE_N_PER_3_SECS", "2");
    let three =
        Launch::new("sync", "flask_app:app").workers(1).env("SW_AGENT_DISABLE_PLUGINS", "sw_(redis|flask)");
    let [one, two, three] = [one, two, three].map(|launch| Gunicorn::start(&stage, &launch));
    let observer = watch(&[&one, &two, &three], &[]);

    let left_out = [
        Request::get("echo").query("x=/plain"),
        Request::new("PUT", "plain"),
        named(Request::get("plain"), ".txt"),
        Request::get("plain").header("sw8", "1-------"),
    ];
    let kept =
        [named(Request::get("plain"), ".js"), Request::get("plain").query("a=1&token=s3cret&a=2&long=yes")];
    send(&one, &left_out);
    send(&one, &kept);
    let [.., last] = &kept;
    let found = reported(&observer, &one, last);
    assert_eq!(operations(&found), paths(&kept));
    let tags = found.last().and_then(|segment| segment.spans.first()).map(|span| span.tags.clone());
    let names: Vec<String> = tags.iter().flatten().map(|(name, _)| name.clone()).collect();
    assert!(
        names.iter().map(String::as_str).take(3).eq(["http.method", "http.url", "http.params"]),
        "{names:?}"
    );
    let params =
        tags.iter().flatten().find(|(name, _)| name == "http.params").map(|(_, value)| value.as_str());
    assert_eq!(params, Some("a=[1,2]\ntoken=[***]\nlo"));

    // The agent's own suffixes, and two of a worker in three seconds.
    let sampled: Vec<Request> = (0..6).map(|_| Request::get("plain").query("token=s3cret")).collect();
    send(&two, &[named(Request::get("plain"), ".js")]);
    send(&two, &sampled);
    let [_, second, ..] = sampled.as_slice() else { return };
    let found = reported(&observer, &two, second);
    assert_eq!(operations(&found), paths(&sampled).into_iter().take(2).collect::<Vec<_>>());
    assert!(found.iter().flat_map(|segment| &segment.spans).all(|span| span.tag("http.params").is_none()));

    send(&three, &sampled);

    observer.wait(Duration::from_secs(1), |_| false); // nothing comes late
    let report = observer.stop();
    report.assert_code(0);
    assert_eq!(segments(&report.lines, two.service()).count(), 2);
    assert_eq!(segments(&report.lines, three.service()).count(), 0);
    let ignored = [("ignored_method", 1), ("ignored_path", 1), ("ignored_suffix", 2)];
    let counted = [&[("disabled_plugin", 6)], ignored.as_slice(), &[("not_sampled", 4)]].concat();
    assert_eq!(report.left_out(), counted);
    assert_eq!(report.drops().get("bad_sw8"), Some(&1));
    assert!(report.stderr.contains("left out on purpose: ignored_method=1"), "{}", report.stderr);
    assert!(report.lines.iter().all(|line| !format!("{line:?}").contains("s3cret")), "a secret is shown");
}

/// The meters of a service's instances, by how often they were reported.
fn meters(observer: &Observer, service: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    observer.lines_from(0, |line| {
        if let Line::Meters { service: of, meters, .. } = line
            && of == service
        {
            meters.keys().for_each(|name| *found.entry(name.clone()).or_default() += 1);
        }
    });
    found
}

#[test]
fn a_masters_environment_switches_meters_off() {
    let stage = Stage::enter("rules-meters");
    let launch = || Launch::new("sync", "wsgi_app:app").workers(1);
    let on = Gunicorn::start(&stage, &launch());
    let off = Gunicorn::start(&stage, &launch().env("SW_AGENT_METER_REPORTER_ACTIVE", "False"));
    let own = Gunicorn::start(&stage, &launch().env("SW_AGENT_PVM_METER_REPORTER_ACTIVE", "false"));
    let observer = watch(&[&on, &off, &own], &["--meter-period=1"]);
    let name = "instance_pvm_process_cpu_utilization";
    let is_there = || meters(&observer, on.service()).get(name).is_some_and(|count| *count >= 6);
    assert!(wait(PATIENCE, || is_there().then_some(())).is_some(), "{}", observer.stderr());
    assert_eq!(meters(&observer, off.service()), BTreeMap::new());
    let ours = meters(&observer, own.service());
    assert!(ours.contains_key("instance_gunicorn_busy"), "{ours:?}");
    assert!(ours.keys().all(|name| !name.starts_with("instance_pvm_")), "{ours:?}");
    observer.stop().assert_code(0);
}

#[test]
fn a_masters_environment_says_how_often_its_meters_come() {
    let stage = Stage::enter("rules-period");
    let launch = || Launch::new("gthread", "wsgi_app:app").workers(2);
    let quick = Gunicorn::start(&stage, &launch().env("SW_AGENT_METER_REPORTER_PERIOD", "2"));
    let usual = Gunicorn::start(&stage, &launch());
    let observer = watch(&[&quick, &usual], &[]);
    // The time in the collector is there only while a process is timed; what is busy is a worker.
    let names = ["instance_pvm_process_cpu_utilization", "instance_pvm_gc_time", "instance_gunicorn_busy"];
    let count = |gunicorn: &Gunicorn| {
        let found = meters(&observer, gunicorn.service());
        names.map(|name| found.get(name).copied().unwrap_or(0))
    };
    let often = wait(PATIENCE, || Some(count(&quick)).filter(|[all, _, _]| *all >= 12));
    // All but the first of each instance have a time; one in three is a master's.
    let is_right =
        |[all, timed, of_workers]: [usize; 3]| timed + 3 >= all && (all / 2..all).contains(&of_workers);
    assert!(often.is_some_and(is_right), "{:?}", count(&quick));
    assert!(count(&usual)[0] <= 6, "{:?}", count(&usual)); // once, or twice where machines are slow
    let both = wait(PATIENCE, || Some(count(&usual)).filter(|[all, _, _]| *all >= 6));
    assert!(both.is_some_and(is_right), "{:?}", count(&usual));
    observer.stop().assert_code(0);
}

#[test]
fn a_masters_environment_says_how_often_it_is_heard_of() {
    let stage = Stage::enter("rules-pace");
    let launch = || Launch::new("sync", "wsgi_app:app").workers(1);
    let quick = launch()
        .env("SW_AGENT_COLLECTOR_HEARTBEAT_PERIOD", "1")
        .env("SW_AGENT_COLLECTOR_PROPERTIES_REPORT_PERIOD_FACTOR", "2");
    let (quick, usual) = (Gunicorn::start(&stage, &quick), Gunicorn::start(&stage, &launch()));
    let collector = Collector::start();
    let oap = collector.endpoint().trim_start_matches("http://").to_owned();
    let observer = watch(&[&quick, &usual], &["--oap", &oap]);
    // Of a service's master and worker together: signs of life, and how often properties went with them.
    let heard = |gunicorn: &Gunicorn| {
        collector.look(|received| {
            let pings = received.pings.iter().filter(|ping| ping.service == gunicorn.service()).count();
            let all = received.properties.iter();
            (pings, all.filter(|properties| properties.service == gunicorn.service()).count())
        })
    };
    let often = wait(PATIENCE, || Some(heard(&quick)).filter(|(pings, _)| *pings >= 10));
    let (pings, properties) = often.unwrap_or_default();
    assert!(pings >= 10 && properties * 2 >= pings, "{pings} {properties}\n{}", observer.stderr());
    let (pings, properties) = heard(&usual);
    assert!((2..=4).contains(&pings) && properties == 2, "{pings} {properties}\n{}", observer.stderr());
    observer.stop().assert_code(0);
}

/// Between two numbers of milliseconds.
fn is_about(us: Option<f64>, from_ms: f64, to_ms: f64) -> bool {
    us.is_some_and(|us| (from_ms..to_ms).contains(&(us / 1e3)))
}

#[test]
fn times_are_tags_unless_only_the_agents_are_wanted() {
    let stage = Stage::enter("times");
    let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app").workers(1));
    let observer = watch(&[&gunicorn], &[]);
    let bare = watch(&[&gunicorn], &["--tags=agent"]);
    // The second waits in the accept queue until the first has its fourth piece.
    let (first, second) = (Request::get("drip").query("n=4"), Request::get("slow").query("ms=100"));
    thread::scope(|scope| {
        scope.spawn(|| send(&gunicorn, std::slice::from_ref(&first)));
        thread::sleep(Duration::from_millis(200));
        send(&gunicorn, std::slice::from_ref(&second));
    });
    let found = reported(&observer, &gunicorn, &second);
    assert_eq!(operations(&found), paths(&[first, second.clone()]));
    let times: Vec<_> = found.iter().flat_map(|segment| &segment.spans).collect();
    let us = |at: usize, name: &str| times.get(at).and_then(|span| span.tag(name)?.parse::<f64>().ok());
    for (at, name, from_ms, to_ms) in [
        (0, "time.queue_us", 0.0, 100.0),
        (0, "time.first_byte_us", 140.0, 290.0),
        (0, "time.transfer_us", 440.0, 700.0),
        (0, "time.service_us", 590.0, 900.0),
        (1, "time.queue_us", 300.0, 700.0),
        (1, "time.accept_us", 300.0, 700.0),
        (1, "time.first_byte_us", 95.0, 250.0),
        (1, "time.transfer_us", 0.0, 100.0),
        (1, "time.service_us", 95.0, 300.0),
    ] {
        assert!(is_about(us(at, name), from_ms, to_ms), "{name} of {at}: {times:?}");
    }
    let found = reported(&bare, &gunicorn, &second);
    for span in found.iter().flat_map(|segment| &segment.spans) {
        let names: Vec<&str> = span.tags.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["http.method", "http.url", "http.status_code"]);
    }
    observer.stop().assert_code(0);
    bare.stop().assert_code(0);
}

#[test]
fn options_go_before_the_environment() {
    let stage = Stage::enter("rules-options");
    let launch = Launch::new("gthread", "flask_app:app")
        .workers(1)
        .env("SW_AGENT_TRACE_IGNORE_PATH", "/echo/*")
        .env("SW_SAMPLE_N_PER_3_SECS", "1");
    let gunicorn = Gunicorn::start(&stage, &launch);
    let args = [
        "--ignore-path=/early/**",
        "--ignore-suffix=",
        "--sample-n-per-3-secs=0",
        "--http-params",
        "--redact=*",
        "--w3c-trace-id",
    ];
    let observer = watch(&[&gunicorn], &args);
    let requests = [
        Request::get("echo").query("a=s3cret").header("traceparent", W3C),
        named(Request::get("plain"), ".js").header("traceparent", W3C).header("sw8", SW8),
        Request::get("plain").header("traceparent", "00-s3cret"),
    ];
    send(&gunicorn, &[Request::get("early")]);
    send(&gunicorn, &requests);
    let [.., last] = &requests;
    let found = reported(&observer, &gunicorn, last);
    assert_eq!(operations(&found), paths(&requests));
    let [named_by_w3c, named_by_sw8, own] = found.as_slice() else { return };
    let of = |segment: &Segment| {
        let span = segment.spans.first();
        let tag = |name: &str| span.and_then(|span| span.tag(name)).map(str::to_owned);
        (segment.trace_id.clone(), span.map(|span| span.refs.len()), tag("traceparent"), tag("http.params"))
    };
    assert_eq!(of(named_by_w3c), (W3C_ID.into(), Some(0), Some(W3C.into()), Some("a=[***]".into())));
    assert_eq!(of(named_by_sw8), ("t".into(), Some(1), Some(W3C.into()), None));
    assert_eq!((own.trace_id.len(), of(own).2), (32, None));
    let report = observer.stop();
    assert_eq!(report.left_out(), [("ignored_path", 1)]);
    assert!(report.lines.iter().all(|line| !format!("{line:?}").contains("s3cret")), "a secret is shown");
}
