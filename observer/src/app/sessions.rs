//! Which TLS libraries the probes are in: those that watched processes map.
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::identity::ProcessKey;
use crate::kernel::Probes;
use crate::kernel::clocks::FileKey;
use crate::process::facts;
use crate::python::openssl;
use crate::python::openssl::Libraries;
use crate::python::openssl::Library;

/// Processes with a TLS library.
#[derive(Debug)]
pub struct Sessions {
    enabled: bool,
    libraries: Libraries,
    users: BTreeMap<ProcessKey, User>,
    /// Files that could not have the probes, of which that was said.
    refused: BTreeSet<FileKey>,
}

/// A process that was looked at.
#[derive(Debug)]
struct User {
    /// Its library, if it has one that is known.
    file: Option<FileKey>,
    /// It was found since those that are reported on were last named.
    is_new: bool,
}

impl Sessions {
    /// In no library yet.
    pub fn new(enabled: bool) -> Sessions {
        Sessions {
            enabled,
            libraries: Libraries::default(),
            users: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Has the probes in the library of a process. Masters are looked at before their first worker serves: they have
    /// imported what makes sockets.
    pub fn look(&mut self, key: ProcessKey, probes: &mut Probes) {
        if !self.enabled || self.users.get(&key).is_some_and(|user| user.file.is_some()) {
            return;
        }
        let file = openssl::library(key.pid).and_then(|library| self.attach(&library, key, probes));
        self.users.insert(key, User { file, is_new: true });
    }

    /// Looks at the processes that are reported on, and takes the probes out of files that none of them uses.
    pub fn keep(&mut self, processes: &[ProcessKey], probes: &mut Probes) {
        if !self.enabled {
            return;
        }
        processes.iter().for_each(|key| self.look(*key, probes));
        let named: BTreeSet<&ProcessKey> = processes.iter().collect();
        self.users.retain(|key, user| named.contains(key) || std::mem::take(&mut user.is_new));
        let used = self.users.values().filter_map(|user| user.file).collect();
        probes.keep_sessions(&used);
    }

    fn attach(&mut self, library: &Library, key: ProcessKey, probes: &mut Probes) -> Option<FileKey> {
        let Library { file, path } = library;
        let places = self.libraries.places(library).map_err(str::to_owned);
        let attached =
            places.and_then(|places| probes.read_sessions(*file, path, &places.begins, &places.ends));
        match attached {
            Ok(()) => Some(*file),
            Err(why) => {
                let is_alive = facts::start(key.pid) == Some(key.start);
                if is_alive && self.refused.insert(*file) {
                    tracing::warn!(
                        key.pid,
                        why,
                        "what workers encrypt with this libssl is not read, but counted as tls"
                    );
                }
                None
            }
        }
    }
}
