//! Instances at OAP: registered when they come, kept alive while they live.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::v3::InstancePingPkg;
use proto::v3::InstanceProperties;
use proto::v3::management_service_client::ManagementServiceClient;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::identity::Instance;
use crate::identity::Pace;
use crate::identity::ProcessKey;
use crate::report::convert;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;
use crate::report::queue::Change;

/// How many that are gone already may wait for their registration: what they served is reported under their names.
const LATECOMERS: usize = 10_000;

/// How many heartbeats go at the same time at most.
const BURST: usize = 64;
/// Heartbeats that are due within this part of their period go together: within a second of thirty.
const COMPANY: u32 = 30;

/// The agent's own pace.
const HEARTBEAT_S: u32 = 30;
const PROPERTIES_FACTOR: u32 = 10;

/// The live instances, and when each is to be heard of next.
pub(super) struct Roster {
    /// What was chosen for all of them.
    heartbeat: Option<Duration>,
    factor: Option<u32>,
    live: BTreeMap<ProcessKey, Live>,
    /// How many registrations so far; gives each its own phase.
    registrations: u32,
}

struct Live {
    instance: Instance,
    /// Between two signs of life.
    heartbeat: Duration,
    /// Every how many of them the properties go with it.
    factor: u32,
    /// Heartbeats sent, the registration counting as the first; 0 is not registered.
    beats: u32,
    due: Instant,
    /// It ended before it was registered; it is dropped when it is.
    is_gone: bool,
}

/// One heartbeat that is due.
pub(super) struct Beat {
    process: ProcessKey,
    /// At registration and at every `factor`th heartbeat.
    properties: Option<InstanceProperties>,
    ping: InstancePingPkg,
}

impl Roster {
    /// A heartbeat per instance every `heartbeat`, properties with every `factor`th; what is not chosen each instance says
    /// for itself.
    pub(super) fn new(heartbeat: Option<Duration>, factor: Option<u32>) -> Self {
        Self { heartbeat, factor, live: BTreeMap::new(), registrations: 0 }
    }

    /// Takes instances in and out.
    pub(super) fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            match change {
                Change::Hello(instance) => {
                    let Pace { heartbeat_s, properties_factor, .. } = instance.pace;
                    let own = || Duration::from_secs(heartbeat_s.unwrap_or(HEARTBEAT_S).into());
                    let heartbeat = self.heartbeat.unwrap_or_else(own);
                    let factor = self.factor.or(properties_factor).unwrap_or(PROPERTIES_FACTOR).max(1);
                    let live = Live { instance, heartbeat, factor, beats: 0, due: now, is_gone: false };
                    self.live.insert(live.instance.process, live);
                }
                Change::Bye(instance) => self.leave(instance.process),
            }
        }
    }

    fn leave(&mut self, process: ProcessKey) {
        let waiting = self.live.values().filter(|live| live.is_gone).count();
        match self.live.get_mut(&process) {
            Some(live) if live.beats == 0 && waiting < LATECOMERS => live.is_gone = true,
            _ => drop(self.live.remove(&process)),
        }
    }

    /// Everybody is to be registered again: OAP may have been restarted with an empty memory.
    pub(super) fn register_all(&mut self, now: Instant) {
        for live in self.live.values_mut() {
            live.beats = 0;
            live.due = now;
        }
    }

    /// The heartbeats that have been due longest; with `only_new`, registrations only. When there is one, those that are
    /// due soon go with it: one burst a second costs a fraction of what as many calls one by one do.
    pub(super) fn due(&self, now: Instant, only_new: bool) -> Vec<Beat> {
        let is_soon = |live: &Live| live.due <= now + live.heartbeat / COMPANY;
        let meant = |live: &&Live| is_soon(live) && (live.beats == 0 || !only_new);
        let mut due: Vec<&Live> = self.live.values().filter(meant).collect();
        if due.iter().all(|live| live.due > now) {
            return Vec::new();
        }
        due.sort_by_key(|live| live.due);
        due.truncate(BURST);
        let beat = |live: &Live| {
            let complete = live.beats == 0 || live.beats.wrapping_add(1).is_multiple_of(live.factor);
            Beat {
                process: live.instance.process,
                properties: complete.then(|| convert::properties(&live.instance)),
                ping: convert::ping(&live.instance),
            }
        };
        due.into_iter().map(beat).collect()
    }

    /// Whether somebody is to be registered.
    pub(super) fn is_behind(&self, now: Instant) -> bool {
        self.live.values().any(|live| live.beats == 0 && live.due <= now)
    }

    /// `beat` has been answered; plans the next. Who was not `taken` at registration is registered anew then.
    pub(super) fn answered(&mut self, beat: &Beat, taken: bool, now: Instant) {
        let Some(live) = self.live.get_mut(&beat.process) else { return };
        if live.is_gone {
            self.live.remove(&beat.process);
            return;
        }
        if live.beats == 0 {
            live.due = now + live.heartbeat.mul_f64(phase(self.registrations));
            self.registrations = self.registrations.wrapping_add(1);
        } else {
            live.due = now + live.heartbeat;
        }
        if taken || live.beats > 0 {
            live.beats = live.beats.saturating_add(1);
        }
    }

    /// When the next heartbeat is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.live.values().map(|live| live.due).min()
    }
}

/// Which part of the period the first heartbeat after the nth registration waits: instances that register together must
/// not beat together. Steps of the golden ratio fall evenly for any number of them; the first waits the whole period.
fn phase(n: u32) -> f64 {
    1.0 - (f64::from(n) * 0.618_033_988_749_895).fract() / 2.0
}

/// Sends heartbeats at the same time, and returns each with what became of it.
pub(super) async fn send(link: &Link, beats: Vec<Beat>) -> Vec<(Beat, Result<(), Failure>)> {
    let mut calls = JoinSet::new();
    for beat in beats {
        let link = link.clone();
        calls.spawn(async move {
            let result = send_one(&link, &beat).await;
            (beat, result)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = calls.join_next().await {
        all.extend(done.ok());
    }
    all
}

/// Properties first if they are due, then the sign of life, which creates the service.
async fn send_one(link: &Link, beat: &Beat) -> Result<(), Failure> {
    let mut client = ManagementServiceClient::new(link.channel());
    if let Some(properties) = &beat.properties {
        link.call(client.report_instance_properties(link.request(properties.clone()))).await?;
    }
    link.call(client.keep_alive(link.request(beat.ping.clone()))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    const PERIOD: Duration = Duration::from_secs(30);

    fn instance(pid: u32) -> Instance {
        Instance {
            process: ProcessKey { pid, start: 1 },
            role: Role::Worker,
            service: "demo".into(),
            name: format!("base-master(1)-child({pid})").into(),
            properties: vec![("language".to_owned(), "python".to_owned())],
            pace: Pace::default(),
        }
    }

    fn first(roster: &Roster, now: Instant, only_new: bool, why: &str) -> Beat {
        roster.due(now, only_new).into_iter().next().expect(why)
    }

    #[test]
    fn who_is_due_soon_goes_with_who_is_due_now() {
        let start = Instant::now();
        let mut roster = Roster::new(None, None);
        let beat_at = |roster: &mut Roster, at: Instant| {
            let due = roster.due(at, false);
            due.iter().for_each(|beat| roster.answered(beat, true, at));
            due.iter().map(|beat| beat.process.pid).collect::<Vec<_>>()
        };
        for (pid, ms) in [(1, 0), (2, 900), (3, 1_100)] {
            let at = start + Duration::from_millis(ms);
            roster.apply(vec![Change::Hello(instance(pid))], at);
            roster.registrations = 0; // all in the same phase
            assert_eq!(beat_at(&mut roster, at), [pid]);
        }
        let before = start + PERIOD - Duration::from_millis(1);
        assert!(beat_at(&mut roster, before).is_empty(), "nobody is due");
        assert_eq!(beat_at(&mut roster, start + PERIOD), [1, 2]);
    }

    #[test]
    fn properties_go_at_the_start_and_with_every_tenth_heartbeat() {
        let start = Instant::now();
        let mut roster = Roster::new(None, None);
        roster.apply(vec![Change::Hello(instance(2))], start);
        let mut complete = Vec::new();
        for beat in 0..20 {
            let now = start + PERIOD * beat;
            let due = first(&roster, now, false, "due every period");
            if due.properties.is_some() {
                complete.push(now.duration_since(start).as_secs());
            }
            roster.answered(&due, true, now);
            assert!(roster.due(now, false).is_empty());
        }
        assert_eq!(complete, [0, 270, 570]);
    }

    #[test]
    fn each_master_has_its_pace_unless_one_is_chosen_for_all() {
        let start = Instant::now();
        let beats = |chosen: (Option<Duration>, Option<u32>)| {
            let mut roster = Roster::new(chosen.0, chosen.1);
            let quick = Pace { heartbeat_s: Some(5), properties_factor: Some(2), ..Pace::default() };
            let instances = [Instance { pace: quick, ..instance(1) }, instance(2)];
            for one in instances {
                roster.apply(vec![Change::Hello(one)], start);
                roster.due(start, false).iter().for_each(|beat| roster.answered(beat, true, start));
                roster.registrations = 0; // all in the same phase
            }
            let mut seen = [0; 4];
            for second in 1..=60 {
                let now = start + Duration::from_secs(second);
                for beat in roster.due(now, false) {
                    let at = if beat.process.pid == 1 { 0 } else { 2 };
                    seen[at] += 1;
                    seen[at + 1] += u32::from(beat.properties.is_some());
                    roster.answered(&beat, true, now);
                }
            }
            seen
        };
        assert_eq!(beats((None, None)), [12, 6, 2, 0]);
        assert_eq!(beats((Some(Duration::from_secs(10)), Some(3))), [6, 2, 6, 2]);
    }

    #[test]
    fn who_left_is_not_kept_alive() {
        let now = Instant::now();
        let mut roster = Roster::new(None, None);
        roster.apply(vec![Change::Hello(instance(2))], now);
        let beat = first(&roster, now, false, "new");
        roster.answered(&beat, true, now);
        roster.apply(vec![Change::Bye(instance(2))], now);
        assert_eq!(roster.next(), None);
    }

    #[test]
    fn who_left_before_it_was_registered_is_registered_once() {
        for taken in [true, false] {
            let now = Instant::now();
            let mut roster = Roster::new(None, None);
            roster.apply(vec![Change::Hello(instance(2)), Change::Bye(instance(2))], now);
            let beat = first(&roster, now, true, "what it served is reported under its name");
            roster.answered(&beat, taken, now);
            assert_eq!(roster.next(), None);
        }
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_process() {
        let now = Instant::now();
        let mut roster = Roster::new(None, None);
        let mut later = instance(2);
        later.process.start = 9;
        roster.apply(vec![Change::Hello(instance(2)), Change::Hello(later), Change::Bye(instance(2))], now);
        let beats = roster.due(now, false);
        assert_eq!(beats.len(), 2, "the first one was not heard of yet");
        beats.iter().for_each(|beat| roster.answered(beat, true, now));
        assert_eq!(first(&roster, now + PERIOD, false, "the later one lives").process.start, 9);
    }

    #[test]
    fn instances_that_come_together_do_not_beat_together() {
        let start = Instant::now();
        let mut roster = Roster::new(None, None);
        roster.apply((0..100).map(|pid| Change::Hello(instance(pid))).collect(), start);
        loop {
            let burst = roster.due(start, false);
            assert!(burst.len() <= BURST);
            burst.iter().for_each(|beat| roster.answered(beat, true, start));
            if burst.is_empty() {
                break;
            }
        }
        let second = |at: u64| {
            let of = |live: &&Live| live.due.duration_since(start).as_secs() == at;
            roster.live.values().filter(of).count()
        };
        assert!((15..30).all(|at| (4..=10).contains(&second(at))));
    }

    #[test]
    fn who_could_not_be_registered_is_tried_again_a_period_later() {
        let now = Instant::now();
        let mut roster = Roster::new(None, None);
        roster.apply(vec![Change::Hello(instance(2))], now);
        let beat = first(&roster, now, false, "new");
        roster.answered(&beat, false, now);
        assert!(roster.due(now, false).is_empty());
        assert!(first(&roster, now + PERIOD, false, "again").properties.is_some());
    }

    #[test]
    fn after_a_reconnect_everybody_registers() {
        let now = Instant::now();
        let mut roster = Roster::new(None, None);
        roster.apply(vec![Change::Hello(instance(2))], now);
        let beat = first(&roster, now, false, "new");
        roster.answered(&beat, true, now);
        assert!(!roster.is_behind(now));
        roster.register_all(now);
        assert!(first(&roster, now, true, "to be registered").properties.is_some());
    }
}
