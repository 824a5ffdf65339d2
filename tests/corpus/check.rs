//! What an observer said against what is true, for one case at one moment.
#![expect(clippy::panic, clippy::indexing_slicing, reason = "the driver of a test ends by panicking")]

use std::collections::BTreeMap;
use std::process;

use harness::observer::Event;
use harness::stage::must;

use crate::seen::Seen;
use crate::table::Case;
use crate::truth::Kind;
use crate::truth::Member;
use crate::truth::Truth;

/// How many exits of a crash loop may be reported one by one.
const FEW: usize = 20;

/// Marks an event that has not ended.
const OPEN: &str = " (open)";

/// An observer as one case looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Lines before this one are not about the case.
    pub mark: usize,
    /// The step in which it came, when it came late.
    pub late: Option<usize>,
}

/// What the table says of the case so far.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Step to who ended in it: number, kind, causes.
    pub exits: BTreeMap<usize, Vec<String>>,
    /// Step to the other events that were to be reported.
    pub events: BTreeMap<usize, Vec<String>>,
    /// Paths of requests, and who answered.
    pub requests: Vec<(usize, String, u32)>,
}

/// One line for each difference.
pub fn differences(case: &Case, truth: &Truth, wanted: &Wanted, seen: &Seen, view: View) -> Vec<String> {
    let mut found = Vec::new();
    roles(case, truth, seen, view, &mut found);
    exits(case, truth, wanted, seen, view, &mut found);
    events(truth, wanted, seen, view, &mut found);
    let since = view.late.unwrap_or(0);
    for (_, path, worker) in wanted.requests.iter().filter(|(step, ..)| *step >= since) {
        let by = seen.served(view.mark, path);
        if by != [Some(*worker)] {
            found.push(format!("{path} was answered by {worker} and is reported under {by:?}"));
        }
    }
    found
}

fn roles(case: &Case, truth: &Truth, seen: &Seen, view: View, found: &mut Vec<String>) {
    for member in truth.members() {
        let mut is = truth.role(member).filter(|_| member.alive);
        is = is.map(|role| case.said.get(role).map_or(role, String::as_str)).filter(|role| *role != "none");
        if view.late.is_some() {
            is = is
                .map(|role| case.late.get(role).map_or(role, String::as_str))
                .filter(|role| *role != "none");
        }
        let said = seen.role(view.mark, member.pid);
        let passing = case.looping.is_some() && member.kind == Kind::Worker; // gone before anybody can compare
        if said != is && !passing {
            found.push(format!(
                "{} is {} and is said to be {}",
                shown(member),
                is.unwrap_or("none"),
                said.unwrap_or("none")
            ));
        }
        let allowed = |role: &str| match member.kind {
            Kind::Master => role == "master" || role == "upgrade-master" && !case.said.contains_key(role),
            Kind::Other => case.said.values().any(|said| said == role),
            Kind::Worker | Kind::DirtyArbiter | Kind::DirtyWorker | Kind::Child => {
                role == member.kind.name() || role == "orphan" || case.late.values().any(|late| late == role)
            }
        };
        for role in seen.roles(view.mark, member.pid) {
            if !allowed(role) && !case.fleeting.iter().any(|fleeting| fleeting == role) {
                found.push(format!("{} was said to be {role}", shown(member)));
            }
        }
        let instance = seen.instance(view.mark, member.pid);
        // Who comes late does not know what setproctitle has written over.
        let service = case.service();
        if let Some(instance) = instance.filter(|one| view.late.is_none() && one.service != service) {
            found.push(format!("{} is of service {}, not {service}", shown(member), instance.service));
        }
        let never = matches!(member.kind, Kind::Other | Kind::Child)
            || case.looping.is_some() && member.kind == Kind::Worker;
        if instance.is_some() && never {
            found.push(format!("{} is announced as an instance", shown(member)));
        }
    }
}

fn exits(case: &Case, truth: &Truth, wanted: &Wanted, seen: &Seen, view: View, found: &mut Vec<String>) {
    let since = view.late.unwrap_or(0);
    for (step, lines) in wanted.exits.range(since..) {
        let mut by_kind: BTreeMap<&str, Vec<Exit>> = BTreeMap::new();
        for exit in lines.iter().map(|line| Exit::read(line)) {
            by_kind.entry(exit.kind).or_default().push(exit);
        }
        for (kind, mut left) in by_kind {
            for member in
                truth.members().filter(|member| member.died == Some(*step) && member.kind.name() == kind)
            {
                let events = seen.exits(view.mark, member.pid);
                let fits =
                    |said: &str| left.iter().position(|exit| exit.causes.split('|').any(|one| one == said));
                let said = match one_exit(&events, truth, view) {
                    Ok("unknown") => continue,
                    Ok(said) => said,
                    Err(_) if events.is_empty() && fits("none").is_some() => "none",
                    Err(fault) => {
                        found.push(format!("{} ended: {fault}; the table says {left:?}", shown(member)));
                        continue;
                    }
                };
                match fits(said) {
                    Some(at) if left[at].count > 1 || left[at].open => {
                        left[at].count = left[at].count.saturating_sub(1)
                    }
                    Some(at) => drop(left.swap_remove(at)),
                    None => found.push(format!("{} ended of {said}; the table says {left:?}", shown(member))),
                }
            }
        }
    }
    if let Some(cause) = &case.looping {
        let each: Vec<_> = truth
            .members()
            .filter(|member| member.kind == Kind::Worker)
            .flat_map(|member| seen.exits(view.mark, member.pid))
            .collect();
        if each.len() > FEW {
            found.push(format!("{} exits of a crash loop are reported one by one", each.len()));
        }
        found.extend(
            each.iter()
                .filter(|exit| exit.parameters.get("cause") != Some(cause))
                // One that ended between a late observer's look and its first record.
                .filter(|exit| view.late.is_none() || !exit.parameters.contains_key("reason"))
                .map(|exit| format!("an exit of the loop is {:?}", exit.parameters)),
        );
    }
}

/// The cause, when there is one exit with a cause that says what it should.
fn one_exit<'a>(exits: &[&'a Event], truth: &Truth, view: View) -> Result<&'a str, String> {
    let [exit] = exits else { return Err(format!("{} exits are reported", exits.len())) };
    let get = |name: &str| exit.parameters.get(name).map(String::as_str);
    let cause = get("cause").ok_or("its exit has no cause")?;
    if cause == "unknown" && get("reason").is_none_or(str::is_empty) {
        return Err("its cause is unknown for no reason".into());
    }
    if cause == "unknown" && view.late.is_none() {
        return Err(format!("its cause is unknown: {:?}", get("reason")));
    }
    let sender = get("sender_pid").and_then(|pid| pid.parse().ok());
    let known = |pid: u32| pid == process::id() || truth.members().any(|member| member.pid == pid);
    if cause == "killed" && !sender.is_some_and(known) {
        return Err(format!("it was killed by {} or one of its tree and not by {sender:?}", process::id()));
    }
    Ok(cause)
}

fn events(truth: &Truth, wanted: &Wanted, seen: &Seen, view: View, found: &mut Vec<String>) {
    let pids: Vec<u32> = truth.members().map(|member| member.pid).collect();
    let text = |event: &&Event| {
        let detail = event.parameters.get("outcome").or_else(|| event.parameters.get("cause"));
        let open = if event.end_ms.is_none() && event.name != "CrashLoop" && event.name != "Stuck" {
            " (open)"
        } else {
            ""
        };
        format!("{}{}{}", event.name, detail.map(|detail| format!(" {detail}")).unwrap_or_default(), open)
    };
    let mut said: Vec<String> = seen.others(view.mark, &pids).iter().map(text).collect();
    let now = wanted.events.keys().next_back().copied();
    let since = view.late.unwrap_or(0);
    // What was open in an earlier step is named again in the step that ends it.
    let due = wanted.events.iter().flat_map(|(step, events)| {
        let is_due = move |event: &&String| {
            (*step >= since || event.ends_with('+')) && (Some(*step) == now || !event.ends_with(OPEN))
        };
        events.iter().filter(is_due).map(|event| event.trim_end_matches('+'))
    });
    let mut due: Vec<&str> = due.collect();
    if view.late.is_some() {
        // It may have come after the beginning: such an event is reported without it or not at all.
        let began = |event: &str| event.starts_with("Upgrade");
        due.retain(|event| !began(event));
        said.retain(|event| !began(event));
    }
    said.sort();
    due.sort();
    if said.iter().ne(due.iter()) {
        found.push(format!("the events are {due:?} and are said to be {said:?}"));
    }
}

/// A line of the table about who ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit<'a> {
    /// How many.
    pub count: usize,
    /// Or more.
    pub open: bool,
    /// Of what kind.
    pub kind: &'a str,
    /// Of what causes: each is as good.
    pub causes: &'a str,
}

impl<'a> Exit<'a> {
    /// Reads `2 worker reload`.
    pub fn read(line: &'a str) -> Self {
        let mut words = line.split(' ');
        let parts = (words.next(), words.next(), words.next());
        let (Some(count), Some(kind), Some(causes)) = parts else { panic!("not who ended, and why: {line}") };
        let number = must(count.trim_end_matches('+').parse(), format_args!("read {line}"));
        Self { count: number, open: count.ends_with('+'), kind, causes }
    }
}

/// A process for people.
fn shown(member: &Member) -> String {
    format!("{} ({}, {})", member.pid, member.kind.name(), member.comm)
}
