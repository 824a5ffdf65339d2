//! Which gunicorns are watched, and under which service name: `--target` and `--exclude`.
use serde::Deserialize;
use serde::Serialize;
use wildmatch::WildMatch;

use super::Facts;
use super::framework::Framework;
use super::naming::arguments;

/// What to watch. Without a rule: every gunicorn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    rules: Vec<Rule>,
    excluded: Vec<Conditions>,
}

/// Whether a master is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No rule matches, or one that excludes does.
    No,
    /// It is.
    Yes {
        /// The name that its rule gives it, without a namespace.
        service: Option<String>,
        /// The framework that its rule says it runs.
        framework: Option<Framework>,
    },
}

/// One `--target`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Rule {
    conditions: Conditions,
    service: Option<String>,
    framework: Option<Framework>,
}

/// All of those that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Conditions {
    service: Option<String>,
    pid: Option<u32>,
    port: Option<u16>,
    container: Option<String>,
    cgroup: Option<String>,
    cmd: Option<String>,
}

const KEYS: &str = "service, pid, port, container, cgroup, cmd";

impl Targets {
    /// Reads the values of all `--target` (`gunicorn[:KEY=VALUE,…]`) and `--exclude` (`KEY=VALUE,…`) options. An error
    /// names the option, and says what is wrong and what would be right.
    pub fn parse(targets: &[String], exclusions: &[String]) -> Result<Targets, (&'static str, String)> {
        let rules = targets.iter().map(|spec| Rule::parse(spec).map_err(|why| ("--target", why)));
        let excluded = exclusions.iter().map(|spec| exclusion(spec).map_err(|why| ("--exclude", why)));
        Ok(Targets { rules: rules.collect::<Result<_, _>>()?, excluded: excluded.collect::<Result<_, _>>()? })
    }

    /// Whether a master with this service name is watched: the first rule that matches says how it is called.
    pub fn admit(&self, master: &Facts, service: &str) -> Admission {
        let everything = [Rule::default()];
        let rules = if self.rules.is_empty() { &everything[..] } else { &self.rules[..] };
        let matching = rules.iter().find(|rule| rule.conditions.hold(master, service));
        let excluded = || self.excluded.iter().any(|conditions| conditions.hold(master, service));
        match matching.filter(|_| !excluded()) {
            Some(rule) => Admission::Yes { service: rule.service.clone(), framework: rule.framework },
            None => Admission::No,
        }
    }
}

impl Rule {
    fn parse(spec: &str) -> Result<Rule, String> {
        let (kind, conditions) = spec.split_once(':').map_or((spec, None), |(kind, rest)| (kind, Some(rest)));
        if kind != "gunicorn" {
            return Err(format!("{kind:?} is no kind of target: give gunicorn, or gunicorn:KEY=VALUE,…"));
        }
        let mut rule = Rule::default();
        for (key, value) in conditions.map_or(Ok(Vec::new()), pairs)? {
            match key {
                "as" if rule.service.is_some() => return Err(twice(key)),
                "as" => rule.service = Some(value.to_owned()),
                "framework" if rule.framework.is_some() => return Err(twice(key)),
                "framework" => rule.framework = Some(Framework::by_name(value)?),
                _ => rule.conditions.add(key, value, ", as, framework")?,
            }
        }
        Ok(rule)
    }
}

fn exclusion(spec: &str) -> Result<Conditions, String> {
    let mut conditions = Conditions::default();
    for (key, value) in pairs(spec.strip_prefix("gunicorn:").unwrap_or(spec))? {
        conditions.add(key, value, "")?;
    }
    Ok(conditions)
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let pair = |pair| match str::split_once(pair, '=').map(|(key, value)| (key.trim(), value.trim())) {
        Some((_, "")) => Err(format!("{pair:?} has no value: give one, or leave the key out")),
        Some(pair) => Ok(pair),
        None => {
            Err(format!("{pair:?} is not KEY=VALUE, such as port=8000 (in a pattern, ? stands for a comma)"))
        }
    };
    text.split(',').map(pair).collect()
}

fn twice(key: &str) -> String {
    format!("{key} is given twice: give one of each, or two options")
}

impl Conditions {
    fn add(&mut self, key: &str, value: &str, more: &str) -> Result<(), String> {
        let known = match key {
            "service" => self.service.replace(value.to_owned()).is_some(),
            "cgroup" => self.cgroup.replace(value.to_owned()).is_some(),
            "cmd" => self.cmd.replace(value.to_owned()).is_some(),
            "pid" => self.pid.replace(number(key, value)?).is_some(),
            "port" => self.port.replace(number(key, value)?).is_some(),
            "container" if !value.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) || value.len() > 64 => {
                return Err(format!(
                    "container={value} is not the beginning of a container's id: 1 to 64 of 0-9a-f"
                ));
            }
            "container" => self.container.replace(value.to_owned()).is_some(),
            _ => return Err(format!("{key:?} is no key: give one of {KEYS}{more}")),
        };
        if known { Err(twice(key)) } else { Ok(()) }
    }

    fn hold(&self, master: &Facts, service: &str) -> bool {
        // Whoever writes `service=shop` does not think of the namespace; a name may have a `|` of its own.
        let named = |pattern: &String| {
            let name = service.rsplit_once('|').map_or(service, |(name, _)| name);
            is_like(pattern, service) || is_like(pattern, name)
        };
        let in_container = |id: &String| master.container.as_ref().is_some_and(|own| own.starts_with(id));
        self.service.as_ref().is_none_or(named)
            && self.pid.is_none_or(|pid| pid == master.key.pid)
            && self.port.is_none_or(|port| arguments::ports(master).contains(&port))
            && self.container.as_ref().is_none_or(in_container)
            && self.cgroup.as_ref().is_none_or(|pattern| is_like(pattern, &master.cgroup))
            && self.cmd.as_ref().is_none_or(|pattern| is_like(pattern, &master.argv.join(" ")))
    }
}

/// `*` stands for any characters, `?` for one; a pattern has to match the whole.
fn is_like(pattern: &str, text: &str) -> bool {
    WildMatch::new(pattern).matches(text)
}

fn number<T: std::str::FromStr + PartialEq + Default>(key: &str, value: &str) -> Result<T, String> {
    let number = value.parse().ok().filter(|number| *number != T::default());
    number.ok_or_else(|| format!("{key}={value} is not a {key}: give a number, such as {key}=8000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;

    fn targets(targets: &[&str], exclusions: &[&str]) -> Result<Targets, (&'static str, String)> {
        let owned = |specs: &[&str]| specs.iter().map(|spec| (*spec).to_owned()).collect::<Vec<_>>();
        Targets::parse(&owned(targets), &owned(exclusions))
    }

    fn master() -> Facts {
        Facts {
            key: ProcessKey { pid: 4711, start: 1 },
            argv: vec!["/v/bin/python".to_owned(), "/v/bin/gunicorn".to_owned(), "shop:app".to_owned()],
            container: Some("ab12".repeat(16)),
            cgroup: "/system.slice/shop.service".to_owned(),
            ports: vec![8000, 8001],
            ..Facts::default()
        }
    }

    #[test]
    fn every_key_narrows() {
        let cases = [
            ("gunicorn", true),
            ("gunicorn:service=shop", true),
            ("gunicorn:service=shop|eu", true),
            ("gunicorn:service=sh*", true),
            ("gunicorn:service=sho", false),
            ("gunicorn:pid=4711", true),
            ("gunicorn:pid=47", false),
            ("gunicorn:port=8001", true),
            ("gunicorn:port=9000", false),
            ("gunicorn:container=ab12ab", true),
            ("gunicorn:container=b12a", false),
            ("gunicorn:cgroup=/system.slice/*", true),
            ("gunicorn:cgroup=*user*", false),
            ("gunicorn:cmd=*gunicorn shop:app", true),
            ("gunicorn:cmd=gunicorn", false),
            ("gunicorn:port=8000,service=shop", true),
            ("gunicorn:port=8000, service=cart", false),
        ];
        for (spec, admitted) in cases {
            let admission = targets(&[spec], &[]).unwrap().admit(&master(), "shop|eu");
            assert_eq!(admission != Admission::No, admitted, "{spec}");
        }
    }

    #[test]
    fn the_first_match_names_and_an_exclusion_has_the_last_word() {
        let named = |service: &str| Admission::Yes { service: Some(service.to_owned()), framework: None };
        let all = Admission::Yes { service: None, framework: None };
        let cases: &[(&[&str], &[&str], Admission)] = &[
            (&[], &[], all.clone()),
            (&[], &["port=8000"], Admission::No),
            (&["gunicorn:port=8000,as=one", "gunicorn:as=two"], &[], named("one")),
            (&["gunicorn:port=9,as=one", "gunicorn:as=two"], &[], named("two")),
            (&["gunicorn:port=9,as=one", "gunicorn"], &[], all.clone()),
            (&["gunicorn:port=9"], &[], Admission::No),
            (&["gunicorn:as=one"], &["service=cart", "gunicorn:cmd=*shop:app"], Admission::No),
            (&["gunicorn"], &["service=shop,port=9"], all),
        ];
        for (rules, exclusions, admission) in cases {
            let targets = targets(rules, exclusions).unwrap();
            assert_eq!(targets.admit(&master(), "shop"), *admission, "{rules:?} {exclusions:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let cases: &[(&[&str], &[&str], &str, &str)] = &[
            (&["uwsgi"], &[], "--target", "\"uwsgi\" is no kind of target"),
            (&["gunicorn:"], &[], "--target", "\"\" is not KEY=VALUE"),
            (&["gunicorn:port"], &[], "--target", "\"port\" is not KEY=VALUE"),
            (&["gunicorn:port="], &[], "--target", "has no value"),
            (&["gunicorn:port=0"], &[], "--target", "port=0 is not a port"),
            (&["gunicorn:port=70000"], &[], "--target", "port=70000 is not a port"),
            (&["gunicorn:pid=-1"], &[], "--target", "pid=-1 is not a pid"),
            (&["gunicorn:container=shop"], &[], "--target", "is not the beginning of a container's id"),
            (&["gunicorn:name=x"], &[], "--target", "\"name\" is no key: give one of service, pid"),
            (&["gunicorn:framework=rails"], &[], "--target", "framework=rails is not known: give one of"),
            (&["gunicorn:framework=flask,framework=flask"], &[], "--target", "framework is given twice"),
            (&[], &["framework=flask"], "--exclude", "\"framework\" is no key"),
            (&["gunicorn:as=x,as=y"], &[], "--target", "as is given twice"),
            (&["gunicorn:port=1,port=2"], &[], "--target", "port is given twice"),
            (&[], &["as=x"], "--exclude", "\"as\" is no key"),
            (&[], &[""], "--exclude", "\"\" is not KEY=VALUE"),
            (&[], &["gunicorn"], "--exclude", "\"gunicorn\" is not KEY=VALUE"),
        ];
        for (rules, exclusions, option, why) in cases {
            let error = targets(rules, exclusions).unwrap_err();
            assert_eq!(error.0, *option, "{rules:?} {exclusions:?}");
            assert!(error.1.contains(why), "{}", error.1);
        }
    }
}
