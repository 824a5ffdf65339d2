//! HTTP for one page, with limits: whoever is slow, idle or many costs neither memory nor the observer's time.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Pages;
use super::text;

/// How many are served at a time; the kernel keeps others waiting.
const CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// How long a connection may last in all, the taking of a page included.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// The largest head, in bytes; the least that hyper takes.
const HEAD_BYTES: usize = 8 * 1024;
/// Until the next attempt, when the host has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(seat) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                connections.spawn(async move {
                    answer(stream, pages).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to --metrics-listen could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One request; a scraper comes again with a new connection.
async fn answer(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(respond(&request, &pages).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(WHOLE_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to --metrics-listen failed"),
        Err(_) => tracing::debug!("a connection to --metrics-listen took more than {WHOLE_TIME:?}"),
    }
}

async fn respond(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, page) = match (request.uri().path(), is_read) {
        ("/metrics", true) => (StatusCode::OK, text::CONTENT_TYPE, pages.latest().await),
        ("/metrics", false) => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", Bytes::from_static(b"only GET and HEAD\n"))
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(b"the numbers are at /metrics\n")),
    };
    let mut response = Response::new(Full::new(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
