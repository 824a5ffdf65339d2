//! The command line.
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::Args;
use clap::CommandFactory as _;
use clap::FromArgMatches as _;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::builder::Resettable;

use crate::config::Printing;
use crate::config::Raw;
use crate::identity::naming::Given;
use crate::identity::naming::InstanceFormat;
use crate::kernel::catalog::Variant;
use crate::trace::rules::Chosen;

const EXIT_CODES: &str = "\
Exit codes: 0 stopped by TERM or INT; 64 wrong usage or option; 69 this kernel or host cannot do it \
(`sw-observe check` says why); 70 a bug; 74 output could not be written; 77 no permission (run as root).";

/// Names of parameters that are secrets as a rule.
const REDACTED: &str =
    "*passw*,pwd,*secret*,*token*,auth,authorization,*session*,*signature*,*credential*,*api?key*,apikey";

/// Watches gunicorn from outside with eBPF and reports traces and metrics to a SkyWalking OAP.
#[derive(Debug, Parser)]
#[command(name = "sw-observe", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch and report until stopped (the default)
    Run(Box<RunArgs>),
    /// Show what this host can do, and what to do about what is missing
    Check,
    /// Watch and report, and write everything that was seen to a tape
    Record {
        /// The tape; an existing file is overwritten
        file: PathBuf,
        /// The options of `run`.
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Print what a tape leads to; needs no root and no probes
    Replay {
        /// The tape
        file: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        print: Print,
    },
}

/// The options of a run. Environment variables are those of the SkyWalking Python agent.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What to watch, running or to come: `gunicorn` is every one on this host, `gunicorn:KEY=VALUE,…` those for which all
    /// of this holds: service, cgroup, cmd (patterns with * and ?), pid (of the master), port, container (beginning of
    /// the id); as=NAME gives them a service name. Repeatable, the first that matches counts
    #[arg(long, value_name = "TARGET", default_value = "gunicorn")]
    target: Vec<String>,
    /// What not to watch: KEY=VALUE,… with the keys of --target; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    exclude: Vec<String>,
    /// Report gunicorns with the SkyWalking Python agent inside too; without this only the agent does
    #[arg(long)]
    beside_agent: bool,
    /// The OAP's gRPC address; without it everything is printed
    #[arg(long, value_name = "HOST:PORT", env = "SW_AGENT_COLLECTOR_BACKEND_SERVICES")]
    oap: Option<String>,
    /// The token that the OAP expects
    #[arg(long, value_name = "TOKEN", env = "SW_AGENT_AUTHENTICATION", hide_env_values = true)]
    authentication: Option<String>,
    /// Use TLS to the OAP, with this machine's trusted roots
    #[arg(long, env = "SW_AGENT_FORCE_TLS", value_parser = is_true)]
    tls: bool,
    /// Service name for all targets instead of their own
    #[arg(long, value_name = "NAME", env = "SW_AGENT_NAME")]
    service: Option<String>,
    /// First part of all instance names instead of the targets' host name
    #[arg(long, value_name = "NAME", env = "SW_AGENT_INSTANCE_NAME")]
    instance: Option<String>,
    /// How instances are named
    #[arg(long, value_enum, default_value = "agent")]
    instance_format: Format,
    /// Namespace: services are called `name|namespace`
    #[arg(long, value_name = "NAME", env = "SW_AGENT_NAMESPACE")]
    namespace: Option<String>,
    /// Leave out requests whose path ends so, with commas between, instead of what the targets' environments say; empty for none
    #[arg(long, value_name = "LIST", env = "SW_AGENT_IGNORE_SUFFIX")]
    ignore_suffix: Option<String>,
    /// Leave out requests whose path is like one of these: `?`, `*` within a segment, `**` across them
    #[arg(long, value_name = "LIST", env = "SW_AGENT_TRACE_IGNORE_PATH")]
    ignore_path: Option<String>,
    /// Leave out requests with one of these methods
    #[arg(long, value_name = "LIST", env = "SW_PLUGIN_HTTP_IGNORE_METHOD")]
    ignore_method: Option<String>,
    /// Leave out requests of frameworks whose plugin of the agent has a name that one of these regular expressions begins
    #[arg(long, value_name = "LIST", env = "SW_AGENT_DISABLE_PLUGINS")]
    disable_plugins: Option<String>,
    /// Report at most so many requests of each worker in three seconds; 0 is all
    #[arg(long, value_name = "N", env = "SW_SAMPLE_N_PER_3_SECS")]
    sample_n_per_3_secs: Option<u32>,
    /// Show the parameters of every request's query as tag `http.params`
    #[arg(long)]
    http_params: bool,
    /// How many characters of them are shown; a negative number for all
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        env = "SW_PLUGIN_HTTP_HTTP_PARAMS_LENGTH_THRESHOLD"
    )]
    http_params_length: Option<i64>,
    /// Which parameters' values are shown as `***`: patterns for names, with commas between
    #[arg(long, value_name = "LIST", default_value = REDACTED)]
    redact: String,
    /// Which tags a span has
    #[arg(long, value_enum, default_value = "all")]
    tags: Tags,
    /// Take the trace id of a request without `sw8` from its `traceparent` header
    #[arg(long)]
    w3c_trace_id: bool,
    /// Print instances, spans and meters, beside shipping them
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "text", require_equals = true)]
    print: Option<Print>,
    /// Serve meters and own numbers in Prometheus text on http://ADDRESS/metrics, such as 127.0.0.1:9105; the kernel then
    /// accounts the run time of every BPF program of this host
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Take only this attach variant of each probe
    #[arg(long, value_enum)]
    attach: Option<Attach>,
    /// Seconds between two signs of life of an instance, instead of what the targets' environments say, or else 30
    #[arg(long, value_name = "SECONDS", env = "SW_AGENT_COLLECTOR_HEARTBEAT_PERIOD")]
    heartbeat: Option<u32>,
    /// Every how many signs of life the properties are sent again, instead of what the targets' environments say, or else 10
    #[arg(long, value_name = "N", env = "SW_AGENT_COLLECTOR_PROPERTIES_REPORT_PERIOD_FACTOR")]
    properties_factor: Option<u32>,
    /// Seconds after its fork at which a worker that has not beaten is stuck
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stuck_after: u64,
    /// Seconds between two meter reports, instead of what the targets' environments say, or else 20; 0 sends none
    #[arg(long, value_name = "SECONDS", env = "SW_AGENT_METER_REPORTER_PERIOD")]
    meter_period: Option<u64>,
    /// Do not time the runs of the interpreters' garbage collector: no uprobe is put into their files
    #[arg(long)]
    no_gc_pauses: bool,
    /// Do not time how long threads wait for the interpreter's lock: futex calls are not traced
    #[arg(long)]
    no_gil_wait: bool,
    /// Do not read what workers encrypt themselves: no uprobe is put into their OpenSSL
    #[arg(long)]
    no_worker_tls: bool,
    /// How many segments wait for the OAP before the oldest is dropped
    #[arg(long, value_name = "N", default_value_t = 10_000, env = "SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE")]
    queue_size: usize,
    /// Size of the ring between kernel and observer, a power of two
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    ring_size: u32,
    /// How many connections are followed at a time
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    max_connections: u32,
    /// Least level of log lines: error, warning, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "SW_AGENT_LOGGING_LEVEL")]
    log_level: String,
    /// Check the options and exit
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Tags {
    /// Those of the Python agent, `time.*` and `traceparent`
    All,
    /// Exactly those of the Python agent
    Agent,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// `<base>-master(<pid>)-child(<pid>)`, as under `sw-python run -p`
    Agent,
    /// `<base>-child(<pid>)`, as of an agent that is started by hand
    Manual,
    /// Like agent; a base that nobody chose is 32 random digits, not the host name
    Random,
}

/// How to print.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Print {
    /// Lines to read
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Attach {
    Kprobe,
    Fentry,
    Tracepoint,
    Syscall,
}

impl Cli {
    /// Reads the command line and the environment, in which an empty variable is as good as none.
    pub fn read() -> Result<Cli, clap::Error> {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        Cli::from_arg_matches(&without(Cli::command(), is_empty).try_get_matches()?)
    }
}

/// The command and its subcommands without the variables that are `empty`.
fn without(command: clap::Command, empty: impl Fn(&OsStr) -> bool + Copy) -> clap::Command {
    let unset = |arg: clap::Arg| match arg.get_env() {
        Some(name) if empty(name) => arg.env(Resettable::Reset),
        Some(_) | None => arg,
    };
    command.mut_args(unset).mut_subcommands(|command| command.mut_args(unset))
}

/// The agent's reading of a switch: everything but `true` leaves it off.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn is_true(value: &str) -> Result<bool, std::convert::Infallible> {
    Ok(value.eq_ignore_ascii_case("true"))
}

impl From<Print> for Printing {
    fn from(print: Print) -> Printing {
        match print {
            Print::Text => Printing::Text,
            Print::Json => Printing::Json,
        }
    }
}

impl From<RunArgs> for Raw {
    fn from(args: RunArgs) -> Raw {
        Raw {
            oap: args.oap.filter(|oap| !oap.is_empty()),
            authentication: args.authentication.filter(|token| !token.is_empty()),
            tls: args.tls,
            given: Given {
                service: args.service,
                instance: args.instance,
                namespace: args.namespace,
                format: match args.instance_format {
                    Format::Agent => InstanceFormat::Agent,
                    Format::Manual => InstanceFormat::Manual,
                    Format::Random => InstanceFormat::Random,
                },
                beside_agent: args.beside_agent,
                ..Given::default()
            },
            chosen: Chosen {
                suffixes: args.ignore_suffix,
                paths: args.ignore_path,
                methods: args.ignore_method,
                plugins: args.disable_plugins,
                samples: args.sample_n_per_3_secs,
                params: args.http_params,
                params_length: args.http_params_length,
                redaction: args.redact,
                w3c: args.w3c_trace_id,
                only_agents_tags: args.tags == Tags::Agent,
            },
            targets: args.target,
            exclusions: args.exclude,
            heartbeat_s: args.heartbeat,
            properties_factor: args.properties_factor,
            stuck_after_s: args.stuck_after,
            meter_period_s: args.meter_period,
            collector: !args.no_gc_pauses,
            lock: !args.no_gil_wait,
            sessions: !args.no_worker_tls,
            queue_size: args.queue_size,
            print: args.print.map(Printing::from),
            metrics_listen: args.metrics_listen,
            attach: args.attach.map(|attach| match attach {
                Attach::Kprobe => Variant::Kprobe,
                Attach::Fentry => Variant::Fentry,
                Attach::Tracepoint => Variant::Tracepoint,
                Attach::Syscall => Variant::Syscall,
            }),
            ring_bytes: args.ring_size,
            connections: args.max_connections,
            log_level: args.log_level,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_what_happens_without_a_command() {
        let cli =
            Cli::parse_from(["sw-observe", "--target", "gunicorn", "--print=json", "--attach", "kprobe"]);
        let raw = Raw::from(cli.run);
        assert!(cli.command.is_none());
        assert_eq!((raw.print, raw.attach), (Some(Printing::Json), Some(Variant::Kprobe)));
    }

    #[test]
    fn targets_may_be_repeated() {
        let line =
            ["sw-observe", "--target", "gunicorn:port=1,as=a", "--target", "gunicorn", "--exclude=pid=7"];
        let raw = Raw::from(Cli::parse_from(line).run);
        assert_eq!(raw.targets, ["gunicorn:port=1,as=a", "gunicorn"]);
        assert_eq!(raw.exclusions, ["pid=7"]);
        assert_eq!(Raw::from(Cli::parse_from(["sw-observe"]).run).targets, ["gunicorn"]);
    }

    #[test]
    fn a_switch_is_on_when_it_is_true() {
        assert!(
            [("true", true), ("True", true), ("yes", false), ("disabled", false), ("", false)]
                .iter()
                .all(|(text, on)| is_true(text) == Ok(*on))
        );
        assert!(Raw::from(Cli::parse_from(["sw-observe", "--tls"]).run).tls);
    }

    #[test]
    fn an_empty_variable_is_no_variable() {
        let command = without(Cli::command(), |name| name == "SW_AGENT_NAME");
        let named = |command: &clap::Command, name: &str| {
            command.get_arguments().any(|arg| arg.get_env().is_some_and(|variable| variable == name))
        };
        let record = command.find_subcommand("record").unwrap();
        for command in [&command, record] {
            assert!(!named(command, "SW_AGENT_NAME") && named(command, "SW_AGENT_NAMESPACE"));
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
