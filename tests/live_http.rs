//! HTTP/1 as clients speak it: cut anywhere, pipelined, chunked, with and without bodies, and garbage.

use harness::client::Client;
use harness::client::Connection;
use harness::client::Mode;
use harness::client::Sent;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::segments;
use harness::request::Request;
use harness::stage::Stage;
use harness::stage::must;
use harness::verdict::Expectation;

/// The servers with a parser of their own: gunicorn's, Tornado's, httptools', h11's and gunicorn's for ASGI.
const SERVERS: [(&str, &str); 6] = [
    ("sync", "wsgi_app:app"),
    ("gthread", "wsgi_app:app"),
    ("tornado", "tornado_app:app"),
    ("uvicorn.workers.UvicornWorker", "fastapi_app:app"),
    ("uvicorn.workers.UvicornH11Worker", "fastapi_app:app"),
    ("asgi", "fastapi_app:app"),
];

/// The same traffic to each of these servers, watched by one observer; every request must be reported.
fn on(name: &str, skip: &[&str], traffic: impl Fn(&Gunicorn) -> Vec<Sent>) {
    watch(name, skip, |launch| launch, &[], |gunicorn| (traffic(gunicorn), Vec::new()));
}

/// As [`on`], with launches changed, losses that are right and requests that may be reported.
fn watch(
    name: &str,
    skip: &[&str],
    change: impl Fn(Launch) -> Launch,
    losses: &[&str],
    traffic: impl Fn(&Gunicorn) -> (Vec<Sent>, Vec<Sent>),
) {
    let stage = Stage::enter(name);
    let observer = Observer::on(&stage, &[]);
    let mut all = Vec::new();
    for (class, app) in SERVERS.iter().filter(|(class, _)| !skip.contains(class)) {
        let mut gunicorn = Gunicorn::start(&stage, &change(Launch::new(class, app).workers(1)));
        observer.wait_instances(&gunicorn.workers());
        let (sent, maybe) = traffic(&gunicorn);
        observer.wait_requests(&gunicorn, &sent);
        gunicorn.stop();
        all.push((class, gunicorn, sent, maybe));
    }
    let report = observer.stop();
    for (class, gunicorn, sent, maybe) in &all {
        eprintln!("{name}: {class}");
        Expectation::new(gunicorn, sent).maybe(maybe).losing(losses).check(&report);
    }
}

/// Sends requests over a connection that is kept, and checks what `echo` returns.
fn keep(gunicorn: &Gunicorn, requests: &[Request]) -> Vec<Sent> {
    let mut client = Client::new(gunicorn.address(), Mode::KeepAlive);
    let send = |request: &Request| {
        let sent = client.send(request);
        if request.path.starts_with("/echo/") {
            assert!(sent.body == request.content(), "echo differs: {} bytes of {sent:?}", sent.body.len());
        }
        sent
    };
    requests.iter().map(send).collect()
}

#[test]
fn cut_at_any_byte() {
    on("cut", &[], |gunicorn| {
        let post = || Request::post("echo", "a body").header("X-More", "value");
        let whole = post();
        let length = whole.head(&gunicorn.address().host()).len() + whole.content().len();
        let twice: Vec<_> = (1..length).map(|at| post().cut([at])).collect();
        let trickle =
            [post().cut(1..length), Request::chunked("echo", &[b"one", b"two"]).cut(1..length + 30)];
        [keep(gunicorn, &twice), keep(gunicorn, &trickle)].concat()
    });
}

#[test]
fn pipelined() {
    on("pipelined", &["sync"], |gunicorn| {
        let mut all = Vec::new();
        for depth in [2, 5, 16] {
            let mut connection = must(Connection::open(gunicorn.address()), "connect");
            let sort = |i| match i % 4 {
                0 => Request::get("plain"),
                1 => Request::post("echo", format!("number {i}")),
                2 => Request::chunked("echo", &[b"a", b"bc"]),
                _ => Request::get("missing"),
            };
            all.extend(connection.pipeline(&(0..depth).map(sort).collect::<Vec<_>>()));
        }
        all
    });
}

#[test]
fn chunked_both_ways() {
    let big = vec![b'c'; 70_000];
    on("chunked", &[], |gunicorn| {
        let requests = [
            Request::chunked("echo", &[]),
            Request::chunked("echo", &[b"x"]),
            Request::chunked("echo", &[b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
            Request::chunked("echo", &[&big, b"tail", &big]),
            Request::get("stream").query("n=1&size=1"),
            Request::get("stream").query("n=200&size=10"),
            Request::get("stream").query("n=20&size=100000"),
            Request::get("plain"),
        ];
        keep(gunicorn, &requests)
    });
}

#[test]
fn without_a_body() {
    on("bodyless", &[], |gunicorn| {
        let sort = |i| match i % 6 {
            0 => Request::new("HEAD", "plain"),
            1 => Request::get("empty"),
            2 => Request::get("same"),
            3 => Request::new("HEAD", "large").query("kib=300"),
            4 => Request::post("empty", "read or not"),
            _ => Request::get("plain"),
        };
        keep(gunicorn, &(0..36).map(sort).collect::<Vec<_>>())
    });
}

#[test]
fn expecting_100_continue() {
    on("continue", &[], |gunicorn| {
        let sort = |i| match i % 3 {
            0 => Request::post("echo", "after the 100").expecting(),
            1 => Request::chunked("echo", &[b"after", b"it"]).expecting(),
            _ => Request::get("plain"),
        };
        keep(gunicorn, &(0..15).map(sort).collect::<Vec<_>>())
    });
}

#[test]
fn large_bodies() {
    on("large", &[], |gunicorn| {
        let body = |kib: usize| (0..kib * 1024).map(|i| i.to_le_bytes()[0]).collect::<Vec<u8>>();
        let requests = [
            Request::post("echo", body(1)),
            Request::post("echo", body(900)),
            Request::get("large").query("kib=8000"),
            Request::post("echo", body(8000)),
            Request::get("plain"),
        ];
        keep(gunicorn, &requests)
    });
}

#[test]
fn answered_before_the_body_is_read() {
    on("early", &[], |gunicorn| {
        let mut client = Client::new(gunicorn.address(), Mode::New);
        (0..10).map(|i| client.send(&Request::post("early", vec![b'e'; 1000 * i]))).collect()
    });
}

#[test]
fn five_hundred_on_one_connection() {
    on("keepalive", &[], |gunicorn| {
        keep(gunicorn, &(0..500).map(|_| Request::get("plain")).collect::<Vec<_>>())
    });
}

#[test]
fn old_clients() {
    on("old", &[], |gunicorn| {
        let mut client = Client::new(gunicorn.address(), Mode::New);
        ["plain", "stream", "empty", "missing"]
            .map(|action| client.send(&Request::get(action).old()))
            .to_vec()
    });
}

#[test]
fn absolute_form() {
    on("absolute", &[], |gunicorn| {
        let request = || Request::get("plain").query("a=b").absolute("http://example.test");
        keep(gunicorn, &[request(), Request::get("plain"), request()])
    });
}

#[test]
fn long_heads_and_odd_paths() {
    on("heads", &[], |gunicorn| {
        let long = |length| Request::get("plain").header("X-Long", "h".repeat(length));
        let many = (0..60).fold(Request::get("plain"), |request, i| request.header("X-Many", i.to_string()));
        let mut odd = Request::get("plain");
        odd.path.push_str("%20%2Fodd~!*");
        keep(
            gunicorn,
            &[long(10), long(4000), long(7500), many, odd.query("q=%3F?&r=/"), Request::get("plain")],
        )
    });
}

#[test]
fn over_a_unix_socket() {
    watch("unix", &[], Launch::unix, &[], |gunicorn| {
        (
            keep(gunicorn, &(0..40).map(|i| Request::post("echo", vec![b'u'; i * 97])).collect::<Vec<_>>()),
            Vec::new(),
        )
    });
}

/// What a server may answer, refuse or take for two requests: the observer may see it otherwise, but not what comes after it.
#[test]
fn smuggling_and_floods_and_then_a_request() {
    let smuggled = "GET /plain/smuggled-00 HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!("POST /echo/mean-00 HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}")
    };
    let get = |headers: &str| format!("GET /plain/mean-00 HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    let in_chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let after_end = format!("0\r\n\r\n{smuggled}");
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", after_end.len());
    let mut mean = vec![
        post(&both, &after_end),
        post(&both.replace("Transfer", "transfer"), &in_chunk),
        post("Content-Length: 4\r\nContent-Length: 40", smuggled),
        post("Content-Length: 4, 4", &format!("abcd{smuggled}")),
        get("Transfer-Encoding : chunked\r\nContent-Length: 0"),
        get("Connection: keep-alive, Content-Length\r\n continued: line"),
    ];
    let codings = [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "\tchunked",
        "chunked\r\nTransfer-Encoding: x",
    ];
    mean.extend(codings.map(|coding| post(&format!("Transfer-Encoding: {coding}"), &in_chunk)));
    let lengths = ["+4", "-1", "0x4", "4 4", "1e1", "", "99999999999999999999999"];
    mean.extend(lengths.map(|length| post(&format!("Content-Length: {length}"), smuggled)));
    let sizes = ["fffffffffffffffff", "-1", "0x2", "2 ;x", "", "2;a=\"\n\""];
    mean.extend(sizes.map(|size| post("Transfer-Encoding: chunked", &format!("{size}\r\n{in_chunk}"))));
    let nulls = ["X-\0: a", "X-A: \0\0", "\0", "X-A: b\rX-B: c", "X-A:\x0b\x7f"];
    mean.extend(nulls.map(get));
    mean.extend([
        "GET /plain/mean-00\0 HTTP/1.1\r\n\r\n".to_owned(),
        "GET /plain/mean-00 HTTP/1.1\nHost: a\n\n".to_owned(),
        "GET  /plain/mean-00  HTTP/1.1\r\n\r\n".to_owned(),
        "get /plain/mean-00 http/1.1\r\n\r\n".to_owned(),
        format!("GET /plain/{} HTTP/1.1\r\n\r\n", "t".repeat(70_000)),
        get(&format!("X-Giant: {}", "g".repeat(200_000))),
        get(&"A: b\r\n".repeat(9_000)),
    ]);
    let losses = ["not_http", "response_without_request", "cut", "gap", "head_too_large"];
    watch(
        "mean",
        &[],
        |launch| launch,
        &losses,
        |gunicorn| {
            let numbered = mean.iter().enumerate();
            let texts =
                numbered.map(|(number, text)| text.replace("-00", &format!("-{number:02}")).into_bytes());
            let sent = after_each(gunicorn, texts);
            let paths = (0..mean.len()).flat_map(|number| {
                ["/echo/mean-", "/plain/mean-", "/plain/smuggled-"].map(|path| format!("{path}{number:02}"))
            });
            // What is no character of a path is shown as one that stands for it.
            let paths = paths.flat_map(|path| [format!("{path}\u{fffd}"), path]);
            let maybe = paths.map(|path| Sent { path, ..sent[0].clone() }).collect();
            (sent, maybe)
        },
    );
}

/// Writes each of these on a connection of its own, waits for its end, and then sends a request.
fn after_each(gunicorn: &Gunicorn, all: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<Sent> {
    let mut client = Client::new(gunicorn.address(), Mode::New);
    let after = all.map(|bytes| {
        let mut connection = must(Connection::open(gunicorn.address()), "connect");
        connection.write_raw(bytes.as_ref()).ok();
        connection.finish_writing();
        connection.drain();
        client.send(&Request::get("plain"))
    });
    after.collect()
}

#[test]
fn garbage_and_then_a_request() {
    let garbage: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01\x02\x03\x04",
        b"\r\n\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /plain/x HTTP/1.1\r\nHost: a\r\nContent-Length: nine\r\n\r\n",
        b"GET /plain/y HTTP/1.1\r\nno colon here\r\n\r\n",
    ];
    let losses =
        ["not_http", "response_without_request", "cut", "gap", "head_too_large", "tls", "http2", "uwsgi"];
    let long = vec![b'G'; 100_000];
    watch(
        "garbage",
        &[],
        |launch| launch,
        &losses,
        |gunicorn| {
            let sent = after_each(gunicorn, garbage.into_iter().chain([long.as_slice()]));
            // A server answers some of it with 400: at most one segment each may say so.
            let maybe = ["/plain/x", "/plain/y", "/", "*", ""]
                .map(|path| Sent { path: path.into(), ..sent[0].clone() });
            (sent, maybe.to_vec())
        },
    );
}

#[test]
fn sw8_is_honoured_and_a_broken_one_suppresses() {
    // trace "trace-1", segment "segment-1", span 4, service "up", instance "up-1", endpoint "/call", address "me:80"
    let good = "1-dHJhY2UtMQ==-c2VnbWVudC0x-4-dXA=-dXAtMQ==-L2NhbGw=-bWU6ODA=";
    let broken =
        ["garbage", "1-------", "1-a-b", "1-dHJhY2UtMQ==-c2VnbWVudC0x-x-dXA=-dXAtMQ==-L2NhbGw=-bWU6ODA="];
    let stage = Stage::enter("sw8");
    let observer = Observer::start(&[]);
    let gunicorn = Gunicorn::start(&stage, &Launch::new("gthread", "wsgi_app:app"));
    observer.wait_instances(&gunicorn.workers());
    let get = |sw8: &str| Request::get("plain").header("sw8", sw8);
    let linked = keep(&gunicorn, &[get(good), get(&good.replacen('1', "0", 1))]);
    let suppressed = keep(&gunicorn, &broken.map(get));
    assert!(suppressed.iter().all(|sent| sent.status == Some(200)), "{suppressed:?}");
    let sent = [linked.clone(), keep(&gunicorn, &[Request::get("plain")])].concat();
    observer.wait_requests(&gunicorn, &sent);
    let report = observer.stop();
    Expectation::new(&gunicorn, &sent).losing(&["bad_sw8"]).check(&report);
    assert_eq!(report.drops().get("bad_sw8"), Some(&4), "{:?}", report.drops());
    for segment in segments(&report.lines, gunicorn.service()) {
        let span = &segment.spans[0];
        if !linked.iter().any(|sent| sent.path == span.operation) {
            assert!(span.refs.is_empty() && segment.trace_id != "trace-1", "{segment:?}");
            continue;
        }
        assert_eq!((segment.trace_id.as_str(), span.refs.len()), ("trace-1", 1), "{segment:?}");
        let from = &span.refs[0];
        assert_eq!((from.trace_id.as_str(), from.parent_segment_id.as_str()), ("trace-1", "segment-1"));
        assert_eq!((from.parent_span_id, from.parent_endpoint.as_str()), (4, "/call"));
        assert_eq!((from.parent_service.as_str(), from.parent_instance.as_str()), ("up", "up-1"));
        assert_eq!(from.address, "me:80");
    }
}
