//! Which TLS libraries the probes are in: those that instances map.
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::identity::ProcessKey;
use crate::kernel::Probes;
use crate::kernel::clocks::FileKey;
use crate::process::facts;
use crate::python::openssl::Libraries;
use crate::python::openssl::Library;
use crate::python::openssl::Places;

/// How often a process without a library is looked at: it may import one late.
const LOOKS: u8 = 3;

/// Processes with a TLS library.
#[derive(Debug)]
pub struct Sessions {
    enabled: bool,
    libraries: Libraries,
    users: BTreeMap<ProcessKey, User>,
    /// Files that could not have the probes, of which that was said.
    refused: BTreeSet<FileKey>,
    /// It was said why connections are not read.
    explained: bool,
}

/// A process that was looked at.
#[derive(Debug)]
struct User {
    /// Its library, if it has one that is known.
    file: Option<FileKey>,
    looks: u8,
}

impl Sessions {
    /// In no library yet.
    pub fn new(enabled: bool) -> Sessions {
        Sessions {
            enabled,
            libraries: Libraries::default(),
            users: BTreeMap::new(),
            refused: BTreeSet::new(),
            explained: false,
        }
    }

    /// Has the probes in the library of a process. Masters are looked at when they make their first slot: they have
    /// imported what makes sockets by then.
    pub fn look(&mut self, key: ProcessKey, probes: &mut Probes) {
        let (file, looks) = self.users.get(&key).map_or((None, 0), |user| (user.file, user.looks));
        if !self.enabled || file.is_some() || looks >= LOOKS {
            return;
        }
        let found = self.libraries.find(key.pid);
        let file = found.and_then(|(library, places)| self.attach(&library, places, key, probes));
        self.users.insert(key, User { file, looks: looks + 1 });
    }

    /// A process ended.
    pub fn ended(&mut self, key: ProcessKey) {
        self.users.remove(&key);
    }

    /// Takes the probes out of files whose processes have all ended.
    pub fn forget_unused(&mut self, probes: &mut Probes) {
        let used = self.users.values().filter_map(|user| user.file).collect();
        probes.keep_sessions(&used);
    }

    /// Says once why encrypted connections are counted, when the first was.
    pub fn explain(&mut self, encrypted: u64) {
        let without = self.users.iter().find(|(_, user)| user.file.is_none());
        if let Some((ProcessKey { pid, .. }, _)) = without.filter(|_| encrypted > 0 && !self.explained) {
            self.explained = true;
            tracing::warn!(
                pid,
                "connections are encrypted, and this process has no OpenSSL whose functions are known: \
                 they are counted as tls"
            );
        }
    }

    fn attach(
        &mut self,
        library: &Library,
        places: Result<Places, &'static str>,
        key: ProcessKey,
        probes: &mut Probes,
    ) -> Option<FileKey> {
        let Library { file, path } = library;
        let attached = places
            .map_err(str::to_owned)
            .and_then(|places| probes.read_sessions(*file, path, &places.begins, &places.ends));
        match attached {
            Ok(()) => Some(*file),
            Err(why) => {
                let is_alive = facts::start(key.pid) == Some(key.start);
                if is_alive && self.refused.insert(*file) {
                    tracing::warn!(
                        key.pid,
                        why,
                        "what workers encrypt with this OpenSSL is not read, but counted as tls"
                    );
                }
                None
            }
        }
    }
}
