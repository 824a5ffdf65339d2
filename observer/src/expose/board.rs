//! What is shown: the latest meters of every living instance, and counts. Written by one task, read as copies.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::meter::Meter;
use crate::report::Report;

/// Service and instance.
pub type Name = (Arc<str>, Arc<str>);

/// An instance that is there.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its process.
    pub process: ProcessKey,
    /// What it is.
    pub role: Role,
    /// Its latest meters; none before the first period is over.
    pub meters: Arc<[Meter]>,
}

/// Counts of the observer itself, all since its start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// What was lost, by the name of the reason; those that lost nothing may be left out.
    pub losses: Vec<(&'static str, u64)>,
    /// What was left out on purpose, likewise.
    pub left_out: Vec<(&'static str, u64)>,
    /// Entries of the ring that were read.
    pub records: u64,
    /// What waits for OAP, with the most that may; empty without an OAP.
    pub queues: Vec<Queue>,
}

/// A bounded queue.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// What is in it: `segments`, `meters`, `events`.
    pub of: &'static str,
    /// How many wait.
    pub waiting: usize,
    /// How many may.
    pub capacity: usize,
}

/// What was reported, whether to OAP or to the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reported {
    /// Segments.
    pub segments: u64,
    /// Batches of meters, one for an instance and a period.
    pub meters: u64,
    /// Events; start and end count each.
    pub events: u64,
}

/// Everything that is shown. A copy is cheap: the instances are copied when they change while a copy of them lives.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Who is there.
    pub instances: Arc<BTreeMap<Name, Shown>>,
    /// What was reported.
    pub reported: Reported,
    /// The observer's own counts.
    pub counts: Counts,
}

impl Board {
    /// Takes what a report says.
    pub fn take(&mut self, report: &Report) {
        match report {
            Report::Hello(Instance { process, role, service, name, .. }) => {
                let name = (service.clone(), name.clone());
                let before = self.instances.get(&name).filter(|shown| shown.process == *process);
                let meters = before.map(|shown| shown.meters.clone()).unwrap_or_default();
                let shown = Shown { process: *process, role: *role, meters };
                Arc::make_mut(&mut self.instances).insert(name, shown);
            }
            Report::Bye(Instance { process, service, name, .. }) => {
                let name = (service.clone(), name.clone());
                if self.instances.get(&name).is_some_and(|shown| shown.process == *process) {
                    Arc::make_mut(&mut self.instances).remove(&name);
                }
            }
            Report::Meters(batch) => {
                self.reported.meters += 1;
                let name = (batch.service.clone(), batch.instance.clone());
                if let Some(shown) = Arc::make_mut(&mut self.instances).get_mut(&name) {
                    shown.meters = batch.meters.as_slice().into();
                }
            }
            Report::Role(casting) => {
                let is_shown = |shown: &Shown| shown.process == casting.process;
                if let Some(role) = casting.role
                    && self.instances.values().any(|shown| is_shown(shown) && shown.role != role)
                {
                    let all = Arc::make_mut(&mut self.instances).values_mut();
                    all.filter(|shown| is_shown(shown)).for_each(|shown| shown.role = role);
                }
            }
            Report::Segment(_) => self.reported.segments += 1,
            Report::Event(_) => self.reported.events += 1,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::identity::Casting;
    use crate::meter::MeterBatch;

    /// An instance of the service `shop`.
    pub fn instance(name: &str, pid: u32, role: Role) -> Instance {
        Instance {
            process: ProcessKey { pid, start: 1 },
            role,
            service: "shop".into(),
            name: name.into(),
            properties: Vec::new(),
            pace: crate::identity::Pace::default(),
        }
    }

    /// Meters of it.
    pub fn meters(name: &str, meters: Vec<Meter>) -> Report {
        Report::Meters(MeterBatch { service: "shop".into(), instance: name.into(), at_ms: 1, meters })
    }

    fn shown(board: &Board) -> Vec<(&str, &str, Vec<f64>)> {
        let values = |shown: &Shown| shown.meters.iter().map(|meter| meter.value).collect();
        let all = board.instances.iter();
        all.map(|((_, name), shown)| (&**name, shown.role.name(), values(shown))).collect()
    }

    #[test]
    fn the_latest_meters_of_the_living_are_shown() {
        let mut board = Board::default();
        board.take(&Report::Hello(instance("a", 1, Role::Worker)));
        board.take(&Report::Hello(instance("b", 2, Role::UpgradeMaster)));
        board.take(&meters("a", vec![Meter::new("x", 1.0), Meter::new("y", 2.0)]));
        let before = board.clone();
        board.take(&meters("a", vec![Meter::new("x", 3.0)]));
        board.take(&meters("nobody", vec![Meter::new("x", 4.0)]));
        let role =
            Casting { process: ProcessKey { pid: 2, start: 1 }, role: Some(Role::Master), parent: None };
        board.take(&Report::Role(role));
        assert_eq!(shown(&board), [("a", "worker", vec![3.0]), ("b", "master", vec![])]);
        board.take(&Report::Role(Casting { role: None, ..role }));
        board.take(&Report::Bye(instance("a", 1, Role::Worker)));
        assert_eq!(shown(&board), [("b", "master", vec![])]);
        assert_eq!(shown(&before), [("a", "worker", vec![1.0, 2.0]), ("b", "upgrade-master", vec![])]);
        assert_eq!(board.reported.meters, 3);
    }

    #[test]
    fn another_process_of_the_same_name_has_no_meters_of_the_one_before() {
        let mut board = Board::default();
        let old = instance("a", 1, Role::Worker);
        board.take(&Report::Hello(old.clone()));
        board.take(&meters("a", vec![Meter::new("x", 1.0)]));
        board.take(&Report::Hello(old.clone()));
        assert_eq!(shown(&board), [("a", "worker", vec![1.0])], "it was announced again");
        let mut new = old.clone();
        new.process.start = 2;
        board.take(&Report::Hello(new));
        assert_eq!(shown(&board), [("a", "worker", vec![])]);
        board.take(&Report::Bye(old));
        assert_eq!(shown(&board), [("a", "worker", vec![])], "the old one is gone, not the new one");
    }
}
