//! Service and instance names in SkyWalking's forms, and instance properties.
use super::Facts;

/// OAP cuts instance names silently at this many characters (`SW_INSTANCE_NAME_MAX_LENGTH`).
const INSTANCE_LIMIT: usize = 70;
/// Likewise service names (`SW_SERVICE_NAME_MAX_LENGTH`).
const SERVICE_LIMIT: usize = 70;

/// Names given on the command line; they go before what a target says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Given {
    /// `--service`
    pub service: Option<String>,
    /// `--instance`
    pub instance: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
}

/// The service name of a master: the first that is there of the option, the agent's variable, the variables of
/// other agents, gunicorn's `--name`, its process title, and the application as typed.
pub fn service(given: &Given, master: &Facts) -> String {
    let name = given
        .service
        .clone()
        .or_else(|| variable(master, "SW_AGENT_NAME"))
        .or_else(|| variable(master, "OTEL_SERVICE_NAME"))
        .or_else(|| resource_attribute(master))
        .or_else(|| variable(master, "DD_SERVICE"))
        .or_else(|| variable(master, "NEW_RELIC_APP_NAME"))
        .or_else(|| option(&master.argv, "name", 'n'))
        .or_else(|| in_cmd_args(master))
        .or_else(|| title(&master.argv))
        .or_else(|| application(&master.argv))
        .unwrap_or_else(|| "gunicorn".to_owned());
    let namespace = given.namespace.clone().or_else(|| variable(master, "SW_AGENT_NAMESPACE"));
    let full = match namespace {
        Some(namespace) => format!("{name}|{namespace}"),
        None => name,
    };
    shorten(&full, SERVICE_LIMIT)
}

/// The namespace a master is in, for the property of that name.
pub fn namespace(given: &Given, master: &Facts) -> Option<String> {
    given.namespace.clone().or_else(|| variable(master, "SW_AGENT_NAMESPACE"))
}

/// The part of an instance's name that is the same for a master and all its workers.
fn base(given: &Given, master: &Facts) -> String {
    let own = || variable(master, "SW_AGENT_INSTANCE_NAME");
    given.instance.clone().or_else(own).unwrap_or_else(|| master.hostname.clone())
}

/// Name of a master's instance: `<base>-master(<pid>)`.
pub fn master(given: &Given, master: &Facts) -> String {
    with_suffix(&base(given, master), &format!("-master({})", master.inner_pid))
}

/// Name of a worker's instance: `<base>-master(<pid>)-child(<pid>)`, pids of the process's own namespace.
pub fn worker(given: &Given, master: &Facts, inner_pid: u32) -> String {
    with_suffix(&base(given, master), &format!("-master({})-child({inner_pid})", master.inner_pid))
}

/// Name of a dirty worker's instance: it is a child of the dirty arbiter, which is one of the master.
pub fn dirty_worker(given: &Given, master: &Facts, arbiter: u32, inner_pid: u32) -> String {
    let suffix = format!("-master({})-child({arbiter})-child({inner_pid})", master.inner_pid);
    with_suffix(&base(given, master), &suffix)
}

/// Name of a worker whose master was gone before anybody looked.
pub fn orphan(given: &Given, own: &Facts, inner_pid: u32) -> String {
    with_suffix(&base(given, own), &format!("-child({inner_pid})"))
}

/// Gunicorn's `--timeout` in nanoseconds, if it is on the command line or in `GUNICORN_CMD_ARGS`.
pub fn timeout(master: &Facts) -> Option<u64> {
    let words = option(&master.argv, "timeout", 't')?;
    words.parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1_000_000_000))
}

/// Instance properties as the Python agent sends them, in its order.
pub fn properties(given: &Given, master: &Facts, inner_pid: u32) -> Vec<(String, String)> {
    let mut properties = vec![
        ("language", "python".to_owned()),
        ("OS Name", "posix".to_owned()),
        ("Process No.", inner_pid.to_string()),
        ("hostname", master.hostname.clone()),
        ("ipv4", master.ipv4.join("; ")),
        ("python_implementation", "CPython".to_owned()),
    ];
    if let Some(version) = &master.python_version {
        properties.push(("python_version", version.clone()));
    }
    if let Some(namespace) = namespace(given, master) {
        properties.push(("namespace", namespace));
    }
    properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Shortens the base, never the pids: what OAP cuts off by itself would merge workers.
fn with_suffix(base: &str, suffix: &str) -> String {
    format!("{}{suffix}", shorten(base, INSTANCE_LIMIT.saturating_sub(suffix.chars().count())))
}

/// `name` within `limit` characters; a shortened one ends in a hash of the whole, so that two names stay two.
fn shorten(name: &str, limit: usize) -> String {
    if name.chars().count() <= limit {
        return name.to_owned();
    }
    let hash = format!("~{:08x}", fnv1a(name.as_bytes()));
    let kept: String = name.chars().take(limit.saturating_sub(hash.len())).collect();
    format!("{kept}{hash}")
}

/// FNV-1a, 32 bits: stable over releases and machines, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn variable(facts: &Facts, name: &str) -> Option<String> {
    facts.variable(name).map(str::to_owned)
}

/// `service.name` of `OTEL_RESOURCE_ATTRIBUTES`.
fn resource_attribute(facts: &Facts) -> Option<String> {
    let pairs = facts.variable("OTEL_RESOURCE_ATTRIBUTES")?.split(',');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == "service.name")
        .map(|(_, v)| v.to_owned())
}

fn in_cmd_args(facts: &Facts) -> Option<String> {
    let words: Vec<String> =
        facts.variable("GUNICORN_CMD_ARGS")?.split_whitespace().map(str::to_owned).collect();
    option(&words, "name", 'n')
}

/// Value of gunicorn's option `--long`/`-s`, as argparse reads it: `--name X`, `--name=X`, a unique prefix
/// (`--nam X`), `-n X`, `-nX`.
fn option(argv: &[String], long: &str, short: char) -> Option<String> {
    let mut words = argv.iter();
    let mut found = None;
    while let Some(word) = words.next() {
        if let Some(rest) = word.strip_prefix("--") {
            let (name, value) =
                rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
            // `--no-…` options exist, so two letters do not tell `--name` yet.
            if name.len() > 2 && long.starts_with(name) {
                found = value.map(str::to_owned).or_else(|| words.next().cloned());
            }
        } else if let Some(rest) = word.strip_prefix('-')
            && let Some(value) = rest.strip_prefix(short)
        {
            found = if value.is_empty() { words.next().cloned() } else { Some(value.to_owned()) };
        }
    }
    found.filter(|value| !value.is_empty())
}

/// The name in a process title made by setproctitle: `gunicorn: master [name]`.
fn title(argv: &[String]) -> Option<String> {
    let title = argv.first()?;
    let (_, rest) = title.split_once("gunicorn: master [")?;
    rest.split_once(']').map(|(name, _)| name.to_owned())
}

/// Options of gunicorn that take no value (20.1 to 27).
const FLAGS: [&str; 25] = [
    "-D",
    "-R",
    "--capture-output",
    "--casefold-http-method",
    "--check-config",
    "--daemon",
    "--disable-redirect-access-to-syslog",
    "--do-handshake-on-connect",
    "--enable-backlog-metric",
    "--enable-stdio-inheritance",
    "--initgroups",
    "--log-syslog",
    "--no-control-socket",
    "--no-sendfile",
    "--permit-obsolete-folding",
    "--permit-unconventional-http-method",
    "--permit-unconventional-http-version",
    "--preload",
    "--print-config",
    "--proxy-protocol",
    "--reload",
    "--reuse-port",
    "--spew",
    "--strip-header-spaces",
    "--suppress-ragged-eofs",
];

/// The application as typed, `module` or `module:attribute`: the first word behind gunicorn that is neither an
/// option nor an option's value.
fn application(argv: &[String]) -> Option<String> {
    let start = argv
        .iter()
        .position(|word| word.rsplit('/').next().is_some_and(|name| name.starts_with("gunicorn")))?;
    let mut words = argv.get(start + 1..)?.iter();
    while let Some(word) = words.next() {
        let with_value = match word.strip_prefix('-').map(|rest| rest.strip_prefix('-').ok_or(rest)) {
            None => return Some(word.clone()),
            Some(Ok("")) => return words.next().cloned(),
            Some(Ok(long)) => long.contains('='),
            Some(Err(short)) => short.chars().count() > 1, // `-w4`
        };
        if !with_value && !FLAGS.contains(&word.as_str()) {
            words.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;

    fn facts(argv: &str, environ: &[(&str, &str)]) -> Facts {
        Facts {
            key: ProcessKey { pid: 4711, start: 1 },
            parent: 1,
            inner_pid: 7,
            argv: argv.split(' ').map(str::to_owned).collect(),
            environ: environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            hostname: "web-1".to_owned(),
            ipv4: vec!["10.1.2.3".to_owned()],
            python_version: Some("3.11.7".to_owned()),
        }
    }

    #[test]
    fn service_names_come_from_the_first_source_that_has_one() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            ("gunicorn -w 2 app:app", &[("SW_AGENT_NAME", "shop")], "shop"),
            ("gunicorn -w 2 app:app", &[("SW_AGENT_NAME", "shop"), ("SW_AGENT_NAMESPACE", "eu")], "shop|eu"),
            ("gunicorn app:app", &[("OTEL_SERVICE_NAME", "otel")], "otel"),
            ("gunicorn app:app", &[("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=res")], "res"),
            ("gunicorn --name web app:app", &[], "web"),
            ("gunicorn --nam=web app:app", &[], "web"),
            ("gunicorn -nweb app:app", &[], "web"),
            ("gunicorn -b 127.0.0.1:8000 app:app", &[("GUNICORN_CMD_ARGS", "--name x -w 3")], "x"),
            (
                "/v/bin/python /v/bin/gunicorn -b 127.0.0.1:8000 --workers 2 shop.wsgi:application",
                &[],
                "shop.wsgi:application",
            ),
            (
                "python -m gunicorn -k uvicorn.workers.UvicornWorker --bind unix:/tmp/s app:create_app()",
                &[],
                "app:create_app()",
            ),
            ("gunicorn --bind unix:shop.sock -m 007 -D --preload wsgi:app", &[], "wsgi:app"),
            ("gunicorn shop.wsgi -c python:conf -w4 --threads=2", &[], "shop.wsgi"),
            ("gunicorn -k egg:gunicorn#gthread --no-sendfile -- shop:app", &[], "shop:app"),
            ("gunicorn -c conf.py", &[], "gunicorn"),
            ("python server.py", &[], "gunicorn"),
        ];
        for (argv, environ, expected) in cases {
            assert_eq!(service(&Given::default(), &facts(argv, environ)), *expected, "{argv}");
        }
        let titled = Facts { argv: vec!["gunicorn: master [shop]".to_owned()], ..facts("", &[]) };
        assert_eq!(service(&Given::default(), &titled), "shop");
    }

    #[test]
    fn instance_names_have_the_agents_form_and_keep_their_pids() {
        let plain = facts("gunicorn app:app", &[]);
        assert_eq!(master(&Given::default(), &plain), "web-1-master(7)");
        assert_eq!(worker(&Given::default(), &plain, 9), "web-1-master(7)-child(9)");
        let long = |tail: &str| Facts { hostname: format!("{}{tail}", "x".repeat(80)), ..plain.clone() };
        let (one, two) = (worker(&Given::default(), &long("a"), 9), worker(&Given::default(), &long("b"), 9));
        assert!(one.ends_with("-master(7)-child(9)") && one.chars().count() == 70, "{one}");
        assert_ne!(one, two);
    }
}
