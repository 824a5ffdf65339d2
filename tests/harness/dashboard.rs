//! The files of `deploy/oap`, as far as tests have to understand them.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::stage::must;
use crate::stage::package;

/// How a rule begins that is about a meter of ours.
pub const OURS: &str = "instance_gunicorn_";

/// A rule for one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The meter's name, as sent; OAP puts `meter_` before it.
    pub name: String,
    /// The label that tells its values apart.
    pub label: Option<String>,
    /// Whether the chart shows the increase of a minute.
    pub is_increase: bool,
}

/// A file of `deploy/oap`.
pub fn path(name: &str) -> PathBuf {
    package().join("../deploy/oap").join(name)
}

/// What is in it.
pub fn text(name: &str) -> String {
    must(fs::read_to_string(path(name)), format_args!("read deploy/oap/{name}"))
}

/// Every rule, in the order of the file.
pub fn rules() -> Vec<Rule> {
    let text = text("gunicorn.yaml");
    let values = |key: &'static str| text.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let (names, expressions): (Vec<_>, Vec<_>) = (values("- name: ").collect(), values("exp: ").collect());
    assert_eq!(names.len(), expressions.len(), "each rule has a name and an expression");
    names.into_iter().zip(expressions).map(|(name, expression)| rule(name, expression)).collect()
}

fn rule(name: &str, expression: &str) -> Rule {
    let bad = || {
        panic!(
            "{name}: {expression} is not NAME[.sum(['service', 'instance', LABEL])][.increase('PT1M')|.downsampling(MAX)]"
        )
    };
    let mut rest = expression.strip_prefix(name).unwrap_or_else(bad);
    let mut label = None;
    if let Some((inside, after)) =
        rest.strip_prefix(".sum(['service', 'instance', '").and_then(|r| r.split_once("'])"))
    {
        (label, rest) = (Some(inside.to_owned()), after);
    }
    let is_known = ["", ".downsampling(MAX)", ".increase('PT1M')"].contains(&rest);
    assert!(is_known, "{name}: {rest} is not understood");
    Rule { name: name.to_owned(), label, is_increase: rest.contains("increase") }
}

/// The dashboard: its id and its configuration.
pub fn template() -> (String, Value) {
    let file: Value =
        must(serde_json::from_str(&text("gunicorn-instance.json")), "read the dashboard as JSON");
    match file.as_array().map(Vec::as_slice) {
        Some([one]) => {
            let id = one.get("id").and_then(Value::as_str).unwrap_or_default();
            (id.to_owned(), one.get("configuration").cloned().unwrap_or_default())
        }
        _ => panic!("OAP wants a list of one dashboard in a file"),
    }
}

/// Every widget with numbers, by tab.
pub fn widgets(configuration: &Value) -> Vec<(String, Vec<Value>)> {
    let children =
        |value: &Value| value.get("children").and_then(Value::as_array).cloned().unwrap_or_default();
    let tabs = children(configuration).iter().flat_map(&children).collect::<Vec<_>>();
    let name = |tab: &Value| tab.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    tabs.iter().map(|tab| (name(tab), children(tab))).collect()
}

/// The expressions of a widget.
pub fn expressions(widget: &Value) -> Vec<String> {
    let list = widget.get("expressions").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|expression| expression.as_str().map(str::to_owned)).collect()
}
