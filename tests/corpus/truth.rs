//! What a case's processes really are: by gunicorn's own log, by what the applications print, and by `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::group::Group;
use crate::table::Counts;

/// What a process was started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Logged that it starts gunicorn.
    Master,
    /// Logged that it boots.
    Worker,
    /// Logged by its master.
    DirtyArbiter,
    /// Logged by its arbiter.
    DirtyWorker,
    /// Printed by an application that forks.
    Child,
    /// Anything else of the tree.
    Other,
}

impl Kind {
    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
            Self::DirtyArbiter => "dirty-arbiter",
            Self::DirtyWorker => "dirty-worker",
            Self::Child => "app-child",
            Self::Other => "other",
        }
    }
}

/// One process of the tree.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub pid: u32,
    /// What it was started as, as far as the log says by now.
    pub kind: Kind,
    /// The parent that it was first seen with.
    pub parent: u32,
    /// Its name when it was last seen.
    pub comm: String,
    /// Neither gone nor a zombie.
    pub alive: bool,
    /// The step in which it was found dead.
    pub died: Option<usize>,
}

/// Every process of a case's tree that was seen or logged.
#[derive(Debug)]
pub struct Truth {
    group: Group,
    log: PathBuf,
    members: BTreeMap<u32, Member>,
    order: Vec<u32>,
}

impl Truth {
    /// Of the processes in a group that log to a file.
    pub fn new(group: Group, log: &Path) -> Self {
        Self { group, log: log.to_path_buf(), members: BTreeMap::new(), order: Vec::new() }
    }

    /// What was logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Looks again; who is gone by now died in this step.
    pub fn refresh(&mut self, step: usize) {
        let there = self.group.pids();
        let kinds = kinds(&self.log());
        for pid in there.iter().chain(kinds.keys()) {
            if !self.members.contains_key(pid) {
                let (comm, parent, _) = stat(*pid).unwrap_or_default();
                let member = Member { pid: *pid, kind: Kind::Other, parent, comm, alive: true, died: None };
                self.members.insert(*pid, member);
                self.order.push(*pid);
            }
        }
        for member in self.members.values_mut() {
            if let Some(kind) = kinds.get(&member.pid) {
                member.kind = *kind;
            }
            let now = stat(member.pid).filter(|(_, _, zombie)| !zombie && there.contains(&member.pid));
            if let Some((comm, ..)) = &now {
                member.comm.clone_from(comm);
            }
            if member.alive && now.is_none() {
                member.alive = false;
                member.died = Some(step);
            }
        }
    }

    /// Every process, in the order in which they were seen.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.order.iter().filter_map(|pid| self.members.get(pid))
    }

    /// The role of a living process now; none for bystanders.
    pub fn role(&self, member: &Member) -> Option<&'static str> {
        let parent = self.members.get(&member.parent);
        let has = |kind: Kind| parent.is_some_and(|parent| parent.alive && parent.kind == kind);
        Some(match member.kind {
            Kind::Master if has(Kind::Master) => "upgrade-master",
            Kind::Worker if !has(Kind::Master) => "orphan",
            Kind::DirtyWorker if !has(Kind::DirtyArbiter) => "orphan",
            Kind::Other => return None,
            kind @ (Kind::Master | Kind::Worker | Kind::DirtyArbiter | Kind::DirtyWorker | Kind::Child) => {
                kind.name()
            }
        })
    }

    /// How many of each role are alive.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for role in self.members().filter(|member| member.alive).filter_map(|member| self.role(member)) {
            *counts.entry(role.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Names of the living processes that are none of gunicorn's, sorted.
    pub fn others(&self) -> Vec<String> {
        let others = self.members().filter(|member| member.alive && member.kind == Kind::Other);
        let mut names: Vec<_> = others.map(|member| member.comm.clone()).collect();
        names.sort();
        names
    }

    /// The living processes that a step names.
    pub fn named(&self, name: &str) -> Vec<u32> {
        let (what, at) = match name.split_once('[') {
            Some((what, at)) => (what, at.trim_end_matches(']').parse::<usize>().ok()),
            None => (name, None),
        };
        let plural = what
            .strip_suffix('s')
            .filter(|one| ["master", "worker", "dirty-worker", "app-child"].contains(one));
        let wanted = match what {
            "upgrade" => "upgrade-master",
            _ => plural.unwrap_or(what),
        };
        let fits = |member: &&Member| match self.role(member) {
            Some("upgrade-master") if what == "masters" => true,
            Some(role) => role == wanted,
            None => member.comm == wanted,
        };
        let all = self.members().filter(|member| member.alive).filter(fits).map(|member| member.pid);
        match (at, plural) {
            (Some(at), _) => all.skip(at).take(1).collect(),
            (None, Some(_)) => all.collect(),
            (None, None) => all.take(1).collect(),
        }
    }

    /// A shell's words that make a command a process of this tree.
    pub fn entering(&self) -> [String; 4] {
        self.group.entering()
    }

    /// Ends whatever is left.
    pub fn clear(&self) {
        self.group.clear();
    }
}

/// What the log says of each process.
fn kinds(log: &str) -> BTreeMap<u32, Kind> {
    let mut kinds = BTreeMap::new();
    for line in log.lines() {
        let after = |mark: &str| {
            let rest = line.split_once(mark)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let logger = || line.split_once("] [")?.1.split(']').next()?.trim().parse().ok();
        let found = if line.contains("Starting gunicorn ") {
            logger().map(|pid| (pid, Kind::Master))
        } else {
            [
                ("Booting worker with pid:", Kind::Worker),
                ("Spawned dirty arbiter (pid:", Kind::DirtyArbiter),
                ("Dirty arbiter starting (pid:", Kind::DirtyArbiter),
                ("Spawned dirty worker (pid:", Kind::DirtyWorker),
                ("corpus: child ", Kind::Child),
            ]
            .into_iter()
            .find_map(|(mark, kind)| Some((after(mark)?, kind)))
        };
        kinds.extend(found);
    }
    kinds
}

/// Name, parent, and whether it is a zombie.
fn stat(pid: u32) -> Option<(String, u32, bool)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (comm, rest) = text.split_once('(')?.1.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some((comm.to_owned(), fields.next()?.parse().ok()?, zombie))
}
