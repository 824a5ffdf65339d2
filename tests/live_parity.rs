//! The same requests as the SkyWalking Python agent 1.2.0 inside and the observer outside report them, field by field.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harness::client::Client;
use harness::client::Mode;
use harness::collector::Collector;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::Reference;
use harness::observer::segments;
use harness::python::Python;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::package;
use harness::stage::wait;

const PATIENCE: Duration = Duration::from_secs(60);
const UVICORN: &str = "uvicorn.workers.UvicornWorker";
const SW8: &str = "0-dA==-cw==-3-c2hvcA==-aQ==-L3Vw-YTox";

/// Worker class and function of `framework_app`.
const ALL: [(&str, &str); 7] = [
    ("sync", "flask"),
    ("sync", "django"),
    (UVICORN, "fastapi"),
    ("tornado", "tornado"),
    ("sync", "bottle"),
    ("sync", "falcon"),
    ("sync", "pyramid"),
];

/// What both say of one request.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    /// Entry and Http.
    is_entry: bool,
    peer: String,
    component: i32,
    is_error: bool,
    tags: Vec<(String, String)>,
    refs: Vec<Reference>,
    /// Its trace, where somebody else named it.
    trace: Option<String>,
}

/// What the agent says, changed where the observer says otherwise on purpose.
fn expected(framework: &str, mut said: Said) -> Said {
    // Falcon's plugin always has the query as a tag, which is shown only where that is asked for.
    if framework == "falcon" {
        said.tags.retain(|(name, _)| name != "http.params");
    }
    // Their plugins have the query in the URL.
    if ["falcon", "pyramid"].contains(&framework) {
        for (_, value) in said.tags.iter_mut().filter(|(name, _)| name == "http.url") {
            *value = value.split('?').next().unwrap_or_default().to_owned();
        }
    }
    // An exception that nobody handles ends theirs before there is a status; the server makes it 500.
    let has_status = said.tags.iter().any(|(name, _)| name == "http.status_code");
    if ["flask", "pyramid"].contains(&framework) && said.is_error && !has_status {
        said.tags.push(("http.status_code".to_owned(), "500".to_owned()));
    }
    // On a Unix socket there is no client's address, and Django's adds a port to nothing.
    if framework == "django" && said.peer == ":80" {
        said.peer = String::new();
    }
    said
}

fn by_agent(collector: &Collector, service: &str) -> BTreeMap<String, Said> {
    let received = collector.received();
    let of = received.segments().filter(|segment| segment.service == service);
    let said = of.flat_map(|segment| segment.spans.iter().map(move |span| (segment, span)));
    said.map(|(segment, span)| {
        let reference = |reference: &proto::v3::SegmentReference| Reference {
            trace_id: reference.trace_id.clone(),
            parent_segment_id: reference.parent_trace_segment_id.clone(),
            parent_span_id: reference.parent_span_id,
            parent_service: reference.parent_service.clone(),
            parent_instance: reference.parent_service_instance.clone(),
            parent_endpoint: reference.parent_endpoint.clone(),
            address: reference.network_address_used_at_peer.clone(),
        };
        let refs: Vec<_> = span.refs.iter().map(reference).collect();
        let said = Said {
            is_entry: span.span_type == 0 && span.span_layer == 3 && span.parent_span_id == -1,
            peer: span.peer.clone(),
            component: span.component_id,
            is_error: span.is_error,
            tags: span.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            trace: (!refs.is_empty()).then(|| segment.trace_id.clone()),
            refs,
        };
        (span.operation_name.clone(), said)
    })
    .collect()
}

fn by_observer(observer: &Observer, service: &str) -> BTreeMap<String, Said> {
    let mut said = BTreeMap::new();
    observer.wait(Duration::ZERO, |lines| {
        for (segment, span) in
            segments(lines, service).flat_map(|one| one.spans.iter().map(move |span| (one, span)))
        {
            let trace = (!span.refs.is_empty()).then(|| segment.trace_id.clone());
            let (peer, component, is_error) = (span.peer.clone(), span.component, span.is_error);
            let (tags, refs) = (span.tags.clone(), span.refs.clone());
            let is_entry = span.kind == "entry" && span.layer == "Http";
            let one = Said { is_entry, peer, component, is_error, tags, refs, trace };
            said.insert(span.operation.clone(), one);
        }
        false
    });
    said
}

#[test]
fn the_agent_says_the_same() {
    let stage = Stage::enter("parity");
    let environment = |list| Python::with(Path::new("python3"), &package().join(list));
    let (newest, old) = (environment("apps/frameworks.txt"), environment("apps/falcon3.txt"));
    let collector = Collector::start();
    let observer = Observer::start(&["--tags=agent"]);
    let all =
        [false, true].into_iter().flat_map(|unix| ALL.map(|(class, framework)| (class, framework, unix)));
    // With the agent inside, Tornado answers nothing on a Unix socket.
    for (class, framework, unix) in all.filter(|(_, framework, unix)| !(*unix && *framework == "tornado")) {
        let python = if framework == "falcon" { &old } else { &newest };
        let mut launch = Launch::new(class, "framework_app:app").workers(1).python(python);
        for (name, value) in [
            ("FRAMEWORK", framework),
            ("WITH_AGENT", "1"),
            ("SW_AGENT_COLLECTOR_BACKEND_SERVICES", collector.endpoint().trim_start_matches("http://")),
            ("SW_AGENT_PROFILE_ACTIVE", "false"),
            ("SW_AGENT_LOG_REPORTER_ACTIVE", "false"),
            ("SW_AGENT_METER_REPORTER_ACTIVE", "false"),
            ("SW_AGENT_TRACE_IGNORE_PATH", "/left/**"),
            ("SW_PLUGIN_HTTP_IGNORE_METHOD", "PUT"),
        ] {
            launch = launch.env(name, value);
        }
        launch.unix = unix;
        let gunicorn = Gunicorn::start(&stage, &launch);
        let kept = [
            Request::get("plain"),
            Request::get("plain").query("a=1&b=2&a=3"),
            Request::post("plain", *b"body"),
            Request::get("plain").header("sw8", SW8),
            Request::get("raise"),
        ];
        let mut styled = Request::get("plain");
        styled.path += ".css";
        let left = [
            styled,
            Request::get("left"),
            Request::new("PUT", "plain"),
            Request::get("plain").header("sw8", "1-------"),
        ];
        let mut client = Client::new(gunicorn.address(), Mode::New);
        for request in left.iter().chain(&kept) {
            let sent = client.send(request);
            assert!(sent.status.is_some(), "{framework}: {:?}\n{}", sent.error, gunicorn.log());
        }
        let service = gunicorn.service();
        let all = |said: &BTreeMap<String, Said>| kept.iter().all(|request| said.contains_key(&request.path));
        let both = wait(PATIENCE, || {
            let (agents, ours) = (by_agent(&collector, service), by_observer(&observer, service));
            (all(&agents) && all(&ours)).then_some((agents, ours))
        });
        let Some((agents, ours)) = both else {
            let (agents, ours) = (by_agent(&collector, service), by_observer(&observer, service));
            assert_eq!(agents, ours, "{framework}\n{}\n{}", gunicorn.log(), observer.stderr());
            return;
        };
        let agents: BTreeMap<_, _> =
            agents.into_iter().map(|(operation, said)| (operation, expected(framework, said))).collect();
        assert_eq!(ours, agents, "{framework}, Unix socket: {unix}: left the observer's, right the agent's");
    }
    observer.stop().assert_code(0);
}
