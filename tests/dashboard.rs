//! What `deploy/oap` hands to operators belongs to the meters that are sent: a rule, a chart and a line for each.

use std::collections::BTreeSet;

use harness::dashboard;
use harness::dashboard::OURS;
use observer::meter::definition::DEFINITIONS;
use observer::meter::definition::Definition;
use observer::meter::definition::Kind;
use serde_json::Value;

fn ours() -> impl Iterator<Item = &'static Definition> {
    DEFINITIONS.iter().filter(|definition| definition.name.starts_with(OURS))
}

#[test]
fn every_meter_of_ours_has_a_rule() {
    let rules = dashboard::rules();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ours().map(|definition| definition.name).collect(), "left: rules, right: definitions");
    assert_eq!(names.len(), rules.len(), "a rule is there twice");
    for definition in ours() {
        let rule = rules.iter().find(|rule| rule.name == definition.name).unwrap();
        let counts = definition.kind == Kind::Counter;
        assert_eq!(
            rule.is_increase, counts,
            "{}: of a counter, and of nothing else, a chart shows the increase",
            rule.name
        );
    }
}

#[test]
fn every_meter_of_ours_has_one_chart() {
    let (_, configuration) = dashboard::template();
    let tabs = dashboard::widgets(&configuration);
    let all: Vec<String> =
        tabs.iter().flat_map(|(_, widgets)| widgets).flat_map(dashboard::expressions).collect();
    let names: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(names.len(), all.len(), "a chart is there twice: {all:?}");
    let wanted = ours().map(|definition| format!("meter_{}", definition.name)).collect();
    assert_eq!(names, wanted, "left: charts, right: definitions");
}

#[test]
fn every_meter_has_a_line_with_both_of_its_names() {
    let page = dashboard::text("README.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `instance_"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let named: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[2])).collect();
    let wanted: BTreeSet<_> =
        DEFINITIONS.iter().map(|definition| (definition.name, definition.exposed)).collect();
    assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), wanted, "left: the page, right: definitions");
    assert_eq!(named.len(), wanted.len(), "a meter has two lines");
    let counts = |name: &str| DEFINITIONS.iter().any(|d| d.name == name && d.kind == Kind::Counter);
    for row in rows.iter().filter(|row| row[0].starts_with(OURS)) {
        assert_eq!(row[1].contains("per minute"), counts(row[0]), "{}: {}", row[0], row[1]);
    }
}

/// The shape of the templates that come with OAP 10.1: without one of these its user interface draws nothing.
#[test]
fn the_dashboard_has_the_shape_of_a_template() {
    let (id, configuration) = dashboard::template();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (id.as_str(), text(&configuration, "name").as_str()),
        ("Gunicorn-Instance", "Gunicorn-Instance")
    );
    assert_eq!(
        (text(&configuration, "layer"), text(&configuration, "entity")),
        ("GENERAL".into(), "ServiceInstance".into())
    );
    assert_eq!(
        configuration["expressions"].as_array().unwrap().len(),
        configuration["expressionsConfig"].as_array().unwrap().len()
    );
    let tabs = dashboard::widgets(&configuration);
    assert!(!tabs.is_empty() && tabs.iter().all(|(name, widgets)| !name.is_empty() && !widgets.is_empty()));
    let mut ids = BTreeSet::new();
    for (tab, widgets) in tabs {
        let mut taken = BTreeSet::new();
        for widget in widgets {
            let title = text(&widget["widget"], "title");
            let number =
                |key: &str| widget[key].as_u64().unwrap_or_else(|| panic!("{tab}, {title}: no {key}"));
            assert!(!title.is_empty() && !text(&widget["graph"], "type").is_empty(), "{tab}: {widget}");
            assert_eq!(text(&widget, "type"), "Widget");
            assert!(ids.insert(text(&widget, "i")), "{tab}, {title}: another widget has its i");
            let names = widget["metricConfig"].as_array().map_or(0, Vec::len);
            assert!(names == 0 || names == dashboard::expressions(&widget).len(), "{tab}, {title}");
            let (x, y) = (number("x"), number("y"));
            assert!(x + number("w") <= 24, "{tab}, {title} leaves the grid");
            let places = (x..x + number("w")).flat_map(|x| (y..y + number("h")).map(move |y| (x, y)));
            assert!(places.into_iter().all(|place| taken.insert(place)), "{tab}, {title} lies on another");
        }
    }
}
