//! Process samples to the meters of OAP's Python dashboard (PVM).
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::KernelTime;
use crate::clock::WallOffset;
use crate::identity::Facts;
use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::meter::sample::HostSample;
use crate::meter::sample::ProcessSample;
use crate::meter::sample::Samples;

pub mod definition;
pub mod load;
mod python;
pub mod sample;

/// One value of one meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Meter {
    /// Name on the wire, one of [`definition::DEFINITIONS`].
    pub name: &'static str,
    /// What tells values of one name apart: name and value of each label.
    pub labels: Vec<(&'static str, String)>,
    /// Value in the unit that OAP's rule and widget mean.
    pub value: f64,
}

impl Meter {
    /// A value without labels.
    pub fn new(name: &'static str, value: f64) -> Meter {
        Meter { name, labels: Vec::new(), value }
    }

    /// With a label more.
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Meter {
        self.labels.push((name, value.into()));
        self
    }

    /// Name and labels as people read them: `name{label=value}`.
    pub fn key(&self) -> String {
        if self.labels.is_empty() {
            return self.name.to_owned();
        }
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// The meters of one instance at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterBatch {
    /// SkyWalking service name.
    pub service: Arc<str>,
    /// SkyWalking service instance name.
    pub instance: Arc<str>,
    /// Wall time in milliseconds since 1970.
    pub at_ms: i64,
    /// The values.
    pub meters: Vec<Meter>,
}

/// The agent's own period, in nanoseconds.
const PERIOD_NS: u64 = 20_000_000_000;

/// When meters are due, and differences between one sample of a process and the next.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Nanoseconds, where that is chosen for all.
    period_ns: Option<u64>,
    rounds: BTreeMap<u64, Round>,
    /// The host when anything was sampled last.
    host: Option<HostSample>,
    before: BTreeMap<ProcessKey, (KernelTime, u64)>,
}

/// Those that are reported with the same period.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    next: KernelTime,
    /// The host when they were sampled last.
    host: Option<HostSample>,
}

impl Meters {
    /// Reports every `period_ns` nanoseconds, 0 reports nothing; where nothing is chosen, each instance says it for itself.
    pub fn new(period_ns: Option<u64>) -> Meters {
        Meters { period_ns, rounds: BTreeMap::new(), host: None, before: BTreeMap::new() }
    }

    /// Whether it is time for samples, and of whom; also while there is nobody, so that the first has a host to compare with.
    pub fn due<'a>(
        &mut self,
        at: KernelTime,
        instances: impl Iterator<Item = &'a Instance>,
    ) -> Option<Vec<ProcessKey>> {
        let common = self.period_ns.unwrap_or(PERIOD_NS);
        if common == 0 {
            return None;
        }
        let mut members = BTreeMap::from([(common, Vec::new())]);
        for instance in instances {
            members.entry(self.period(instance)).or_default().push(instance.process);
        }
        self.rounds.retain(|period, _| members.contains_key(period));
        let mut due = None;
        for (period, members) in members {
            let round = self.rounds.entry(period).or_default();
            if at >= round.next {
                round.next = KernelTime(at.0.saturating_add(period));
                due.get_or_insert_with(Vec::new).extend(members);
            }
        }
        due
    }

    /// In nanoseconds.
    fn period(&self, instance: &Instance) -> u64 {
        let own = || instance.pace.meter_period_s.map(|seconds| u64::from(seconds) * 1_000_000_000);
        self.period_ns.or_else(own).unwrap_or(PERIOD_NS)
    }

    /// Meters of every instance that has a sample; with each come those that no sample is needed for.
    /// Processor use is that since the sample before: 0 the first time, as the agent's.
    pub fn sampled<'a>(
        &mut self,
        samples: &Samples,
        wall: WallOffset,
        instances: impl Iterator<Item = (&'a Instance, Vec<Meter>)>,
    ) -> Vec<MeterBatch> {
        let by_key: BTreeMap<ProcessKey, &ProcessSample> =
            samples.processes.iter().map(|sample| (sample.key, sample)).collect();
        let mut sampled = BTreeSet::new();
        let batches = instances.filter_map(|(instance, own)| {
            let sample = by_key.get(&instance.process)?;
            let period = self.period(instance);
            sampled.insert(period);
            let before = self.rounds.get(&period).and_then(|round| round.host).or(self.host);
            let host_cpu = before.map_or(0.0, |before| host_cpu(before, samples.host));
            let cpu = self.process_cpu(sample, samples.at);
            Some(MeterBatch {
                service: instance.service.clone(),
                instance: instance.name.clone(),
                at_ms: wall.wall_ms(samples.at),
                meters: meters(host_cpu, cpu, samples.host, sample).into_iter().chain(own).collect(),
            })
        });
        let batches = batches.collect();
        for period in sampled {
            self.rounds.entry(period).or_default().host = Some(samples.host);
        }
        self.host = Some(samples.host);
        batches
    }

    /// A process ended.
    pub fn forget(&mut self, process: ProcessKey) {
        self.before.remove(&process);
    }

    /// Percent of one processor since the last sample.
    fn process_cpu(&mut self, sample: &ProcessSample, at: KernelTime) -> f64 {
        let before = self.before.insert(sample.key, (at, sample.cpu_ticks));
        let Some((then, ticks)) = before else { return 0.0 };
        let seconds = at.since(then) as f64 / 1e9;
        percent(sample.cpu_ticks.saturating_sub(ticks) as f64 / 100.0, seconds)
    }
}

/// The agent's names. Memory of a process is sent in percent, as the widget shows it: the agent sends a fraction,
/// which OAP rounds up to 1.
fn meters(host_cpu: f64, cpu: f64, host: HostSample, process: &ProcessSample) -> Vec<Meter> {
    let memory = host.memory_bytes as f64;
    let used = host.memory_bytes.saturating_sub(host.available_bytes) as f64;
    vec![
        Meter::new("instance_pvm_total_cpu_utilization", host_cpu),
        Meter::new("instance_pvm_process_cpu_utilization", cpu),
        Meter::new("instance_pvm_total_mem_utilization", percent(used, memory)),
        Meter::new("instance_pvm_process_mem_utilization", percent(process.resident_bytes as f64, memory)),
        Meter::new("instance_pvm_thread_active_count", process.threads as f64),
    ]
    .into_iter()
    .chain(process.python.iter().flat_map(python::meters))
    .collect()
}

/// Whether the environment of an instance's master leaves a meter on, as the agent would have read it.
pub fn is_on(master: &Facts, name: &str) -> bool {
    let off =
        |variable: &str| master.variable(variable).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let is_pvm = name.starts_with("instance_pvm_");
    !(off("SW_AGENT_METER_REPORTER_ACTIVE") || is_pvm && off("SW_AGENT_PVM_METER_REPORTER_ACTIVE"))
}

/// In seconds, of nanoseconds; a name of ours, since the agent has nothing like it.
pub fn heartbeat_age(ns: u64) -> Meter {
    Meter::new("instance_gunicorn_heartbeat_age", ns as f64 / 1e9)
}

fn host_cpu(before: HostSample, now: HostSample) -> f64 {
    let busy = now.busy_ticks.saturating_sub(before.busy_ticks);
    percent(busy as f64, now.total_ticks.saturating_sub(before.total_ticks) as f64)
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Pace;
    use crate::identity::Role;

    #[test]
    fn a_masters_environment_switches_meters_off() {
        let on = |variable: &str, value: &str, name: &str| {
            let environ = vec![(variable.to_owned(), value.to_owned())];
            is_on(&Facts { environ, ..Facts::default() }, name)
        };
        let (all, pvm) = ("SW_AGENT_METER_REPORTER_ACTIVE", "SW_AGENT_PVM_METER_REPORTER_ACTIVE");
        assert!(!on(all, "False", "instance_pvm_gc_g0") && !on(all, "false", "instance_gunicorn_busy"));
        assert!(!on(pvm, "false", "instance_pvm_gc_g0") && on(pvm, "false", "instance_gunicorn_busy"));
        for value in ["", "0", "true", "no"] {
            assert!(on(all, value, "instance_pvm_gc_g0") && on(pvm, value, "instance_pvm_gc_g0"), "{value}");
        }
    }

    const KEY: ProcessKey = ProcessKey { pid: 7, start: 1 };

    fn samples(at_s: u64, busy: u64, cpu_ticks: u64) -> Samples {
        Samples {
            at: KernelTime(at_s * 1_000_000_000),
            host: HostSample {
                busy_ticks: busy,
                total_ticks: at_s * 200,
                memory_bytes: 1_000,
                available_bytes: 750,
            },
            processes: vec![ProcessSample {
                key: KEY,
                cpu_ticks,
                resident_bytes: 50,
                threads: 3,
                python: None,
            }],
            queues: Default::default(),
        }
    }

    fn instance(pid: u32, meter_period_s: Option<u32>) -> Instance {
        Instance {
            process: ProcessKey { pid, ..KEY },
            role: Role::Worker,
            service: "s".into(),
            name: "i".into(),
            properties: Vec::new(),
            pace: Pace { meter_period_s, ..Pace::default() },
        }
    }

    #[test]
    fn values_are_differences_in_the_widgets_units() {
        let instance = instance(KEY.pid, None);
        let mut meters = Meters::new(Some(20));
        meters.sampled(&samples(10, 100, 500), WallOffset(0), [(&instance, Vec::new())].into_iter());
        let batches = meters.sampled(
            &samples(20, 1_100, 750),
            WallOffset(0),
            [(&instance, vec![heartbeat_age(1_500_000_000)])].into_iter(),
        );
        let values: Vec<f64> =
            batches.iter().flat_map(|batch| batch.meters.iter().map(|m| m.value)).collect();
        // Host: 1000 of 2000 ticks; process: 250 ticks are 2.5 s of 10 s.
        assert_eq!(values, [50.0, 25.0, 25.0, 5.0, 3.0, 1.5]);
    }

    #[test]
    fn a_period_is_each_instances_own_unless_one_is_chosen() {
        let all = [instance(1, Some(10)), instance(2, None), instance(3, Some(10))];
        let due = |meters: &mut Meters, at_s: u64| {
            let due = meters.due(KernelTime(at_s * 1_000_000_000), all.iter());
            due.map(|due| due.iter().map(|key| key.pid).collect::<Vec<_>>())
        };
        let mut own = Meters::new(None);
        let found = [5, 14, 15, 24, 25, 35].map(|at_s| due(&mut own, at_s));
        let (all_three, quick) = (|| Some(vec![1, 3, 2]), || Some(vec![1, 3]));
        assert_eq!(found, [all_three(), None, quick(), None, all_three(), quick()]);
        let mut chosen = Meters::new(Some(30_000_000_000));
        let found = [5, 34, 35].map(|at_s| due(&mut chosen, at_s));
        assert_eq!(found, [Some(vec![1, 2, 3]), None, Some(vec![1, 2, 3])]);
        assert_eq!(due(&mut Meters::new(Some(0)), 5), None);
    }

    #[test]
    fn the_host_is_compared_with_what_it_was_in_the_same_round() {
        let (quick, slow) = (instance(KEY.pid, Some(10)), instance(KEY.pid, None));
        let mut meters = Meters::new(None);
        let mut host_cpu = |instance, at_s, busy| {
            let samples = samples(at_s, busy, 0);
            let batches = meters.sampled(&samples, WallOffset(0), [(instance, Vec::new())].into_iter());
            batches[0].meters[0].value
        };
        assert_eq!((host_cpu(&quick, 10, 0), host_cpu(&slow, 10, 0)), (0.0, 0.0));
        assert_eq!(host_cpu(&quick, 20, 2_000), 100.0);
        assert_eq!(host_cpu(&slow, 30, 2_000), 50.0);
        assert_eq!(host_cpu(&quick, 30, 2_000), 0.0);
    }
}
