//! What the observer's lines say about lives: the roles of a process, and how it ended.

use std::collections::BTreeMap;

use crate::observer::Event;
use crate::observer::Line;

/// The roles that a process had, in order; `None` is the end of one.
pub fn roles(lines: &[Line], wanted: u32) -> Vec<Option<&str>> {
    let casts = lines.iter().filter_map(|line| match line {
        Line::Process { pid, role, .. } => (*pid == wanted).then_some(role.as_deref()),
        Line::Ready { .. }
        | Line::Instance(_)
        | Line::Gone { .. }
        | Line::Segment(_)
        | Line::Event(_)
        | Line::Meters { .. }
        | Line::Stats { .. } => None,
    });
    casts.collect()
}

/// The role that a process has at the end of these lines.
pub fn role(lines: &[Line], pid: u32) -> Option<&str> {
    roles(lines, pid).pop().flatten()
}

/// The events of a service in the order of their first message, each as its last message tells it.
pub fn events<'a>(lines: &'a [Line], service: &str) -> Vec<&'a Event> {
    let mut all: Vec<&Event> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let Line::Event(event) = line else { continue };
        if event.service != service {
            continue;
        }
        let place = *places.entry(&event.uuid).or_insert(all.len());
        match all.get_mut(place) {
            Some(old) => *old = event,
            None => all.push(event),
        }
    }
    all
}

/// The events of this name.
pub fn named<'a>(lines: &'a [Line], service: &str, name: &str) -> Vec<&'a Event> {
    events(lines, service).into_iter().filter(|event| event.name == name).collect()
}

/// How a process ended, once it has.
pub fn exit<'a>(lines: &'a [Line], service: &str, pid: u32) -> Option<&'a Event> {
    let pid = pid.to_string();
    let of = |event: &&Event| event.end_ms.is_some() && event.parameters.get("pid") == Some(&pid);
    named(lines, service, "Exit").into_iter().find(of)
}

/// Why a process ended, once it has.
pub fn cause<'a>(lines: &'a [Line], service: &str, pid: u32) -> Option<&'a str> {
    exit(lines, service, pid)?.parameters.get("cause").map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
    }

    #[test]
    fn the_last_message_of_an_event_counts() {
        let message = |end: &str, cause: &str| {
            format!(
                r#"{{"kind":"event","service":"s","instance":"i","name":"Exit","type":"Normal","uuid":"u",
                "start_ms":1,"end_ms":{end},"message":"m","parameters":{{"cause":"{cause}","pid":"7"}}}}"#
            )
            .replace('\n', "")
        };
        let first = message("null", "shutdown");
        assert_eq!(cause(&lines(&first), "s", 7), None);
        let both = lines(&format!("{first}\n{}", message("5", "graceful-timeout")));
        assert_eq!(cause(&both, "s", 7), Some("graceful-timeout"));
        assert_eq!(events(&both, "s").len(), 1);
        assert_eq!(events(&both, "other").len(), 0);
    }

    #[test]
    fn roles_come_in_order() {
        let lines = lines(
            r#"{"kind":"process","pid":7,"role":"worker","parent":1}
{"kind":"process","pid":8,"role":"master","parent":null}
{"kind":"process","pid":7,"role":null,"parent":null}"#,
        );
        assert_eq!(roles(&lines, 7), [Some("worker"), None]);
        assert_eq!(role(&lines, 7), None);
        assert_eq!(role(&lines, 8), Some("master"));
    }
}
