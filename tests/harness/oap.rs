//! A real OAP server, and the questions to ask it. Needs Java 11 or newer and, the first time, Maven.
//!
//! `JAVA_OPTS` names other options of the JVM; `oap_install` says what else can be chosen.
#![expect(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

use std::env;
use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use ureq::Agent;

use crate::oap_install::configured;
use crate::oap_install::home;
use crate::oap_install::jars;
use crate::oap_install::java;

/// How long a start may take: 8 s on an idle machine with two cores.
const START: Duration = Duration::from_secs(180);
/// A JVM that starts fast and stays small.
const JAVA_OPTS: &str = "-Xms128M -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1";
/// What sets up a server for tests whatever its configuration: quick to answer, in UTC, and without the modules that
/// `tests/oap/pom.xml` leaves out.
const ENVIRONMENT: [(&str, &str); 12] = [
    ("TZ", "UTC"),
    ("SW_CORE_GRPC_HOST", "127.0.0.1"),
    ("SW_CORE_REST_HOST", "127.0.0.1"),
    ("SW_CORE_PERSISTENT_PERIOD", "1"),
    ("SW_SERVICE_CACHE_REFRESH_INTERVAL", "1"),
    ("SW_STORAGE", "h2"),
    ("SW_TELEMETRY", "none"),
    ("SW_HEALTH_CHECKER", "default"),
    ("SW_METER_ANALYZER_ACTIVE_FILES", "python-runtime,gunicorn"),
    ("SW_CORE_ENABLE_ENDPOINT_NAME_GROUPING_BY_OPENAPI", "false"),
    ("SW_CORE_ENABLE_HIERARCHY", "false"),
    ("OAP_LOG_LEVEL", "WARN"),
];
const OFF: [&str; 17] = [
    "SW_ALARM",
    "SW_CONFIGURATION_DISCOVERY",
    "SW_DEBUGGING_QUERY",
    "SW_ENVOY_METRIC",
    "SW_LOGQL",
    "SW_LOG_ANALYZER",
    "SW_OTEL_RECEIVER",
    "SW_PROMQL",
    "SW_RECEIVER_AWS_FIREHOSE",
    "SW_RECEIVER_BROWSER",
    "SW_RECEIVER_CLR",
    "SW_RECEIVER_EBPF",
    "SW_RECEIVER_JVM",
    "SW_RECEIVER_LOG",
    "SW_RECEIVER_PROFILE",
    "SW_RECEIVER_TELEGRAF",
    "SW_SERVICE_MESH",
];

/// Where a server listens, or will.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    grpc: u16,
    rest: u16,
}

impl Ports {
    /// Two that are free now.
    ///
    /// # Panics
    /// Without free ports.
    #[must_use]
    pub fn free() -> Self {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let (one, two) = (free(), free());
        let port =
            |listener: TcpListener| listener.local_addr().expect("a bound socket has an address").port();
        Self { grpc: port(one), rest: port(two) }
    }

    /// `host:port` for reporters.
    pub fn endpoint(self) -> String {
        format!("127.0.0.1:{}", self.grpc)
    }
}

/// A server with an empty memory; ends when dropped.
pub struct Server {
    java: Child,
    ports: Ports,
    agent: Agent,
    token: Option<String>,
    log: PathBuf,
    _config: TempDir,
}

/// What a metric is about.
#[derive(Clone, Copy, Debug)]
pub enum Entity<'a> {
    /// A service.
    Service(&'a str),
    /// An instance of a service.
    Instance(&'a str, &'a str),
    /// An endpoint of a service.
    Endpoint(&'a str, &'a str),
}

impl Server {
    /// Starts a server that takes reports from anybody.
    ///
    /// # Panics
    /// Without Java or the jars, or if the server does not start; the message says why.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server that takes reports with this token only.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(token: Option<&str>) -> Self {
        Self::start_at(Ports::free(), token)
    }

    /// Starts a server where one is expected already.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_at(ports: Ports, token: Option<&str>) -> Self {
        let home = home();
        let jars = jars(&home);
        let config = configured();
        let Ports { grpc, rest } = ports;
        let log = home.join(format!("oap-{grpc}.log"));
        let out = File::create(&log).expect("the log of the server can be written");
        let options = env::var("JAVA_OPTS").unwrap_or_else(|_| JAVA_OPTS.to_owned());
        let mut java = Command::new(java())
            .args(options.split_whitespace())
            .arg("-cp")
            .arg(format!("{}:{}/*", config.path().display(), jars.display()))
            .arg("org.apache.skywalking.oap.server.starter.OAPServerStartUp")
            .envs(OFF.map(|module| (module, "-")))
            .envs(ENVIRONMENT)
            .env("SW_CORE_GRPC_PORT", grpc.to_string())
            .env("SW_CORE_REST_PORT", rest.to_string())
            .env("SW_AUTHENTICATION", token.unwrap_or_default())
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a second handle of the log"))
            .stdout(out)
            .spawn()
            .expect("java can be started: install a Java 11 or newer runtime");
        let patient = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        let agent = Agent::new_with_config(patient);
        let until = Instant::now() + START;
        loop {
            let health = agent.get(format!("http://127.0.0.1:{rest}/healthcheck")).call();
            if health.is_ok_and(|answer| answer.status() == 200) {
                let token = token.map(str::to_owned);
                return Self { java, ports, agent, token, log, _config: config };
            }
            if java.try_wait().is_ok_and(|ended| ended.is_some()) || Instant::now() > until {
                let _killed = java.kill();
                let said = fs::read_to_string(&log).unwrap_or_default();
                panic!("the OAP did not start; {} says:\n{}", log.display(), complaint(&said));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `host:port` for reporters.
    pub fn endpoint(&self) -> String {
        self.ports.endpoint()
    }

    /// The same server once more, with nothing in its memory.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn restart(self) -> Self {
        let (ports, token) = (self.ports, self.token());
        drop(self);
        Self::start_at(ports, token.as_deref())
    }

    /// The token that reporters must send.
    pub fn token(&self) -> Option<String> {
        self.token.clone()
    }

    /// Resident memory of the server in KiB; 0 if the kernel does not say.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.java.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// The `data` of an answer.
    ///
    /// # Panics
    /// On an error, with its text.
    pub fn graphql(&self, query: &str, variables: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/graphql", self.ports.rest);
        let body = json!({ "query": query, "variables": variables });
        let mut answer = self.agent.post(url).send_json(body).expect("the OAP answers a query");
        let answer: Value = answer.body_mut().read_json().expect("the OAP answers in JSON");
        assert!(answer.get("errors").is_none_or(Value::is_null), "{query}: {answer}");
        answer.get("data").cloned().unwrap_or_default()
    }

    /// Names of the services of the layer GENERAL.
    pub fn services(&self) -> Vec<String> {
        names(&self.graphql(r#"{a:listServices(layer:"GENERAL"){name}}"#, &Value::Null))
    }

    /// Instances of a service with `name`, `language` and `attributes`, those of the last minutes.
    pub fn instances(&self, service: &str) -> Vec<Value> {
        let query = "query($s:ID!,$d:Duration!){a:listInstances(serviceId:$s,duration:$d)\
                     {name language attributes{name value}}}";
        list(&self.graphql(query, &json!({ "s": service_id(service), "d": lately() })))
    }

    /// Names of the endpoints of a service.
    pub fn endpoints(&self, service: &str) -> Vec<String> {
        let query = r#"query($s:ID!){a:findEndpoint(serviceId:$s,keyword:"",limit:100){name}}"#;
        names(&self.graphql(query, &json!({ "s": service_id(service) })))
    }

    /// Traces through a service, the newest first, with `segmentId`, `traceIds`, `endpointNames`, `duration`, `isError`.
    pub fn traces(&self, service: &str) -> Vec<Value> {
        let query = "query($c:TraceQueryCondition){q:queryBasicTraces(condition:$c){a:traces\
                     {segmentId traceIds endpointNames duration start isError}}}";
        let condition = json!({
            "serviceId": service_id(service), "queryDuration": lately(), "traceState": "ALL",
            "queryOrder": "BY_START_TIME", "paging": { "pageNum": 1, "pageSize": 1000 },
        });
        let answer = self.graphql(query, &json!({ "c": condition }));
        list(answer.get("q").unwrap_or(&Value::Null))
    }

    /// The spans of a trace.
    pub fn trace(&self, id: &str) -> Vec<Value> {
        let query = "query($t:ID!){q:queryTrace(traceId:$t){a:spans{traceId segmentId spanId parentSpanId \
                     refs{traceId parentSegmentId parentSpanId type} serviceCode serviceInstanceName startTime endTime \
                     endpointName type peer component isError layer tags{key value}}}}";
        let answer = self.graphql(query, &json!({ "t": id }));
        list(answer.get("q").unwrap_or(&Value::Null))
    }

    /// The dashboard with this id: its configuration.
    pub fn dashboard(&self, id: &str) -> Value {
        let query = "query($i:String!){a:getTemplate(id:$i){configuration}}";
        let answer = self.graphql(query, &json!({ "i": id }));
        let text = answer.pointer("/a/configuration").and_then(Value::as_str).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The values of a metric in the last minutes, without the minutes that have none.
    ///
    /// # Panics
    /// If OAP knows no such metric, or cannot make sense of the expression.
    pub fn metric(&self, expression: &str, entity: Entity<'_>) -> Vec<i64> {
        let query = "query($e:String!,$n:Entity!,$d:Duration!){a:execExpression(expression:$e,entity:$n,duration:$d)\
                     {error results{values{value}}}}";
        let entity = match entity {
            Entity::Service(service) => json!({ "serviceName": service, "normal": true }),
            Entity::Instance(service, instance) => {
                json!({ "serviceName": service, "normal": true, "serviceInstanceName": instance })
            }
            Entity::Endpoint(service, endpoint) => {
                json!({ "serviceName": service, "normal": true, "endpointName": endpoint })
            }
        };
        let answer = self.graphql(query, &json!({ "e": expression, "n": entity, "d": lately() }));
        let error = answer.pointer("/a/error").unwrap_or(&Value::Null);
        assert!(error.is_null(), "{expression}: {error}");
        let values =
            answer.pointer("/a/results/0/values").and_then(Value::as_array).cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.get("value")?.as_str()?.parse().ok()).collect()
    }

    /// Events of an instance in the last minutes, the oldest first; 0 is no time.
    pub fn events(&self, service: &str, instance: &str) -> Vec<Value> {
        let query = "query($c:EventQueryCondition){q:queryEvents(condition:$c){a:events{uuid \
                     source{service serviceInstance endpoint} name type message parameters{key value} startTime endTime \
                     layer}}}";
        let condition = json!({
            "source": { "service": service, "serviceInstance": instance }, "time": lately(), "order": "ASC",
            "paging": { "pageNum": 1, "pageSize": 100 },
        });
        let answer = self.graphql(query, &json!({ "c": condition }));
        list(answer.get("q").unwrap_or(&Value::Null))
    }

    /// Edges of the topology around a service, as `source -> target` names.
    pub fn calls(&self, service: &str) -> Vec<String> {
        let query = "query($s:ID!,$d:Duration!){a:getServiceTopology(serviceId:$s,duration:$d)\
                     {nodes{id name} calls{source target}}}";
        let answer = self.graphql(query, &json!({ "s": service_id(service), "d": lately() }));
        let part = |name: &str| answer.pointer(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let nodes = part("/a/nodes");
        let name = |id: Option<&Value>| {
            let node = nodes.iter().find(|node| node.get("id") == id);
            node.and_then(|node| node.get("name")?.as_str()).unwrap_or("?").to_owned()
        };
        let calls = part("/a/calls");
        calls
            .iter()
            .map(|call| format!("{} -> {}", name(call.get("source")), name(call.get("target"))))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // All it has is in its memory, so nothing is gained by asking politely.
        let _killed = self.java.kill();
        let _ended = self.java.wait();
        if !thread::panicking() {
            let _gone = fs::remove_file(&self.log);
        }
    }
}

/// Asks until there is an answer: what OAP aggregates can be seen seconds later.
///
/// # Panics
/// If there is none within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "no {what} within {limit:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("it is not the end of time")
}

/// The last ten minutes and the one to come, in the server's zone.
fn lately() -> Value {
    let now = now_ms() / 60_000;
    json!({ "start": minute(now - 10), "end": minute(now + 1), "step": "MINUTE" })
}

/// A minute since 1970 as `yyyy-MM-dd HHmm`.
fn minute(minutes: i64) -> String {
    let (mut days, of_day) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    let mut year = 1970;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}{:02}", days + 1, of_day / 60, of_day % 60)
}

/// OAP's id of a service that reports itself.
fn service_id(name: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut id = String::new();
    for chunk in name.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let at = bits >> (18 - 6 * digit) & 63;
            id.push(if digit > chunk.len() { '=' } else { DIGITS.get(at).map_or('=', |c| char::from(*c)) });
        }
    }
    format!("{id}.1")
}

fn list(answer: &Value) -> Vec<Value> {
    answer.get("a").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn names(answer: &Value) -> Vec<String> {
    list(answer).iter().filter_map(|item| Some(item.get("name")?.as_str()?.to_owned())).collect()
}

/// The lines of a log that say what went wrong, or else its end.
fn complaint(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let from = lines.iter().position(|line| line.contains("ERROR")).unwrap_or(lines.len().saturating_sub(20));
    lines.into_iter().skip(from).take(20).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_dates() {
        assert_eq!(minute(0), "1970-01-01 0000");
        assert_eq!(minute(28_407_959), "2024-01-05 1759");
        assert_eq!(minute(951_782_400 / 60), "2000-02-29 0000");
    }

    #[test]
    fn ids_are_base64() {
        assert_eq!(service_id("demo"), "ZGVtbw==.1");
        assert_eq!(service_id("demo12"), "ZGVtbzEy.1");
        assert_eq!(service_id("demo1"), "ZGVtbzE=.1");
    }
}
