//! Process samples to the meters of OAP's Python dashboard (PVM).
use std::collections::BTreeMap;
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

/// Differences between one sample of a process and the next.
#[derive(Clone, Debug)]
pub struct Meters {
    period_ns: u64,
    next: KernelTime,
    host: Option<HostSample>,
    before: BTreeMap<ProcessKey, (KernelTime, u64)>,
}

impl Meters {
    /// Reports every `period_ns` nanoseconds; 0 reports nothing.
    pub fn new(period_ns: u64) -> Meters {
        Meters { period_ns, next: KernelTime(0), host: None, before: BTreeMap::new() }
    }

    /// Whether it is time for samples.
    pub fn due(&mut self, at: KernelTime) -> bool {
        if self.period_ns == 0 || at < self.next {
            return false;
        }
        self.next = KernelTime(at.0.saturating_add(self.period_ns));
        true
    }

    /// Meters of every instance that has a sample; with each come those that no sample is needed for.
    /// Processor use is that since the sample before: 0 the first time, as the agent's.
    pub fn sampled<'a>(
        &mut self,
        samples: &Samples,
        wall: WallOffset,
        instances: impl Iterator<Item = (&'a Instance, Vec<Meter>)>,
    ) -> Vec<MeterBatch> {
        let host_cpu = self.host.map_or(0.0, |before| host_cpu(before, samples.host));
        self.host = Some(samples.host);
        let by_key: BTreeMap<ProcessKey, &ProcessSample> =
            samples.processes.iter().map(|sample| (sample.key, sample)).collect();
        let batches = instances.filter_map(|(instance, own)| {
            let sample = by_key.get(&instance.process)?;
            let cpu = self.process_cpu(sample, samples.at);
            Some(MeterBatch {
                service: instance.service.clone(),
                instance: instance.name.clone(),
                at_ms: wall.wall_ms(samples.at),
                meters: meters(host_cpu, cpu, samples.host, sample).into_iter().chain(own).collect(),
            })
        });
        let batches = batches.collect();
        self.before =
            samples.processes.iter().map(|sample| (sample.key, (samples.at, sample.cpu_ticks))).collect();
        batches
    }

    /// Percent of one processor since the last sample.
    fn process_cpu(&self, sample: &ProcessSample, at: KernelTime) -> f64 {
        let Some((then, ticks)) = self.before.get(&sample.key) else { return 0.0 };
        let seconds = at.since(*then) as f64 / 1e9;
        percent(sample.cpu_ticks.saturating_sub(*ticks) as f64 / 100.0, seconds)
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

    #[test]
    fn values_are_differences_in_the_widgets_units() {
        let instance = Instance {
            process: KEY,
            role: Role::Worker,
            service: "s".into(),
            name: "i".into(),
            properties: Vec::new(),
            pace: crate::identity::Pace::default(),
        };
        let mut meters = Meters::new(20);
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
    fn a_period_of_zero_is_never_due() {
        assert!(!Meters::new(0).due(KernelTime(5)));
        let mut meters = Meters::new(10);
        assert!(meters.due(KernelTime(5)) && !meters.due(KernelTime(14)) && meters.due(KernelTime(15)));
    }
}
