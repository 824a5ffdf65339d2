//! The page: meters of the living under their names for Prometheus, then the observer's own numbers.
use std::borrow::Cow;
use std::collections::BTreeMap;

use observer_ebpf::counter::DROPS;

use super::board::Board;
use super::board::Name;
use super::own::Own;
use super::text::Text;
use crate::identity::Role;
use crate::kernel::costs::Cost;
use crate::meter::Meter;
use crate::meter::definition::DEFINITIONS;
use crate::meter::definition::Definition;
use crate::meter::definition::Kind;
use crate::stats::OMISSIONS;
use crate::stats::REASONS;

const ROLES: [Role; 7] = [
    Role::Master,
    Role::UpgradeMaster,
    Role::Worker,
    Role::DirtyArbiter,
    Role::DirtyWorker,
    Role::AppChild,
    Role::Orphan,
];

/// What does not change in a run.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Size of the ring in bytes.
    pub ring_bytes: u32,
    /// Each probe with the variant that is attached, or `none`.
    pub probes: Vec<(&'static str, &'static str)>,
}

/// Writes the page. Without `costs` or `own` their families are left out: nobody counted.
pub fn page(about: &About, board: &Board, costs: Option<&[Cost]>, own: Option<Own>) -> String {
    let mut text = Text::default();
    meters(&mut text, board);
    run(&mut text, about);
    counts(&mut text, board);
    if let Some(costs) = costs {
        programs(&mut text, costs);
    }
    if let Some(own) = own {
        process(&mut text, own);
    }
    text.finish()
}

fn meters(text: &mut Text, board: &Board) {
    let mut by_name: BTreeMap<&str, Vec<(&Name, &Meter)>> = BTreeMap::new();
    for (name, shown) in board.instances.iter() {
        for meter in shown.meters.iter() {
            by_name.entry(meter.name).or_default().push((name, meter));
        }
    }
    for definition in DEFINITIONS {
        let Some(values) = by_name.get(definition.name) else { continue };
        let mut family = text.family(definition.exposed, definition.kind, &help(definition));
        for ((service, instance), meter) in values {
            let whose = [("service", &**service), ("instance", &**instance)];
            let own = meter.labels.iter().map(|(name, value)| (*name, value.as_str()));
            family.sample(whose.into_iter().chain(own), meter.value * definition.scale);
        }
    }
}

/// The help of a definition is in OAP's unit.
fn help(definition: &Definition) -> Cow<'static, str> {
    const UNITS: [(&str, &str); 3] =
        [("in percent", "as a ratio"), ("in milliseconds", "in seconds"), ("in microseconds", "in seconds")];
    if definition.scale == 1.0 {
        return definition.help.into();
    }
    UNITS.iter().fold(definition.help.into(), |help: Cow<'_, str>, (small, base)| {
        if help.contains(small) { help.replace(small, base).into() } else { help }
    })
}

fn run(text: &mut Text, about: &About) {
    text.family("sw_observe_build_info", Kind::Gauge, "The release, as a label; always 1.")
        .sample([("version", env!("CARGO_PKG_VERSION"))], 1);
    let help = "The variant that each probe is attached by, as a label, or none; always 1.";
    let mut family = text.family("sw_observe_probe_info", Kind::Gauge, help);
    for (probe, variant) in &about.probes {
        family.sample([("probe", *probe), ("variant", *variant)], 1);
    }
    text.family("sw_observe_ring_bytes", Kind::Gauge, "Size of the ring between kernel and observer.")
        .sample([], u64::from(about.ring_bytes));
}

fn counts(text: &mut Text, board: &Board) {
    text.family("sw_observe_records_total", Kind::Counter, "Records that were read from the ring.")
        .sample([], board.counts.records);
    let help = "What was lost, by reason; the reasons are in README.md.";
    let mut family = text.family("sw_observe_lost_total", Kind::Counter, help);
    let reasons = DROPS.iter().map(|(_, name)| *name).chain(REASONS.iter().map(|(_, name)| *name));
    for reason in reasons {
        let losses = board.counts.losses.iter().filter(|(name, _)| *name == reason);
        family.sample([("reason", reason)], losses.map(|(_, n)| n).sum::<u64>());
    }
    let help = "Requests that were left out on purpose, by reason; the reasons are in README.md.";
    let mut family = text.family("sw_observe_left_out_total", Kind::Counter, help);
    for (_, reason) in OMISSIONS {
        let left_out = board.counts.left_out.iter().filter(|(name, _)| *name == reason);
        family.sample([("reason", reason)], left_out.map(|(_, n)| n).sum::<u64>());
    }
    let help = "Instances that are there, by role.";
    let mut family = text.family("sw_observe_instances", Kind::Gauge, help);
    for role in ROLES {
        let there = board.instances.values().filter(|shown| shown.role == role).count();
        family.sample([("role", role.name())], there as u64);
    }
    let reported = board.reported;
    let help = "What was reported, to OAP or to the terminal: segments, events, and meters, all of an instance as one.";
    text.family("sw_observe_reports_total", Kind::Counter, help)
        .sample([("kind", "segments")], reported.segments)
        .sample([("kind", "meters")], reported.meters)
        .sample([("kind", "events")], reported.events);
    if !board.counts.queues.is_empty() {
        let help = "What waits for OAP.";
        let mut family = text.family("sw_observe_queue_entries", Kind::Gauge, help);
        for queue in &board.counts.queues {
            family.sample([("kind", queue.of)], queue.waiting as u64);
        }
        let help = "How much may wait for OAP before the oldest is dropped.";
        let mut family = text.family("sw_observe_queue_capacity_entries", Kind::Gauge, help);
        for queue in &board.counts.queues {
            family.sample([("kind", queue.of)], queue.capacity as u64);
        }
    }
}

fn programs(text: &mut Text, costs: &[Cost]) {
    let labels = |cost: &Cost| [("probe", cost.probe), ("program", cost.program)];
    let help = "Runs of each BPF program, as the kernel counts them.";
    let mut family = text.family("sw_observe_program_runs_total", Kind::Counter, help);
    for cost in costs {
        family.sample(labels(cost), cost.runs);
    }
    let help = "Time that each BPF program ran for, as the kernel accounts it.";
    let mut family = text.family("sw_observe_program_run_seconds_total", Kind::Counter, help);
    for cost in costs {
        family.sample(labels(cost), cost.run_ns as f64 / 1e9);
    }
    let help = "Runs of a BPF program that the kernel passed over, because its processor was busy with another or in a bpf() call.";
    let mut family = text.family("sw_observe_program_misses_total", Kind::Counter, help);
    for (cost, misses) in costs.iter().filter_map(|cost| Some((cost, cost.misses?))) {
        family.sample(labels(cost), misses as f64);
    }
}

fn process(text: &mut Text, own: Own) {
    let help = "Processor time of sw-observe itself, user and system.";
    text.family("process_cpu_seconds_total", Kind::Counter, help).sample([], own.cpu_s);
    let help = "Resident memory of sw-observe itself.";
    text.family("process_resident_memory_bytes", Kind::Gauge, help).sample([], own.resident_bytes);
    let help = "When sw-observe started, since 1970.";
    text.family("process_start_time_seconds", Kind::Gauge, help).sample([], own.started_s);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expose::board::Counts;
    use crate::expose::board::Queue;
    use crate::expose::board::tests::instance;
    use crate::expose::board::tests::meters as report;
    use crate::report::Report;

    fn shown(board: &Board) -> String {
        page(&About::default(), board, None, None)
    }

    fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
        page.lines().filter(|line| line.starts_with(start)).collect()
    }

    #[test]
    fn meters_have_base_units_and_say_whose_they_are() {
        let mut board = Board::default();
        board.take(&Report::Hello(instance("b(2)", 2, Role::Worker)));
        board.take(&Report::Hello(instance("a(1)", 1, Role::Master)));
        let cpu = |value| Meter::new("instance_pvm_process_cpu_utilization", value);
        board.take(&report("b(2)", vec![cpu(50.0)]));
        let threads = Meter::new("instance_pvm_thread_active_count", 3.0).label("listener", "a\"b");
        board.take(&report("a(1)", vec![threads, cpu(12.5)]));
        let page = shown(&board);
        let wanted = [
            "# HELP gunicorn_process_cpu_ratio Processor use of the process since the last report, as a ratio of one processor.",
            "# TYPE gunicorn_process_cpu_ratio gauge",
            "gunicorn_process_cpu_ratio{service=\"shop\",instance=\"a(1)\"} 0.125",
            "gunicorn_process_cpu_ratio{service=\"shop\",instance=\"b(2)\"} 0.5",
            "# HELP gunicorn_process_threads Threads of the process.",
            "# TYPE gunicorn_process_threads gauge",
            "gunicorn_process_threads{service=\"shop\",instance=\"a(1)\",listener=\"a\\\"b\"} 3",
        ];
        assert_eq!(page.lines().take(wanted.len()).collect::<Vec<_>>(), wanted);

        board.take(&report("a(1)", vec![cpu(1.0)]));
        board.take(&Report::Bye(instance("b(2)", 2, Role::Worker)));
        let page = shown(&board);
        assert!(!page.contains("b(2)") && !page.contains("gunicorn_process_threads"), "{page}");
    }

    #[test]
    fn every_reason_and_every_role_is_there_from_the_start() {
        let mut board = Board::default();
        let page = shown(&board);
        assert_eq!(lines(&page, "sw_observe_lost_total{").len(), DROPS.len() + REASONS.len());
        let instances = lines(&page, "sw_observe_instances{");
        assert_eq!(instances.len(), ROLES.len());
        let zero = |line: &&str| line.ends_with(" 0");
        assert!(lines(&page, "sw_observe_lost_total{").iter().chain(&instances).all(zero), "{page}");
        assert!(!page.contains("queue_entries"), "{page}");

        board.take(&Report::Hello(instance("a", 1, Role::Worker)));
        board.counts = Counts {
            left_out: vec![("ignored_path", 4)],
            losses: vec![("ring_full", 3), ("gap", 2)],
            records: 7,
            queues: vec![Queue { of: "segments", waiting: 4, capacity: 10 }],
        };
        let page = shown(&board);
        for line in [
            "sw_observe_lost_total{reason=\"ring_full\"} 3",
            "sw_observe_lost_total{reason=\"gap\"} 2",
            "sw_observe_lost_total{reason=\"cut\"} 0",
            "sw_observe_left_out_total{reason=\"ignored_path\"} 4",
            "sw_observe_left_out_total{reason=\"not_sampled\"} 0",
            "sw_observe_instances{role=\"worker\"} 1",
            "sw_observe_records_total 7",
            "sw_observe_queue_entries{kind=\"segments\"} 4",
            "sw_observe_queue_capacity_entries{kind=\"segments\"} 10",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing:\n{page}");
        }
    }

    #[test]
    fn what_does_not_change_is_a_label() {
        let about = About { ring_bytes: 4096, probes: vec![("fork", "kprobe"), ("accept", "none")] };
        let costs = [Cost { probe: "fork", program: "fork_kprobe", runs: 2, run_ns: 1_500, misses: Some(3) }];
        let own = Own { cpu_s: 0.25, resident_bytes: 9, started_s: 1e9 };
        let page = page(&about, &Board::default(), Some(&costs), Some(own));
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        for line in [
            concat!("sw_observe_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "sw_observe_probe_info{probe=\"fork\",variant=\"kprobe\"} 1",
            "sw_observe_probe_info{probe=\"accept\",variant=\"none\"} 1",
            "sw_observe_ring_bytes 4096",
            "sw_observe_program_runs_total{probe=\"fork\",program=\"fork_kprobe\"} 2",
            "sw_observe_program_run_seconds_total{probe=\"fork\",program=\"fork_kprobe\"} 0.0000015",
            "sw_observe_program_misses_total{probe=\"fork\",program=\"fork_kprobe\"} 3",
            "process_cpu_seconds_total 0.25",
            "process_resident_memory_bytes 9",
            "process_start_time_seconds 1000000000",
        ] {
            assert!(samples.contains(&line), "{line} is missing:\n{page}");
        }
    }

    #[test]
    fn no_help_names_a_unit_that_its_values_do_not_have() {
        for definition in DEFINITIONS.iter().filter(|definition| definition.scale != 1.0) {
            let help = help(definition).to_lowercase();
            assert!(
                ["in percent", "millisecond", "microsecond"].iter().all(|unit| !help.contains(unit)),
                "{help}"
            );
            assert_ne!(help, definition.help.to_lowercase(), "its unit is not named as it should be");
        }
    }
}
