//! Every option, validated as a whole before anything is touched.
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use crate::identity::naming::Given;
use crate::identity::target::Targets;
use crate::kernel;
use crate::kernel::catalog::Variant;
use crate::report::grpc;
use crate::report::print::Format;
use crate::trace::rules::Chosen;

/// Options as given, before they are checked.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// `--oap`
    pub oap: Option<String>,
    /// `--authentication`
    pub authentication: Option<String>,
    /// `--tls`
    pub tls: bool,
    /// `--service`, `--instance`, `--namespace`, `--instance-format`, `--beside-agent`
    pub given: Given,
    /// `--ignore-suffix`, `--ignore-path`, `--ignore-method`, `--disable-plugins`, `--sample-n-per-3-secs`,
    /// `--http-params`, `--http-params-length`, `--redact`, `--tags`, `--w3c-trace-id`
    pub chosen: Chosen,
    /// `--target`
    pub targets: Vec<String>,
    /// `--exclude`
    pub exclusions: Vec<String>,
    /// `--heartbeat`, in seconds
    pub heartbeat_s: Option<u32>,
    /// `--properties-factor`
    pub properties_factor: Option<u32>,
    /// `--stuck-after`, in seconds
    pub stuck_after_s: u64,
    /// `--meter-period`, in seconds
    pub meter_period_s: Option<u64>,
    /// Without `--no-gc-pauses`
    pub collector: bool,
    /// Without `--no-gil-wait`
    pub lock: bool,
    /// Without `--no-worker-tls`
    pub sessions: bool,
    /// `--queue-size`
    pub queue_size: usize,
    /// `--print`
    pub print: Option<Printing>,
    /// `--metrics-listen`
    pub metrics_listen: Option<String>,
    /// `--attach`
    pub attach: Option<Variant>,
    /// `--ring-size`, in bytes
    pub ring_bytes: u32,
    /// `--max-connections`
    pub connections: u32,
    /// `--log-level`
    pub log_level: String,
}

/// What to print on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printing {
    /// Lines to read.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options that make sense together.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where reports go; `None` ships nothing.
    pub oap: Option<grpc::Settings>,
    /// How reports are printed; `None` prints nothing.
    pub print: Option<Format>,
    /// Where numbers are served in Prometheus text; `None` serves none.
    pub metrics_listen: Option<SocketAddr>,
    /// What to watch, and names that go before those of the targets.
    pub given: Given,
    /// What is left out on purpose and what is shown beside; it goes before what the targets say.
    pub chosen: Chosen,
    /// How long after its fork a worker that has not beaten is stuck.
    pub stuck_after: Duration,
    /// Between two meter reports, where that is chosen for all; zero sends none.
    pub meter_period: Option<Duration>,
    /// Whether the runs of the interpreters' collector are timed.
    pub collector: bool,
    /// Whether waits for the interpreters' lock are timed.
    pub lock: bool,
    /// Whether what workers encrypt themselves is read.
    pub sessions: bool,
    /// The probes' settings.
    pub kernel: kernel::Settings,
    /// Least level of the lines that are logged.
    pub log_level: Level,
}

/// An option that cannot work: which, why, and what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {why}")]
pub struct ConfigError {
    option: &'static str,
    why: String,
}

/// The smallest ring that holds a few of the largest records, but of whole calls of HTTP/2.
const RING_MIN: u32 = 1 << 16;
/// The largest that the kernel takes (`kernel/bpf/ringbuf.c`) and a node wants.
const RING_MAX: u32 = 1 << 30;

impl Config {
    /// Checks options; `terminal` says whether standard output is one.
    pub fn new(raw: Raw, terminal: bool) -> Result<Config, ConfigError> {
        let fail = |option, why: String| Err(ConfigError { option, why });
        if !raw.ring_bytes.is_power_of_two() || !(RING_MIN..=RING_MAX).contains(&raw.ring_bytes) {
            let why =
                format!("{} is not a power of two between {RING_MIN} and {RING_MAX} bytes", raw.ring_bytes);
            return fail("--ring-size", why);
        }
        if !(16..=4_194_304).contains(&raw.connections) {
            return fail("--max-connections", format!("{} is not between 16 and 4194304", raw.connections));
        }
        for (option, number) in
            [("--heartbeat", raw.heartbeat_s), ("--properties-factor", raw.properties_factor)]
        {
            if number == Some(0) {
                return fail(option, "0 would never be due: give a number from 1".to_owned());
            }
        }
        if raw.stuck_after_s == 0 {
            return fail("--stuck-after", "0 would call every worker stuck: give a number from 1".to_owned());
        }
        if raw.queue_size == 0 {
            return fail("--queue-size", "0 would hold nothing: give a number from 1".to_owned());
        }
        let names = [
            ("--service", &raw.given.service),
            ("--instance", &raw.given.instance),
            ("--namespace", &raw.given.namespace),
        ];
        if let Some((option, _)) =
            names.iter().find(|(_, name)| name.as_deref().is_some_and(|n| n.trim().is_empty()))
        {
            return fail(option, "an empty name: leave it out to take the target's own".to_owned());
        }
        let targets = Targets::parse(&raw.targets, &raw.exclusions);
        let targets = targets.map_err(|(option, why)| ConfigError { option, why })?;
        let log_level = level(&raw.log_level)?;
        let print = match (raw.print, raw.oap.is_some()) {
            (Some(Printing::Json), _) => Some(Format::Json),
            (Some(Printing::Text), _) | (None, false) => Some(Format::Text { colour: terminal }),
            (None, true) => None,
        };
        let kernel = kernel::Settings {
            ring_bytes: raw.ring_bytes,
            connections: raw.connections,
            attach: raw.attach,
            empty: false,
        };
        let meter_period = raw.meter_period_s.map(Duration::from_secs);
        let stuck_after = Duration::from_secs(raw.stuck_after_s);
        let metrics_listen = raw.metrics_listen.as_deref().map(metrics_listen).transpose()?;
        let (oap, given, chosen) = (oap(&raw)?, Given { targets, ..raw.given }, raw.chosen);
        Ok(Config {
            oap,
            print,
            metrics_listen,
            given,
            chosen,
            stuck_after,
            meter_period,
            collector: raw.collector,
            lock: raw.lock,
            sessions: raw.sessions,
            kernel,
            log_level,
        })
    }
}

fn oap(raw: &Raw) -> Result<Option<grpc::Settings>, ConfigError> {
    let Some(endpoint) = &raw.oap else { return Ok(None) };
    let fail = |why: String| Err(ConfigError { option: "--oap", why });
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        return fail(format!("{endpoint} has no port: give HOST:PORT, such as oap.example:11800"));
    };
    if host.is_empty() || host.contains(['/', ',', ' ', '@']) {
        return fail(format!("{endpoint} is not one HOST:PORT, such as oap.example:11800"));
    }
    if port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Ok(Some(grpc::Settings {
            authentication: raw.authentication.clone(),
            tls: raw.tls,
            heartbeat: raw.heartbeat_s.map(|seconds| Duration::from_secs(seconds.into())),
            properties_factor: raw.properties_factor,
            queue_size: raw.queue_size,
            ..grpc::Settings::new(endpoint)
        }));
    }
    fail(format!("{port} is not a port number: give HOST:PORT, such as oap.example:11800"))
}

/// An address, not a name: what listens must not change with a name server's answers.
fn metrics_listen(address: &str) -> Result<SocketAddr, ConfigError> {
    let parsed: Option<SocketAddr> = address.parse().ok();
    parsed.filter(|address| address.port() > 0).ok_or_else(|| ConfigError {
        option: "--metrics-listen",
        why: format!("{address} is not IP:PORT: give one such as 127.0.0.1:9105 or [::1]:9105"),
    })
}

/// Takes the agent's level names (Python's) and the usual ones, in any case.
fn level(name: &str) -> Result<Level, ConfigError> {
    match name.to_ascii_lowercase().as_str() {
        "critical" | "fatal" | "error" => Ok(Level::ERROR),
        "warning" | "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(ConfigError {
            option: "--log-level",
            why: format!("{name} is not a level: give error, warning, info, debug or trace"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw {
            stuck_after_s: 30,
            queue_size: 10,
            ring_bytes: 1 << 20,
            connections: 1_000,
            log_level: "INFO".to_owned(),
            ..Raw::default()
        }
    }

    #[test]
    fn without_an_oap_it_prints() {
        let config = Config::new(raw(), false).unwrap();
        assert_eq!(config.print, Some(Format::Text { colour: false }));
        let shipped = Config::new(Raw { oap: Some("[::1]:11800".to_owned()), ..raw() }, true).unwrap();
        assert_eq!((shipped.print, shipped.oap.unwrap().endpoint), (None, "[::1]:11800".to_owned()));
    }

    #[test]
    fn numbers_are_served_only_where_that_is_asked_for() {
        let listen = |address: &str| Raw { metrics_listen: Some(address.to_owned()), ..raw() };
        let of = |raw| Config::new(raw, false).unwrap().metrics_listen.map(|address| address.to_string());
        assert_eq!(of(raw()), None);
        for address in ["127.0.0.1:9105", "[::1]:9105", "0.0.0.0:1"] {
            assert_eq!(of(listen(address)).as_deref(), Some(address));
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        let oap = |oap: &str| Raw { oap: Some(oap.to_owned()), ..raw() };
        let listen = |address: &str| Raw { metrics_listen: Some(address.to_owned()), ..raw() };
        let cases = [
            (oap("oap"), "--oap"),
            (oap("oap:0"), "--oap"),
            (oap("http://oap:11800"), "--oap"),
            (oap("a:1,b:2"), "--oap"),
            (Raw { ring_bytes: 100_000, ..raw() }, "--ring-size"),
            (Raw { connections: 1, ..raw() }, "--max-connections"),
            (Raw { heartbeat_s: Some(0), ..raw() }, "--heartbeat"),
            (Raw { stuck_after_s: 0, ..raw() }, "--stuck-after"),
            (Raw { queue_size: 0, ..raw() }, "--queue-size"),
            (Raw { log_level: "loud".to_owned(), ..raw() }, "--log-level"),
            (listen("localhost:9105"), "--metrics-listen"),
            (listen("127.0.0.1:0"), "--metrics-listen"),
            (listen("9105"), "--metrics-listen"),
            (listen("::1:9105"), "--metrics-listen"),
            (listen(""), "--metrics-listen"),
            (Raw { targets: vec!["uwsgi".to_owned()], ..raw() }, "--target"),
            (Raw { exclusions: vec!["port".to_owned()], ..raw() }, "--exclude"),
            (
                Raw { given: Given { service: Some(" ".to_owned()), ..Given::default() }, ..raw() },
                "--service",
            ),
        ];
        for (raw, option) in cases {
            assert_eq!(Config::new(raw, false).unwrap_err().option, option);
        }
    }
}
