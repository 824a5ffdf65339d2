//! The service name: the first source that has one.
use super::Given;
use super::arguments;
use super::arguments::Arguments;
use super::arguments::Launch;
use super::namespace;
use super::shorten;
use super::workload;
use crate::identity::Facts;
use crate::identity::framework::Application;
use crate::identity::framework::Framework;
use crate::identity::target::Admission;

/// OAP cuts service names silently at this many characters (`SW_SERVICE_NAME_MAX_LENGTH`).
const LIMIT: usize = 70;
/// What a service is called that says nothing of itself; also gunicorn's own default.
const NAMELESS: &str = "gunicorn";

/// The service name of a master, or of a process that has to stand for one: `--service`, else what the target says
/// of itself, with the namespace. What the targets' `as=` says is in [`watched`].
pub fn service(given: &Given, master: &Facts) -> String {
    let name = given.service.clone().unwrap_or_else(|| own(master));
    with_namespace(given, master, &name)
}

/// The service name of a master that is to be watched; `None` for one that the targets leave out.
pub fn watched(given: &Given, master: &Facts) -> Option<String> {
    let name = service(given, master);
    match given.targets.admit(master, &name) {
        Admission::No => None,
        Admission::Yes { service: None, .. } => Some(name),
        Admission::Yes { service: Some(name), .. } => Some(with_namespace(given, master, &name)),
    }
}

/// The framework that the targets say a master's workers run.
pub fn chosen_framework(given: &Given, master: &Facts) -> Option<Framework> {
    match given.targets.admit(master, &service(given, master)) {
        Admission::No => None,
        Admission::Yes { framework, .. } => framework,
    }
}

/// Where a master's application is, as it was told or its title says.
pub fn application(master: &Facts) -> Option<Application> {
    let typed = match Launch::of(&master.argv) {
        Launch::Gunicorn(arguments) => arguments.application().map(str::to_owned),
        Launch::Program(_) => return None,
        Launch::Unknown => None,
    };
    let said = typed.as_deref().or_else(|| master.setting("wsgi_app")).or_else(|| title(master));
    said.and_then(Application::typed)
}

fn with_namespace(given: &Given, master: &Facts, name: &str) -> String {
    let Some(namespace) = namespace(given, master) else { return shorten(name, LIMIT) };
    let namespace = shorten(&namespace, LIMIT / 2);
    let left = LIMIT.saturating_sub(namespace.chars().count() + 1);
    format!("{}|{namespace}", shorten(name, left))
}

/// What somebody chose goes first, then what the place says (Kubernetes), then what the application is called, then
/// who started it.
fn own(facts: &Facts) -> String {
    let launch = Launch::of(&facts.argv);
    let arguments = match &launch {
        Launch::Gunicorn(arguments) => arguments.clone(),
        Launch::Program(_) | Launch::Unknown => Arguments::default(),
    };
    let in_environ = arguments::from_environ(facts);
    let title = title(facts);
    let is_application = |name: &str| name.contains([':', '.', '/']);
    let variable = |name| facts.variable(name).map(str::to_owned);
    let option = |name| arguments.value(name).or_else(|| in_environ.value(name)).map(str::to_owned);
    let sources: [&dyn Fn() -> Option<String>; 15] = [
        &|| variable("SW_AGENT_NAME"),
        &|| variable("OTEL_SERVICE_NAME"),
        &|| resource_attribute(facts),
        &|| variable("DD_SERVICE"),
        &|| variable("NEW_RELIC_APP_NAME")?.split(';').next().map(str::to_owned),
        &|| option("name"),
        &|| title.filter(|title| !is_application(title)).map(str::to_owned),
        &|| facts.setting("proc_name").map(str::to_owned),
        &|| facts.pod.as_deref().map(|pod| workload::of(pod).to_owned()),
        &|| arguments.application().map(str::to_owned),
        &|| option("paste").or_else(|| option("paster")).map(|file| stem(&file).to_owned()),
        &|| title.map(|title| if title.contains(':') { title } else { stem(title) }.to_owned()),
        &|| facts.setting("wsgi_app").map(str::to_owned),
        &|| variable("SUPERVISOR_PROCESS_NAME").or_else(|| unit(facts)),
        &|| match &launch {
            Launch::Program(name) => Some(name.clone()),
            Launch::Gunicorn(_) | Launch::Unknown => None,
        },
    ];
    let names = sources.iter().filter_map(|source| source()).map(|name| name.trim().to_owned());
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| NAMELESS.to_owned())
}

/// `service.name` of `OTEL_RESOURCE_ATTRIBUTES`.
fn resource_attribute(facts: &Facts) -> Option<String> {
    let mut pairs =
        facts.variable("OTEL_RESOURCE_ATTRIBUTES")?.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == "service.name").map(|(_, value)| value.to_owned())
}

/// The name in the process title. Gunicorn's default says nothing. A new master (USR2) has `.2` behind its name for as
/// long as the old one is its parent.
fn title(facts: &Facts) -> Option<&str> {
    let name = titled(facts.title.as_deref()?)?;
    old_title(facts).or(Some(name)).filter(|name| *name != NAMELESS)
}

/// Whether the title is that of a new master whose old one is its parent.
pub fn is_titled_upgrade(facts: &Facts) -> bool {
    old_title(facts).is_some()
}

/// The name in the title of a new master's parent, without which its own has `.2` behind it.
fn old_title(facts: &Facts) -> Option<&str> {
    let of_parent = facts.parent_title.as_deref().and_then(titled);
    titled(facts.title.as_deref()?)?.strip_suffix(".2").filter(|plain| of_parent == Some(plain))
}

/// `name` of `gunicorn: master [name]`.
fn titled(title: &str) -> Option<&str> {
    let (_, rest) = title.split_once("gunicorn: ")?;
    let (_, name) = rest.split_once(" [")?;
    name.rsplit_once(']').map(|(name, _)| name)
}

/// `shop` of `/etc/shop.ini`.
fn stem(path: &str) -> &str {
    let name = arguments::base_name(path);
    match name.rsplit_once('.') {
        Some((stem, "ini" | "cfg" | "conf")) => stem,
        _ => name,
    }
}

fn unit(facts: &Facts) -> Option<String> {
    facts.unit.as_deref().and_then(|unit| unit.strip_suffix(".service")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::target::Targets;

    fn facts(line: &str, environ: &[(&str, &str)]) -> Facts {
        Facts {
            argv: shlex::split(line).unwrap(),
            environ: environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Facts::default()
        }
    }

    fn name(facts: &Facts) -> String {
        service(&Given::default(), facts)
    }

    #[test]
    fn names_come_from_the_first_source_that_has_one() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            ("gunicorn -n web app:app", &[("SW_AGENT_NAME", "shop"), ("DD_SERVICE", "dd")], "shop"),
            ("gunicorn -w 2 app:app", &[("SW_AGENT_NAME", "shop"), ("SW_AGENT_NAMESPACE", "eu")], "shop|eu"),
            ("gunicorn app:app", &[("OTEL_SERVICE_NAME", "otel"), ("DD_SERVICE", "dd")], "otel"),
            ("gunicorn app:app", &[("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=res")], "res"),
            ("gunicorn app:app", &[("DD_SERVICE", "dd"), ("NEW_RELIC_APP_NAME", "nr")], "dd"),
            ("gunicorn -n web app:app", &[("NEW_RELIC_APP_NAME", "nr;all")], "nr"),
            ("gunicorn --nam=web app:app", &[("GUNICORN_CMD_ARGS", "--name x")], "web"),
            ("gunicorn app:app", &[("GUNICORN_CMD_ARGS", "-w 3 --name 'my shop'")], "my shop"),
            ("gunicorn app:app", &[("GUNICORN_CMD_ARGS", "--name 'open")], "app:app"),
            ("/v/bin/python /v/bin/gunicorn -b :8000 shop.wsgi:application", &[], "shop.wsgi:application"),
            ("gunicorn app:app", &[("SUPERVISOR_PROCESS_NAME", "sup")], "app:app"),
            ("gunicorn -c conf.py", &[("SUPERVISOR_PROCESS_NAME", "sup")], "sup"),
            ("gunicorn --paste /etc/shop.ini", &[], "shop"),
            ("gunicorn -c conf.py", &[], "gunicorn"),
            ("gunicorn app:app", &[("SW_AGENT_NAME", " ")], "app:app"),
            ("python server.py --name x", &[], "server.py"),
            ("python -c 'run()'", &[], "gunicorn"),
        ];
        for (line, environ, expected) in cases {
            assert_eq!(name(&facts(line, environ)), *expected, "{line} {environ:?}");
        }
    }

    #[test]
    fn a_title_tells_the_name_without_the_upgrades_mark() {
        let cases = [
            ("gunicorn: master [shop]", None, "shop"),
            ("[ready] gunicorn: worker [airflow-webserver]", None, "airflow-webserver"),
            ("gunicorn: master [a [b]]", None, "a [b]"),
            ("gunicorn: master [app:app]", None, "app:app"),
            ("gunicorn: master [/etc/shop.ini]", None, "shop"),
            ("gunicorn: master [gunicorn]", None, "x.py"),
            ("gunicorn: master [shop.2]", Some("gunicorn: master [shop]"), "shop"),
            ("gunicorn: master [app:app.2]", Some("gunicorn: master [app:app]"), "app:app"),
            ("gunicorn: master [gunicorn.2]", Some("gunicorn: master [gunicorn]"), "x.py"),
            ("gunicorn: master [v1.2]", Some("gunicorn: master [v1.2]"), "v1.2"),
            ("gunicorn: master [v1.2]", None, "v1.2"),
        ];
        for (title, parent, expected) in cases {
            let (title, parent_title) = (Some(title.to_owned()), parent.map(str::to_owned));
            assert_eq!(name(&Facts { title, parent_title, ..facts("x.py", &[]) }), expected);
        }
    }

    #[test]
    fn files_and_places_name_what_nobody_named() {
        let setting = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        let bare = facts("gunicorn -c conf.py", &[]);
        let unit = |unit: &str| Some(unit.to_owned());
        let pod = || Some("shop-6d4b75cb6d-hx7vq".to_owned());
        let cases = [
            (Facts { config: setting("proc_name", "conf"), pod: pod(), ..bare.clone() }, "conf"),
            (Facts { config: setting("wsgi_app", "a:b"), pod: pod(), ..bare.clone() }, "shop"),
            (Facts { config: setting("wsgi_app", "a:b"), unit: unit("u.service"), ..bare.clone() }, "a:b"),
            (Facts { unit: unit("api@9052.service"), ..bare }, "api@9052"),
            (Facts { pod: pod(), ..facts("gunicorn app:app", &[]) }, "shop"),
            (Facts { pod: pod(), ..facts("gunicorn -n web app:app", &[]) }, "web"),
            (Facts { unit: unit("u.service"), ..facts("gunicorn app:app", &[]) }, "app:app"),
            (Facts { unit: unit("u.service"), ..facts("python server.py", &[]) }, "u"),
        ];
        for (facts, expected) in cases {
            assert_eq!(name(&facts), expected, "{facts:?}");
        }
        // What is read from the title alone is in the same place as what is typed.
        let late =
            Facts { title: Some("gunicorn: master [app:app]".to_owned()), pod: pod(), ..Facts::default() };
        assert_eq!(name(&late), "shop");
    }

    #[test]
    fn options_go_before_what_a_target_says() {
        let shop = facts("gunicorn -n shop app:app", &[("SW_AGENT_NAMESPACE", "eu")]);
        let given = Given { service: Some("all".to_owned()), ..Given::default() };
        assert_eq!(service(&given, &shop), "all|eu");
        let given = Given { namespace: Some("us".to_owned()), ..given };
        assert_eq!(service(&given, &shop), "all|us");
        let targets = Targets::parse(&["gunicorn:service=all,as=mine".to_owned()], &[]).unwrap();
        assert_eq!(watched(&Given { targets, ..given.clone() }, &shop).as_deref(), Some("mine|us"));
        let targets = Targets::parse(&["gunicorn:service=other".to_owned()], &[]).unwrap();
        assert_eq!(watched(&Given { targets, ..given }, &shop), None);
        assert_eq!(watched(&Given::default(), &shop).as_deref(), Some("shop|eu"));
    }
}
