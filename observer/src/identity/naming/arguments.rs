//! Gunicorn's own command line, read as its argparse reads it.
use crate::identity::Facts;
use crate::identity::load::Class;

/// Options with a value, those of 20.1 first: of the options that begin with what was typed, gunicorn took the only
/// one that its release has, so the first here is right in every release.
const VALUED: [&str; 74] = [
    "config",
    "bind",
    "backlog",
    "workers",
    "worker-class",
    "threads",
    "worker-connections",
    "max-requests",
    "max-requests-jitter",
    "timeout",
    "graceful-timeout",
    "keep-alive",
    "limit-request-line",
    "limit-request-fields",
    "limit-request-field_size",
    "reload-engine",
    "reload-extra-file",
    "chdir",
    "env",
    "pid",
    "worker-tmp-dir",
    "user",
    "group",
    "umask",
    "forwarded-allow-ips",
    "access-logfile",
    "access-logformat",
    "error-logfile",
    "log-file",
    "log-level",
    "logger-class",
    "log-config",
    "log-syslog-to",
    "log-syslog-prefix",
    "log-syslog-facility",
    "statsd-host",
    "dogstatsd-tags",
    "statsd-prefix",
    "name",
    "pythonpath",
    "paste",
    "paster",
    "paste-global",
    "proxy-allow-from",
    "keyfile",
    "certfile",
    "ssl-version",
    "cert-reqs",
    "ca-certs",
    "ciphers",
    "log-config-json",
    "forwarder-headers",
    "header-map",
    "asgi-disconnect-grace-period",
    "asgi-lifespan",
    "asgi-loop",
    "control-socket",
    "control-socket-mode",
    "dirty-app",
    "dirty-graceful-timeout",
    "dirty-threads",
    "dirty-timeout",
    "dirty-workers",
    "http-parser",
    "http-protocols",
    "http2-cleartext",
    "http2-initial-window-size",
    "http2-max-concurrent-streams",
    "http2-max-frame-size",
    "http2-max-header-list-size",
    "protocol",
    "root-path",
    "uwsgi-allow-from",
    "websocket-max-message-size",
];

/// Options without one. From 24 on `--proxy-protocol` may have a value, one of [`PROXY_PROTOCOLS`].
const FLAGS: [&str; 25] = [
    "reload",
    "spew",
    "check-config",
    "print-config",
    "preload",
    "no-sendfile",
    "reuse-port",
    "daemon",
    "initgroups",
    "disable-redirect-access-to-syslog",
    "capture-output",
    "log-syslog",
    "enable-stdio-inheritance",
    "proxy-protocol",
    "suppress-ragged-eofs",
    "do-handshake-on-connect",
    "strip-header-spaces",
    "permit-unconventional-http-method",
    "permit-unconventional-http-version",
    "permit-obsolete-folding",
    "casefold-http-method",
    "enable-backlog-metric",
    "no-control-socket",
    "version",
    "help",
];

const PROXY_PROTOCOLS: [&str; 4] = ["off", "v1", "v2", "auto"];

/// Short options with a value; the others (`-D`, `-R`, `-h`, `-v`) have none.
const SHORT: [(char, &str); 11] = [
    ('b', "bind"),
    ('c', "config"),
    ('e', "env"),
    ('g', "group"),
    ('k', "worker-class"),
    ('m', "umask"),
    ('n', "name"),
    ('p', "pid"),
    ('t', "timeout"),
    ('u', "user"),
    ('w', "workers"),
];

/// What gunicorn was told: values of its options by their long names, and the application as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    values: Vec<(&'static str, String)>,
    application: Option<String>,
}

impl Arguments {
    /// Reads the words behind `gunicorn`.
    fn parse(words: &[String]) -> Arguments {
        let mut read = Arguments::default();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                read.application = read.application.or_else(|| words.next().cloned());
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (typed, value) =
                    long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
                if let Some(name) = find(&VALUED, typed) {
                    let value = value.or_else(|| words.next().cloned());
                    read.values.extend(value.map(|value| (name, value)));
                } else if find(&FLAGS, typed) == Some("proxy-protocol") {
                    words.next_if(|next| PROXY_PROTOCOLS.contains(&next.as_str()));
                }
            } else if let Some(cluster) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
                let option =
                    |(at, c)| Some((at, SHORT.iter().find(|(short, _)| *short == c).map(|(_, long)| *long)?));
                let Some((at, name)) = cluster.char_indices().find_map(option) else { continue };
                let rest = cluster.get(at + 1..).unwrap_or_default();
                let rest = rest.strip_prefix('=').unwrap_or(rest);
                let value = if rest.is_empty() { words.next().cloned() } else { Some(rest.to_owned()) };
                read.values.extend(value.map(|value| (name, value)));
            } else if read.application.is_none() {
                read.application = Some(word.clone());
            }
        }
        read
    }

    /// The value of an option; of several the last, as argparse has it.
    pub(super) fn value(&self, long: &str) -> Option<&str> {
        self.values(long).last().filter(|value| !value.is_empty())
    }

    /// Every value of an option that may be repeated.
    pub(super) fn values<'a>(&'a self, long: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.values.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// `module` or `module:attribute`.
    pub(super) fn application(&self) -> Option<&str> {
        self.application.as_deref()
    }
}

/// The option that was meant: itself, or the first that begins like it.
fn find(options: &[&'static str], typed: &str) -> Option<&'static str> {
    let exact = options.iter().find(|option| **option == typed);
    let other = || VALUED.iter().chain(&FLAGS).any(|option| *option == typed);
    exact.or_else(|| options.iter().find(|option| option.starts_with(typed) && !other())).copied()
}

/// What a command line starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Launch {
    /// Gunicorn itself.
    Gunicorn(Arguments),
    /// A program that has gunicorn inside: the script or module, without folders.
    Program(String),
    /// Overwritten by a title, or an interpreter without a script.
    Unknown,
}

impl Launch {
    /// Reads a command line, with or without an interpreter before the script.
    pub(super) fn of(argv: &[String]) -> Launch {
        let Some((program, words)) = argv.split_first() else { return Launch::Unknown };
        if program.contains("gunicorn: ") {
            return Launch::Unknown;
        }
        if !["python", "pypy"].iter().any(|name| base_name(program).starts_with(name)) {
            return Launch::script(program, words);
        }
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                return Launch::script(word, words.get(at..).unwrap_or_default());
            };
            if flags == "-check-hash-based-pycs" {
                at += 1;
                continue;
            }
            // Of a cluster such as `-um` only the last letter can have a value (python(1)).
            let Some(with_value) = flags.find(['m', 'c', 'X', 'W']).filter(|_| !flags.starts_with('-'))
            else {
                continue;
            };
            let (name, rest) = flags.split_at(with_value);
            let (letter, rest) = (rest.get(..1).unwrap_or(name), rest.get(1..).unwrap_or_default());
            let value = if rest.is_empty() { words.get(at).map(String::as_str) } else { Some(rest) };
            at += usize::from(rest.is_empty());
            match (letter, value) {
                ("m", Some(module)) => return Launch::module(module, words.get(at..).unwrap_or_default()),
                ("m" | "c", _) => return Launch::Unknown,
                _ => {}
            }
        }
        Launch::Unknown
    }

    fn script(path: &str, words: &[String]) -> Launch {
        let name = base_name(path);
        let version = name.strip_prefix("gunicorn");
        let is_script =
            version.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || "-.".contains(c)));
        // What `python -m gunicorn` is after it was executed again.
        let is_module =
            ["gunicorn/__main__.py", "gunicorn/app/wsgiapp.py"].iter().any(|end| path.ends_with(end));
        if is_script || is_module {
            return Launch::Gunicorn(Arguments::parse(words));
        }
        let folder = path.strip_suffix("/__main__.py").map(base_name);
        Launch::Program(folder.unwrap_or(name).to_owned())
    }

    fn module(name: &str, words: &[String]) -> Launch {
        if name == "gunicorn" || name.starts_with("gunicorn.") {
            return Launch::Gunicorn(Arguments::parse(words));
        }
        Launch::Program(name.to_owned())
    }
}

/// A path's last part.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The words of `GUNICORN_CMD_ARGS`, which go behind those of the command line.
pub(super) fn from_environ(facts: &Facts) -> Arguments {
    let words = facts.variable("GUNICORN_CMD_ARGS").and_then(shlex::split);
    Arguments::parse(&words.unwrap_or_default())
}

/// The configuration file that gunicorn reads, as typed; nothing for a program that only has gunicorn inside, and
/// for a module (`python:…`).
pub fn config_file(facts: &Facts) -> Option<String> {
    let typed = match Launch::of(&facts.argv) {
        Launch::Gunicorn(arguments) => arguments.value("config").map(str::to_owned),
        Launch::Unknown => None,
        Launch::Program(_) => return None,
    };
    let typed = typed.or_else(|| from_environ(facts).value("config").map(str::to_owned));
    let typed = typed.unwrap_or_else(|| "./gunicorn.conf.py".to_owned());
    let path = typed.strip_prefix("file:").unwrap_or(&typed);
    (!path.starts_with("python:")).then(|| path.to_owned())
}

/// After how many seconds without a heartbeat a master kills a worker, where that can be told.
pub fn timeout(master: &Facts) -> Option<u64> {
    duration(master, "timeout", "timeout", 30)
}

/// How many seconds a worker may take to finish its requests, where that can be told.
pub fn graceful_timeout(master: &Facts) -> Option<u64> {
    duration(master, "graceful-timeout", "graceful_timeout", 30)
}

/// Seconds of an option; gunicorn's default holds where command line, environment and configuration file can be read and
/// say nothing. A program that has gunicorn inside sets what it likes.
fn duration(master: &Facts, option: &str, setting: &str, default: u64) -> Option<u64> {
    match told(master, option, setting) {
        Some(text) => text.parse().ok(), // empty for what is computed
        None => is_gunicorn(master).then_some(default),
    }
}

/// What a master was told by its command line, its environment or its configuration file, in gunicorn's order; empty for
/// what the file computes.
fn told(master: &Facts, option: &str, setting: &str) -> Option<String> {
    let typed = match Launch::of(&master.argv) {
        Launch::Gunicorn(arguments) => arguments.value(option).map(str::to_owned),
        Launch::Program(_) | Launch::Unknown => None,
    };
    let written = || Some(master.config.iter().find(|(name, _)| name == setting)?.1.clone());
    typed.or_else(|| from_environ(master).value(option).map(str::to_owned)).or_else(written)
}

/// Whether it is gunicorn itself, all of whose settings can be read: not those of a module (`-c python:…`).
fn is_gunicorn(master: &Facts) -> bool {
    matches!(Launch::of(&master.argv), Launch::Gunicorn(_)) && config_file(master).is_some()
}

/// How a master's workers serve, where it was told or its defaults hold.
pub fn class(master: &Facts) -> Class {
    let name = told(master, "worker-class", "worker_class");
    let threads = told(master, "threads", "threads").map(|threads| threads.parse());
    match (name.as_deref(), threads) {
        (None, _) if !is_gunicorn(master) => Class::Unknown,
        (Some(""), _) | (_, Some(Err(_))) => Class::Unknown,
        (name, threads) => Class::of(name, threads.and_then(Result::ok)),
    }
}

/// The TCP ports that a master's workers serve: those it listens on, else (`--reuse-port`: the workers listen) those
/// it was told to bind.
pub fn ports(master: &Facts) -> Vec<u16> {
    if !master.ports.is_empty() {
        return master.ports.clone();
    }
    let bound = |arguments: &Arguments| arguments.values("bind").map(str::to_owned).collect::<Vec<_>>();
    let mut addresses = match Launch::of(&master.argv) {
        Launch::Gunicorn(arguments) => bound(&arguments),
        Launch::Program(_) | Launch::Unknown => Vec::new(),
    };
    if addresses.is_empty() {
        addresses = bound(&from_environ(master));
    }
    if addresses.is_empty() {
        addresses.extend(master.setting("bind").map(str::to_owned));
    }
    let told = addresses.iter().flat_map(|bind| bind.split(',')).filter_map(port).collect();
    match master.variable("PORT").and_then(|port| port.parse().ok()) {
        Some(port) if addresses.is_empty() => vec![port],
        _ => told,
    }
}

/// The port of `HOST:PORT` or `[HOST]:PORT`; Unix sockets and inherited descriptors have none.
fn port(bind: &str) -> Option<u16> {
    let address = Some(bind.trim()).filter(|bind| !bind.starts_with("unix:") && !bind.starts_with("fd:"))?;
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        shlex::split(text).unwrap()
    }

    #[test]
    fn options_are_read_as_argparse_reads_them() {
        let cases: &[(&str, Option<&str>, Option<&str>)] = &[
            ("--name web app:app", Some("web"), Some("app:app")),
            ("--nam=web app:app", Some("web"), Some("app:app")),
            ("--na web app:app", Some("web"), Some("app:app")),
            ("-nweb app:app", Some("web"), Some("app:app")),
            ("-n=web app:app", Some("web"), Some("app:app")),
            ("-Dn web app:app", Some("web"), Some("app:app")),
            ("-n one app:app --name two", Some("two"), Some("app:app")),
            ("-w 2 --reload app:app", None, Some("app:app")),
            ("--reload-eng poll app:app", None, Some("app:app")),
            ("--proxy-protocol v2 app:app", None, Some("app:app")),
            ("--proxy-protocol app:app", None, Some("app:app")),
            ("--access-logfile - app:app", None, Some("app:app")),
            ("-b unix:shop.sock -m 007 -D --preload wsgi:app", None, Some("wsgi:app")),
            ("shop.wsgi -c python:conf -w4 --threads=2", None, Some("shop.wsgi")),
            ("-k egg:gunicorn#gthread --no-sendfile -- shop:app", None, Some("shop:app")),
            ("-c conf.py", None, None),
            ("--name", None, None),
            ("-", None, Some("-")),
        ];
        for (line, name, application) in cases {
            let read = Arguments::parse(&words(line));
            assert_eq!((read.value("name"), read.application()), (*name, *application), "{line}");
        }
    }

    #[test]
    fn a_launch_is_gunicorn_or_the_program_around_it() {
        let gunicorn = [
            "gunicorn app:app",
            "/v/bin/python /v/bin/gunicorn app:app",
            "python -m gunicorn app:app",
            "python3.11 -m gunicorn.app.wsgiapp app:app",
            "python -u -X dev -W ignore -m gunicorn app:app",
            "python -Xdev -um gunicorn app:app",
            "python /v/lib/python3.11/site-packages/gunicorn/__main__.py app:app",
            "python /usr/bin/gunicorn3 app:app",
        ];
        for line in gunicorn {
            let Launch::Gunicorn(arguments) = Launch::of(&words(line)) else { panic!("{line}") };
            assert_eq!(arguments.application(), Some("app:app"), "{line}");
        }
        let programs = [
            ("python server.py", "server.py"),
            ("python -u /srv/server.pyz --name x", "server.pyz"),
            ("/v/bin/python /v/bin/functions-framework --target hello", "functions-framework"),
            ("python /srv/gunicorn_app.py", "gunicorn_app.py"),
            ("python -m shop.server", "shop.server"),
            ("python /srv/shop/__main__.py", "shop"),
        ];
        for (line, name) in programs {
            assert_eq!(Launch::of(&words(line)), Launch::Program(name.to_owned()), "{line}");
        }
        for line in ["", "python", "python -c 'import x'", "python -m", "'gunicorn: master [shop]'"] {
            assert_eq!(Launch::of(&words(line)), Launch::Unknown, "{line}");
        }
    }

    #[test]
    fn the_configuration_file_is_the_one_that_gunicorn_reads() {
        let cases = [
            ("gunicorn app:app", "", Some("./gunicorn.conf.py")),
            ("gunicorn -c /etc/shop.py", "", Some("/etc/shop.py")),
            ("gunicorn app:app", "--config file:shop.py", Some("shop.py")),
            ("gunicorn -c python:shop.conf", "", None),
            ("python server.py", "", None),
            ("'gunicorn: master [shop]'", "", Some("./gunicorn.conf.py")),
        ];
        for (line, args, file) in cases {
            let environ = vec![("GUNICORN_CMD_ARGS".to_owned(), args.to_owned())];
            let facts = Facts { argv: words(line), environ, ..Facts::default() };
            assert_eq!(config_file(&facts).as_deref(), file, "{line}");
        }
    }

    #[test]
    fn a_class_is_what_was_told_or_gunicorns_default() {
        let cases = [
            ("gunicorn app:app", "", "", Class::Sync),
            ("gunicorn --threads 4 app:app", "", "", Class::Threads(4)),
            ("gunicorn -k gevent app:app", "-k sync", "worker_class=sync", Class::Loop),
            ("gunicorn app:app", "--worker-class gthread", "threads=3", Class::Threads(3)),
            ("gunicorn app:app", "", "worker_class=", Class::Unknown),
            ("gunicorn -k gthread app:app", "", "threads=", Class::Unknown),
            ("gunicorn -c python:shop.conf app:app", "", "", Class::Unknown),
            ("python server.py", "", "", Class::Unknown),
            ("'gunicorn: master [shop]'", "", "", Class::Unknown),
            ("'gunicorn: master [shop]'", "-k tornado", "", Class::Loop),
        ];
        for (line, args, setting, class) in cases {
            let environ = vec![("GUNICORN_CMD_ARGS".to_owned(), args.to_owned())];
            let config = setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let facts = Facts {
                argv: words(line),
                environ,
                config: config.into_iter().collect(),
                ..Facts::default()
            };
            assert_eq!(super::class(&facts), class, "{line} {args} {setting}");
        }
    }

    #[test]
    fn ports_are_those_listened_on_or_those_told() {
        type Case = (&'static [u16], &'static str, &'static [(&'static str, &'static str)], &'static [u16]);
        let cases: &[Case] = &[
            (&[8000], "gunicorn -b :9 app:app", &[], &[8000]),
            (&[], "gunicorn --reuse-port -b 0.0.0.0:81 -b [::]:82 -b unix:/s:7 app:app", &[], &[81, 82]),
            (&[], "gunicorn app:app", &[("GUNICORN_CMD_ARGS", "--bind '127.0.0.1:83'")], &[83]),
            (&[], "gunicorn app:app", &[("PORT", "84")], &[84]),
            (&[], "gunicorn -b unix:/s app:app", &[("PORT", "84")], &[]),
            (&[], "python server.py", &[], &[]),
        ];
        for (listening, line, environ, wanted) in cases {
            let environ = environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let facts = Facts { ports: listening.to_vec(), argv: words(line), environ, ..Facts::default() };
            assert_eq!(ports(&facts), *wanted, "{line}");
        }
    }
}
