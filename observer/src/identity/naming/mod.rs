//! Service and instance names in SkyWalking's forms, and instance properties.
pub mod arguments;
mod instance;
mod service;
mod workload;

use super::Facts;
use super::target::Targets;

pub use instance::dirty_worker;
pub use instance::distinct;
pub use instance::master;
pub use instance::orphan;
pub use instance::worker;
pub use service::application;
pub use service::chosen_framework;
pub use service::is_titled_upgrade;
pub use service::service;
pub use service::watched;

/// What the command line says of names and targets; names go before what a target says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Given {
    /// `--service`
    pub service: Option<String>,
    /// `--instance`
    pub instance: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
    /// `--instance-format`
    pub format: InstanceFormat,
    /// `--target`, `--exclude`
    pub targets: Targets,
    /// `--beside-agent`
    pub beside_agent: bool,
}

/// How instances are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceFormat {
    /// As the Python agent does under `sw-python run -p`: `<base>-master(<pid>)-child(<pid>)`.
    #[default]
    Agent,
    /// As it does when it is started by hand: `<base>-child(<pid>)`.
    Manual,
    /// As `Agent`, with 32 digits for a base that nobody chose, in place of the host name.
    Random,
}

/// The namespace a master is in, for the property of that name.
pub fn namespace(given: &Given, master: &Facts) -> Option<String> {
    given.namespace.clone().or_else(|| master.variable("SW_AGENT_NAMESPACE").map(str::to_owned))
}

/// Instance properties as the Python agent sends them, in its order, then what only an observer knows.
pub fn properties(given: &Given, master: &Facts, inner_pid: u32) -> Vec<(String, String)> {
    let mut properties = vec![
        ("language", "python".to_owned()),
        ("OS Name", "posix".to_owned()),
        ("Process No.", inner_pid.to_string()),
        ("hostname", master.hostname.clone()),
        ("ipv4", master.ipv4.join("; ")),
        ("python_implementation", "CPython".to_owned()),
    ];
    properties.extend(master.python_version.clone().map(|version| ("python_version", version)));
    properties.extend(namespace(given, master).map(|namespace| ("namespace", namespace)));
    let mut properties: Vec<_> = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    properties.extend(chosen_properties(master));
    let ours = [
        ("container_id", &master.container),
        ("pod_uid", &master.pod_uid),
        ("systemd_unit", &master.unit),
        ("gunicorn_version", &master.gunicorn_version),
    ];
    properties.extend(ours.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
    properties
}

/// What a target's `SW_AGENT_INSTANCE_PROPERTIES_JSON` adds; what is no JSON object adds nothing.
fn chosen_properties(master: &Facts) -> Vec<(String, String)> {
    let text = master.variable("SW_AGENT_INSTANCE_PROPERTIES_JSON").unwrap_or("{}");
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let text = |value: serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
    object.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// The sign that the SkyWalking Python agent runs inside a master: what `sw-python run` leaves in its environment.
/// Agents of other vendors report elsewhere and are none.
pub fn agent_inside(master: &Facts) -> Option<&'static str> {
    if master.variable("prefork") == Some("gunicorn") {
        return Some("prefork=gunicorn");
    }
    ["SW_PYTHON_PREFIX", "PYTHONPATH"].into_iter().find(|name| match master.variable(name) {
        Some(value) => *name != "PYTHONPATH" || value == AGENT_LOADER,
        None => false,
    })
}

/// The end of the folder that the Python agent puts on `PYTHONPATH`; all that facts keep of that variable.
pub const AGENT_LOADER: &str = "skywalking/bootstrap/loader";

/// `name` within `limit` characters; a shortened one ends in a hash of the whole, so that two names stay two.
fn shorten(name: &str, limit: usize) -> String {
    if name.chars().count() <= limit { name.to_owned() } else { marked(name, limit, name) }
}

/// The beginning of `name` and a hash of `what`, within `limit` characters.
fn marked(name: &str, limit: usize, what: &str) -> String {
    let mark = format!("~{}", hash(what.as_bytes()));
    let kept: String = name.chars().take(limit.saturating_sub(mark.len())).collect();
    format!("{kept}{mark}")
}

/// Twelve digits of FNV-1a, stable over releases and machines, unlike the standard library's hasher: 48 bits, so that
/// ten thousand shortened names share one in less than one of a million cases.
fn hash(bytes: &[u8]) -> String {
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:012x}", (digest >> 48 ^ digest) & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(environ: &[(&str, &str)]) -> Facts {
        Facts {
            environ: environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Facts::default()
        }
    }

    #[test]
    fn shortened_names_fit_and_stay_two() {
        let long = |tail: &str| shorten(&format!("{}{tail}", "é".repeat(80)), 70);
        assert_eq!(shorten("shop", 4), "shop");
        assert_eq!((long("a").chars().count(), long("b").chars().count()), (70, 70));
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn the_agent_is_told_by_what_its_starter_leaves() {
        type Case = (&'static [(&'static str, &'static str)], Option<&'static str>);
        let cases: &[Case] = &[
            (&[("prefork", "gunicorn"), ("SW_PYTHON_PREFIX", "/v")], Some("prefork=gunicorn")),
            (&[("prefork", "uwsgi")], None),
            (&[("SW_PYTHON_PREFIX", "/v")], Some("SW_PYTHON_PREFIX")),
            (&[("PYTHONPATH", AGENT_LOADER)], Some("PYTHONPATH")),
            (&[("DD_SERVICE", "shop"), ("NEW_RELIC_APP_NAME", "shop")], None),
            (&[("SW_AGENT_NAME", "shop")], None),
        ];
        for (environ, sign) in cases {
            assert_eq!(agent_inside(&facts(environ)), *sign, "{environ:?}");
        }
    }

    #[test]
    fn properties_are_the_agents_then_ours() {
        let known = Facts {
            hostname: "web".to_owned(),
            ipv4: vec!["10.1.2.3".to_owned()],
            python_version: Some("3.11.7".to_owned()),
            container: Some("c0".to_owned()),
            unit: Some("shop.service".to_owned()),
            ..facts(&[
                ("SW_AGENT_NAMESPACE", "eu"),
                ("SW_AGENT_INSTANCE_PROPERTIES_JSON", r#"{"team": "cart", "tier": 1}"#),
            ])
        };
        let properties = properties(&Given::default(), &known, 9);
        let keys: Vec<&str> = properties.iter().map(|(key, _)| key.as_str()).collect();
        let agents = ["language", "OS Name", "Process No.", "hostname", "ipv4", "python_implementation"];
        let rest = ["python_version", "namespace", "team", "tier", "container_id", "systemd_unit"];
        assert_eq!(keys, [&agents[..], &rest[..]].concat());
        assert!(properties.contains(&("team".into(), "cart".into())), "{properties:?}");
        assert!(properties.contains(&("tier".into(), "1".into())), "{properties:?}");
        assert_eq!(chosen_properties(&facts(&[("SW_AGENT_INSTANCE_PROPERTIES_JSON", "[1]")])), []);
    }
}
