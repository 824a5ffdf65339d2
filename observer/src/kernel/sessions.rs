//! TLS sessions: the probes in the libraries that have them, attached while a process uses such a file.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::UProbeLinkId;
use aya::programs::uprobe::UProbeScope;

use super::Probes;
use super::attach;
use super::catalog::TLS;
use super::clocks::FileKey;

/// Files that have the probes.
#[derive(Default)]
pub struct Sessions {
    files: BTreeMap<FileKey, Vec<(&'static str, UProbeLinkId)>>,
}

impl Probes {
    /// Has the probes in a file: each of the first ones at its offset, the last one at all of `ends`.
    ///
    /// # Errors
    /// What the kernel said; then none is there.
    pub fn read_sessions(
        &mut self,
        file: FileKey,
        path: &Path,
        begins: &[u64],
        ends: &[u64],
    ) -> Result<(), String> {
        if self.sessions.files.contains_key(&file) {
            return Ok(());
        }
        let Some((last, first)) = self.points(TLS).split_last() else {
            return Err("its probe is not loaded".to_owned());
        };
        let ebpf = self.programs.as_mut().ok_or("detached")?;
        // Ends come first, so that no call begins whose end goes by.
        let ends = ends.iter().map(|end| (last.program, *end));
        let begins = first.iter().map(|point| point.program).zip(begins.iter().copied());
        let mut links = Vec::new();
        for (name, offset) in ends.chain(begins) {
            match attach_at(ebpf, name, path, offset) {
                Ok(link) => links.push((name, link)),
                Err(why) => {
                    detach(ebpf, links);
                    return Err(why);
                }
            }
        }
        self.sessions.files.insert(file, links);
        Ok(())
    }

    /// Takes the probes out of files that no process uses.
    pub fn keep_sessions(&mut self, used: &BTreeSet<FileKey>) {
        let Some(ebpf) = self.programs.as_mut() else { return };
        let files = &mut self.sessions.files;
        let unused: Vec<FileKey> = files.keys().filter(|file| !used.contains(file)).copied().collect();
        for links in unused.iter().filter_map(|file| files.remove(file)) {
            detach(ebpf, links);
        }
    }
}

fn attach_at(ebpf: &mut Ebpf, name: &str, path: &Path, offset: u64) -> Result<UProbeLinkId, String> {
    let program: &mut UProbe =
        ebpf.program_mut(name).ok_or("not in the object")?.try_into().map_err(attach::sentence)?;
    program.attach(offset, path, UProbeScope::AllProcesses).map_err(attach::sentence)
}

/// Begins go first, so that no call is left under way.
fn detach(ebpf: &mut Ebpf, links: Vec<(&'static str, UProbeLinkId)>) {
    for (name, link) in links.into_iter().rev() {
        let Some(Ok(program)) = ebpf.program_mut(name).map(<&mut UProbe>::try_from) else { continue };
        if let Err(error) = program.detach(link) {
            tracing::debug!(%error, "a probe stays in a file");
        }
    }
}
