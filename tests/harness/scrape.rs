//! A page in Prometheus text: asked for, read, checked by Prometheus' own tool.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use observer::meter::definition::DEFINITIONS;

use crate::stage::must;
use crate::stage::tool;

/// The longest that one read or write waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A page and its samples, by name and labels as they are written.
#[derive(Clone, Debug)]
pub struct Page {
    /// As it was served.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

/// A loopback address that nobody listens on.
pub fn free() -> SocketAddr {
    let listener = must(TcpListener::bind("127.0.0.1:0"), "find a free port");
    must(listener.local_addr(), "find a free port")
}

/// Sends bytes and reads until the other side closes.
///
/// # Errors
/// What the connection ended with, if not by an answer.
pub fn ask(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(request)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What `GET /metrics` answers: head and body, the body as long as its head says.
///
/// # Errors
/// What the connection ended with, if not by a whole answer.
pub fn get(address: SocketAddr) -> io::Result<(String, String)> {
    let answer = ask(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    if length != body.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((head.to_owned(), body.to_owned()))
}

/// The page that is served there.
pub fn page(address: SocketAddr) -> Page {
    let (head, text) = must(get(address), format_args!("read the page of {address}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
        (series.to_owned(), must(value.parse(), format_args!("read the value of {line}")))
    };
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let samples: BTreeMap<String, f64> = lines.iter().map(|line| sample(line)).collect();
    assert_eq!(samples.len(), lines.len(), "a series is there twice:\n{text}");
    Page { text, samples }
}

impl Page {
    /// The value of a series, written as on the page.
    pub fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("there is no {series}:\n{}", self.text))
    }

    /// Series and values whose names begin so.
    pub fn series<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let found = self.samples.iter().filter(move |(series, _)| series.starts_with(start));
        found.map(|(series, value)| (series.as_str(), *value))
    }

    /// Every series of an instance's meters.
    pub fn of(&self, service: &str, instance: &str) -> BTreeMap<String, f64> {
        let whose = format!("{{service=\"{service}\",instance=\"{instance}\"");
        let found = self.samples.iter().filter(|(series, _)| series.contains(&whose));
        found.map(|(series, value)| (series.clone(), *value)).collect()
    }

    /// The names of all families.
    pub fn families(&self) -> BTreeSet<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }
}

/// Meters as `--print=json` has them, as series of the page.
pub fn exposed(service: &str, instance: &str, meters: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let series = |(key, value): (&String, &f64)| {
        let (name, labels) = key.trim_end_matches('}').split_once('{').unwrap_or((key, ""));
        let definition = DEFINITIONS.iter().find(|definition| definition.name == name);
        let definition = definition.unwrap_or_else(|| panic!("{name} is not defined"));
        let mut series = format!("{}{{service=\"{service}\",instance=\"{instance}\"", definition.exposed);
        for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
            series.extend([",", label, "=\"", value, "\""]);
        }
        (series + "}", value * definition.scale)
    };
    meters.iter().map(series).collect()
}

/// Fails with what Prometheus' own tool has to say against a page.
pub fn check(page: &Page) {
    let mut command = Command::new(tool("promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = must(command.spawn(), format_args!("start {command:?}"));
    if let Some(mut input) = child.stdin.take() {
        must(input.write_all(page.text.as_bytes()), "hand the page to promtool");
    }
    let output = must(child.wait_with_output(), "wait for promtool");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "promtool says: {said}\n{}", page.text);
}
