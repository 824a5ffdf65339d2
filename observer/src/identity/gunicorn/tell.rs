//! Which events follow from what was seen.
use super::Change;
use super::Model;
use super::Process;
use crate::clock::KernelTime;
use crate::clock::WallOffset;
use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::arbiter::Upgrade;
use crate::identity::cause::Cause;
use crate::identity::cause::Status;
use crate::identity::cause::Verdict;
use crate::identity::cause::is_stop;
use crate::identity::cause::signal;
use crate::identity::chronicle;
use crate::identity::chronicle::Open;
use crate::identity::chronicle::Story;
use crate::identity::chronicle::seconds;
use crate::identity::event::EventName;
use crate::identity::life::State;

/// Between two words about a crash loop that goes on, in nanoseconds.
const REMINDER: u64 = 10_000_000_000;
/// An arbiter forks at once when it is asked to upgrade, if it does at all, in nanoseconds.
const UPGRADE_FORKS: u64 = 5_000_000_000;

impl Model {
    /// Time passed: what did not happen is told, too.
    pub fn tick(&mut self, at: KernelTime, wall: WallOffset, changes: &mut Vec<Change>) {
        (self.now, self.chronicle.wall) = (at, wall);
        self.release_late(changes);
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        for pid in pids {
            self.tell_stuck(pid, changes);
            self.tell_loop(pid, changes);
            self.tell_ignored(pid, changes);
        }
        self.tell_pressure(changes);
    }

    /// An instance was announced. What was found is older than the observer: its start is not news.
    pub(super) fn tell_start(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get(&pid).filter(|process| process.quiet.is_none()) else {
            return;
        };
        let (Some(forked), Some(instance), Some(role)) =
            (process.life.forked, process.instance.clone(), process.role)
        else {
            return;
        };
        let (key, parent, ready) = (process.key, process.parent, process.life.ready);
        let start = self.chronicle.begin(forked);
        let (end, message) = match ready.filter(|_| !role.is_arbiter()) {
            Some(ready) => {
                let took = seconds(ready.since(forked));
                (Some(ready), format!("{} {pid} is ready after {took} s", role.name()))
            }
            None => (None, format!("{} {pid} forks its first worker", role.name())),
        };
        let story = life_story(message, key, role);
        changes.push(Change::Event(self.chronicle.tell(&start, &instance, EventName::Start, end, story)));
        if let Some(process) = self.processes.get_mut(&pid).filter(|_| role.is_arbiter()) {
            process.start = Some(start);
        }
        if let Some(parent) = parent.filter(|_| !role.is_arbiter()) {
            self.tell_arbiter_serves(parent, changes);
        }
    }

    /// A worker of this arbiter is ready: so is the arbiter, and a reload may be over.
    fn tell_arbiter_serves(&mut self, arbiter: ProcessKey, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&arbiter.pid).filter(|found| found.key == arbiter) else {
            return;
        };
        process.arbiter.served = true;
        let (start, instance, role) = (process.start.take(), process.instance.clone(), process.role);
        if let (Some(start), Some(instance), Some(role)) = (start, instance, role) {
            let took = seconds(now.since(start.start));
            let message = format!("{} {} serves after {took} s", role.name(), arbiter.pid);
            let story = life_story(message, arbiter, role);
            let event = self.chronicle.tell(&start, &instance, EventName::Start, Some(now), story);
            changes.push(Change::Event(event));
        }
        self.tell_reloaded(arbiter, changes);
    }

    /// A signal reached a process: it drains, or it reloads, or it starts an upgrade.
    pub(super) fn tell_signal(&mut self, pid: u32, number: u32, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.quiet.is_none()) else {
            return;
        };
        let (Some(instance), Some(role)) = (process.instance.clone(), process.role) else { return };
        let begins = match number {
            number if is_stop(number) => process.exit.is_none().then_some(EventName::Exit),
            signal::HUP if role.is_arbiter() => process.arbiter.reload.is_none().then_some(EventName::Reload),
            signal::USR2 if role == Role::Master => {
                process.arbiter.upgrade.is_none().then_some(EventName::Upgrade)
            }
            _ => None,
        };
        let Some(name) = begins else { return };
        let open = self.chronicle.begin(now);
        let who = format!("{} {pid}", role.name());
        let asked = process.life.asked.map(Cause::name);
        let (message, mut parameters) = match name {
            EventName::Exit => {
                process.exit = Some(open.clone());
                (format!("{who} was asked to end (signal {number})"), vec![])
            }
            EventName::Reload => {
                process.arbiter.reload = Some(open.clone());
                (format!("{who} was asked to reload"), vec![])
            }
            EventName::Upgrade
            | EventName::Start
            | EventName::Stuck
            | EventName::CrashLoop
            | EventName::Saturated => {
                process.arbiter.upgrade = Some(Upgrade { event: open.clone(), child: None });
                (format!("{who} was asked to start a new master"), vec![])
            }
        };
        parameters.extend(asked.map(|cause| ("cause", cause.to_owned())));
        parameters.push(("pid", pid.to_string()));
        let story = Story { error: false, message, parameters };
        changes.push(Change::Event(self.chronicle.tell(&open, &instance, name, None, story)));
    }

    /// A worker that was stuck beats again.
    pub(super) fn tell_recovered(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(open) = process.stuck.take() else { return };
        let (key, booting) = (process.key, process.life.ready.is_none());
        let after = seconds(self.now.since(open.start));
        self.tell_unstuck(&open, key, booting, format!("beats after {after} s"), changes);
    }

    /// The end of a `Stuck` event, on whose instance it began.
    fn tell_unstuck(
        &self,
        open: &Open,
        key: ProcessKey,
        booting: bool,
        what: String,
        changes: &mut Vec<Change>,
    ) {
        let Some(instance) = self.witness(key, booting) else { return };
        let story = stuck_story(false, format!("worker {} {what}", key.pid), key, booting);
        let event = self.chronicle.tell(open, &instance, EventName::Stuck, Some(self.now), story);
        changes.push(Change::Event(event));
    }

    /// The instance on which something about this process is told: its master's while it boots.
    fn witness(&self, key: ProcessKey, booting: bool) -> Option<Instance> {
        let process = self.process(key)?;
        if booting { self.process(process.parent?)?.instance.clone() } else { process.instance.clone() }
    }

    /// A worker that has not beaten for too long, or not at all.
    fn tell_stuck(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get(&pid) else { return };
        let arbiter = process.parent.map(|parent| parent.pid);
        let is_worker = matches!(process.role, Some(Role::Worker | Role::DirtyWorker));
        if !is_worker || process.stuck.is_some() || process.quiet.is_some() {
            return;
        }
        let (key, life) = (process.key, &process.life);
        let master = process.parent.and_then(|parent| self.process(parent));
        let timeout = master.and_then(|master| master.arbiter.timeout);
        let (since, booting) = match (life.state(arbiter), life.ready, life.pulse.last()) {
            (State::Booting, _, _) => (life.forked.or(life.found), true),
            // Between the look at its slot and the first record a beat may have gone by unseen.
            (State::Ready, Some(_), Some(last)) => (Some(last.max(life.found.unwrap_or(last))), false),
            _ => return,
        };
        let limit = if booting { Some(self.stuck_after) } else { life.pulse.limit(timeout) };
        let (Some(since), Some(limit)) = (since, limit) else { return };
        let age = now.since(since);
        if age < limit {
            return;
        }
        let Some(instance) = self.witness(key, booting) else { return };
        let open = self.chronicle.begin(since);
        let what = if booting { "has not finished booting" } else { "has not beaten" };
        let message = format!("worker {pid} {what} for {} s", seconds(age));
        let mut story = stuck_story(true, message, key, booting);
        story.parameters.push(("age_s", seconds(age)));
        story.parameters.extend(life.pulse.period().map(|period| ("period_s", seconds(period))));
        let event = self.chronicle.tell(&open, &instance, EventName::Stuck, None, story);
        changes.push(Change::Event(event));
        if let Some(process) = self.processes.get_mut(&pid) {
            process.stuck = Some(open);
        }
    }

    /// A process that was removed from the table ended.
    pub(super) fn tell_exit(
        &mut self,
        process: &Process,
        role: Role,
        status: Option<Status>,
        verdict: &Verdict<'_>,
        changes: &mut Vec<Change>,
    ) {
        if role == Role::AppChild || process.quiet.is_some() {
            return;
        }
        let now = self.now;
        let key = process.key;
        let parent = process.parent.filter(|_| role != Role::UpgradeMaster);
        let master =
            parent.and_then(|parent| self.process(parent)).and_then(|parent| parent.instance.clone());
        let booting = process.life.ready.is_none() && !role.is_arbiter();
        let arbiter = parent.and_then(|parent| self.processes.get_mut(&parent.pid));
        let mut told = true;
        if let Some(arbiter) = arbiter {
            let served = process.life.ready.map(|ready| now.since(ready));
            told = arbiter.arbiter.deaths.note(now, served, verdict.cause);
            if status.is_some_and(Status::stops_arbiter) {
                arbiter.arbiter.ending.get_or_insert(Cause::BootFailure);
            }
        }
        let instance = process.instance.clone().or(master);
        if let Some(instance) = instance.filter(|_| told) {
            if let Some(stuck) = &process.stuck {
                let story = stuck_story(true, format!("worker {} ended", key.pid), key, booting);
                let event = self.chronicle.tell(stuck, &instance, EventName::Stuck, Some(now), story);
                changes.push(Change::Event(event));
            }
            self.tell_arbiter_exit(process, &instance, verdict, changes);
            let first = verdict.signal.map_or(now, |signal| signal.at);
            let open = process.exit.clone().unwrap_or_else(|| self.chronicle.begin(first));
            let state = process.life.state(parent.map(|parent| parent.pid)).name();
            let lived = process.life.forked.map(|forked| now.since(forked));
            let status = status.map_or_else(|| "unknown".to_owned(), Status::text);
            let story = chronicle::exit(key, role, state, &status, lived, verdict);
            let event = self.chronicle.tell(&open, &instance, EventName::Exit, Some(now), story);
            changes.push(Change::Event(event));
        }
        if let Some(parent) = parent {
            self.tell_loop(parent.pid, changes);
            self.tell_reloaded(parent, changes);
        }
        if role == Role::UpgradeMaster {
            self.tell_upgraded(process, verdict.cause, changes);
        }
    }

    /// What was under way in an arbiter ends with it.
    fn tell_arbiter_exit(
        &self,
        process: &Process,
        instance: &Instance,
        verdict: &Verdict<'_>,
        changes: &mut Vec<Change>,
    ) {
        self.tell_unsaturated(process, instance, changes);
        let (now, pid) = (self.now, process.key.pid);
        let arbiter = &process.arbiter;
        let mut end = |open: &Open, name, error, message: String, parameters| {
            let story = Story { error, message, parameters };
            changes.push(Change::Event(self.chronicle.tell(open, instance, name, Some(now), story)));
        };
        if let Some(open) = &arbiter.deaths.event {
            let (message, parameters) = loop_words(process);
            end(open, EventName::CrashLoop, true, format!("{message}, until its arbiter ended"), parameters);
        }
        if let Some(open) = &arbiter.reload {
            let outcome = vec![("outcome", verdict.cause.name().to_owned()), ("pid", pid.to_string())];
            end(open, EventName::Reload, true, format!("master {pid} ended before the reload did"), outcome);
        }
        if let Some(Upgrade { event, child }) = &arbiter.upgrade {
            let heir = child.and_then(|child| self.processes.get(&child));
            let outcome = if heir.is_some() { "promoted" } else { "failed" };
            let message = match heir {
                Some(heir) => format!("master {} took over from {pid}", heir.key.pid),
                None => format!("master {pid} ended without a new one"),
            };
            end(event, EventName::Upgrade, heir.is_none(), message, upgrade_words(outcome, *child));
        }
    }

    /// A child of a master that was to be the next one ended before it was.
    pub(super) fn tell_failed_upgrade(
        &mut self,
        process: &Process,
        status: Option<Status>,
        changes: &mut Vec<Change>,
    ) {
        if status.is_some() {
            self.tell_upgraded(process, Cause::Exit, changes);
        }
    }

    /// The new master of an upgrade ended while the old one lives.
    fn tell_upgraded(&mut self, process: &Process, cause: Cause, changes: &mut Vec<Change>) {
        let pid = process.key.pid;
        let Some(old) = process.parent.and_then(|parent| self.processes.get_mut(&parent.pid)) else { return };
        let is_heir = |upgrade: &mut Upgrade| upgrade.child == Some(pid);
        let Some(upgrade) = old.arbiter.upgrade.take_if(is_heir) else { return };
        let Some(instance) = old.instance.clone() else { return };
        let failed = cause.is_trouble();
        let outcome = if failed { "failed" } else { "rolled-back" };
        let message = format!("the new master {pid} ended: {outcome}");
        let story = Story { error: failed, message, parameters: upgrade_words(outcome, Some(pid)) };
        let event = self.chronicle.tell(&upgrade.event, &instance, EventName::Upgrade, Some(self.now), story);
        changes.push(Change::Event(event));
    }

    /// An upgrade that did not begin: the master was not promoted yet, or has a new master already.
    fn tell_ignored(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let is_ignored = |upgrade: &mut Upgrade| {
            upgrade.child.is_none() && now.since(upgrade.event.start) >= UPGRADE_FORKS
        };
        let Some(upgrade) = process.arbiter.upgrade.take_if(is_ignored) else { return };
        let Some(instance) = process.instance.clone() else { return };
        let message = format!("master {pid} started no new one");
        let story = Story { error: false, message, parameters: upgrade_words("ignored", None) };
        let event = self.chronicle.tell(&upgrade.event, &instance, EventName::Upgrade, Some(now), story);
        changes.push(Change::Event(event));
    }

    /// A reload is over when every worker of before is gone and a new one serves.
    fn tell_reloaded(&mut self, key: ProcessKey, changes: &mut Vec<Change>) {
        let Some(arbiter) = self.process(key).filter(|arbiter| arbiter.arbiter.reload.is_some()) else {
            return;
        };
        let workers = self.processes.values().filter(|process| process.parent == Some(key));
        let workers: Vec<&Process> = workers
            .filter(|process| matches!(process.role, Some(Role::Worker | Role::DirtyWorker)))
            .collect();
        let old = |worker: &&Process| arbiter.arbiter.replaces(worker.life.forked);
        let serves = workers.iter().any(|worker| !old(worker) && worker.life.ready.is_some());
        if workers.iter().any(old) || !serves || arbiter.arbiter.ending.is_some() {
            return;
        }
        let count = workers.len();
        let Some(arbiter) = self.processes.get_mut(&key.pid) else { return };
        let (Some(open), Some(instance)) = (arbiter.arbiter.reload.take(), arbiter.instance.clone()) else {
            return;
        };
        let parameters = vec![("outcome", "reloaded".to_owned()), ("pid", key.pid.to_string())];
        let message = format!("master {} reloaded, {count} workers", key.pid);
        let story = Story { error: false, message, parameters };
        let event = self.chronicle.tell(&open, &instance, EventName::Reload, Some(self.now), story);
        changes.push(Change::Event(event));
    }

    /// A crash loop begins, goes on, or is over.
    fn tell_loop(&mut self, pid: u32, changes: &mut Vec<Change>) {
        let now = self.now;
        let Some(process) = self.processes.get(&pid).filter(|process| process.arbiter.deaths.count > 0)
        else {
            return;
        };
        let key = process.key;
        let serves = |worker: &Process| worker.parent == Some(key) && worker.life.ready.is_some();
        let calm = process.arbiter.deaths.is_calm(now) && self.processes.values().any(serves);
        let (message, parameters) = loop_words(process);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let deaths = &mut process.arbiter.deaths;
        let due = deaths.is_new_loop() || now.since(deaths.said) >= REMINDER;
        let open = match deaths.event.clone() {
            None if deaths.is_new_loop() => self.chronicle.begin(deaths.first()),
            Some(open) if calm || due => open,
            _ => {
                if calm {
                    *deaths = Default::default();
                }
                return;
            }
        };
        (deaths.event, deaths.said) = (Some(open.clone()), now);
        if calm {
            *deaths = Default::default();
        }
        let Some(instance) = process.instance.clone() else { return };
        let message = if calm { format!("{message}, and now live") } else { message };
        let story = Story { error: true, message, parameters };
        let end = calm.then_some(now);
        changes.push(Change::Event(self.chronicle.tell(&open, &instance, EventName::CrashLoop, end, story)));
    }
}

fn life_story(message: String, key: ProcessKey, role: Role) -> Story {
    let parameters = vec![("pid", key.pid.to_string()), ("role", role.name().to_owned())];
    Story { error: false, message, parameters }
}

fn stuck_story(error: bool, message: String, key: ProcessKey, booting: bool) -> Story {
    let cause = if booting { "booting" } else { "heartbeat" };
    Story { error, message, parameters: vec![("cause", cause.to_owned()), ("pid", key.pid.to_string())] }
}

fn upgrade_words(outcome: &str, child: Option<u32>) -> Vec<(&'static str, String)> {
    let child = child.map(|child| ("new_pid", child.to_string()));
    [("outcome", outcome.to_owned())].into_iter().chain(child).collect()
}

fn loop_words(process: &Process) -> (String, Vec<(&'static str, String)>) {
    let deaths = &process.arbiter.deaths;
    let cause = deaths.cause.map_or("unknown", Cause::name);
    let rate = deaths.per_minute();
    let pid = process.key.pid;
    let message =
        format!("workers of master {pid} die as they start: {} in a row, {rate} per minute", deaths.count);
    let parameters = vec![
        ("last_cause", cause.to_owned()),
        ("deaths", deaths.count.to_string()),
        ("per_minute", rate.to_string()),
        ("pid", pid.to_string()),
    ];
    (message, parameters)
}
