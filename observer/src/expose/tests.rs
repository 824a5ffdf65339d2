//! What is served, over real sockets.
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use super::*;
use crate::expose::board::tests::instance;
use crate::identity::Role;

/// A served board, on a port of its own.
fn served() -> (Exposer, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.listener.local_addr().unwrap();
    (listener.serve(About::default(), None), address)
}

/// Sends a request and reads until the end.
async fn asked(address: SocketAddr, request: impl AsRef<[u8]> + Send + 'static) -> String {
    tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(request.as_ref()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_served() {
    let (mut exposer, address) = served();
    exposer.take(&Report::Hello(instance("a", 1, Role::Worker)));
    exposer.publish(Counts { records: 5, ..Counts::default() });
    let answer = asked(address, GET).await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains(&format!("content-length: {}", page.len())), "{head}");
    for line in ["sw_observe_records_total 5", "sw_observe_instances{role=\"worker\"} 1"] {
        assert!(page.lines().any(|found| found == line), "{page}");
    }
    // Many who ask at once get the page that is there, which is a new one later.
    exposer.publish(Counts { records: 6, ..Counts::default() });
    assert_eq!(asked(address, GET).await.split_once("\r\n\r\n").unwrap().1, page);
    tokio::time::sleep(PAGE_AGE).await;
    assert!(asked(address, GET).await.contains("sw_observe_records_total 6\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_requests_are_told_what_would_do() {
    let (_exposer, address) = served();
    let head = asked(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let post = asked(address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    for path in ["/", "/metrics/", "/metrics/../x"] {
        let answer = asked(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("/metrics"), "{answer}");
    }
    assert!(asked(address, "GET /metrics?name=x HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
    assert!(asked(address, "SSH-2.0-x\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "h".repeat(7 * 1024));
    assert!(asked(address, huge).await.starts_with("HTTP/1.1 200 "));
}

/// More than are served at a time, each with the beginning of a head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_idle_has_to_go() {
    let (_exposer, address) = served();
    let idle: Vec<_> = (0..90)
        .map(|_| {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            socket
        })
        .collect();
    let begin = Instant::now();
    assert!(asked(address, GET).await.starts_with("HTTP/1.1 200 "));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    for mut socket in idle {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert!(!said.starts_with("HTTP/1.1 200"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Listener::bind(address).unwrap_err().to_string();
    assert!(error.contains("--metrics-listen") && error.contains(&address.to_string()), "{error}");
    assert!(error.contains("in use") && error.contains("choose another"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_answers_after_the_end() {
    let (exposer, address) = served();
    assert!(asked(address, GET).await.starts_with("HTTP/1.1 200 "));
    drop(exposer);
    let refused = async || TcpStream::connect(address).is_err();
    for _ in 0..100 {
        if refused().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("somebody still listens on {address}");
}
