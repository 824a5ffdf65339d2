//! TLS sessions: the probes in the libraries that have them, attached while a process uses such a file.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::thread::JoinHandle;

use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::UProbeLinkId;
use aya::programs::uprobe::UProbeScope;

use super::Probes;
use super::attach;
use super::catalog::COLLECTOR;
use super::catalog::TLS;
use super::clocks::FileKey;

/// Files that have the probes.
#[derive(Default)]
pub struct Sessions {
    files: BTreeMap<FileKey, Vec<(&'static str, UProbeLinkId)>>,
}

impl Probes {
    /// Has the probes in a file: each of the first ones at its offset, if it has one, the last one at all of
    /// `ends`.
    ///
    /// # Errors
    /// What the kernel said; then none is there.
    pub fn read_sessions(
        &mut self,
        file: FileKey,
        path: &Path,
        begins: &[Option<u64>],
        ends: &[u64],
    ) -> Result<(), String> {
        if self.sessions.files.contains_key(&file) {
            return Ok(());
        }
        let Some((last, first)) = self.points(TLS).split_last() else {
            return Err("its probe is not loaded".to_owned());
        };
        let ebpf = self.programs.as_mut().ok_or("detached")?;
        // Ends come first, so that no call begins whose end goes by; then writes, so that no request comes without its
        // response; what makes a session comes last, so that one is seen from its beginning or is an old one.
        let ends = ends.iter().map(|end| (last.program, *end));
        let begins = first.iter().map(|point| point.program).zip(begins);
        let begins = begins.filter_map(|(program, begin)| Some((program, (*begin)?)));
        let mut links = Vec::new();
        for (name, offset) in ends.chain(begins) {
            match attach_at(ebpf, name, path, offset) {
                Ok(link) => links.push((name, link)),
                Err(why) => {
                    drop(detach(ebpf, links));
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
            drop(detach(ebpf, links));
        }
    }

    /// Takes all probes out of files; that is done when the threads are over.
    pub(super) fn leave_files(&mut self) -> Vec<JoinHandle<()>> {
        let collector = self.points(COLLECTOR).first();
        let Some(ebpf) = self.programs.as_mut() else { return Vec::new() };
        let links = std::mem::take(&mut self.sessions.files).into_values().flatten();
        let collectors = std::mem::take(&mut self.clocks.files).into_values();
        let collectors = collectors.filter_map(|link| Some((collector?.program, link)));
        detach(ebpf, links.chain(collectors).collect())
    }
}

fn attach_at(ebpf: &mut Ebpf, name: &str, path: &Path, offset: u64) -> Result<UProbeLinkId, String> {
    let program: &mut UProbe =
        ebpf.program_mut(name).ok_or("not in the object")?.try_into().map_err(attach::sentence)?;
    program.attach(offset, path, UProbeScope::AllProcesses).map_err(attach::sentence)
}

/// Takes probes out of their files, each on a thread: it waits for the kernel to be done with each of them, a quarter of a
/// second on some kernels, and can do so for all at once. Who joins the threads waits, too.
fn detach(ebpf: &mut Ebpf, links: Vec<(&'static str, UProbeLinkId)>) -> Vec<JoinHandle<()>> {
    let links = links.into_iter().filter_map(|(name, link)| {
        let program: &mut UProbe = ebpf.program_mut(name)?.try_into().ok()?;
        let link = program.take_link(link).ok()?;
        Some(std::thread::spawn(move || drop(link)))
    });
    links.collect()
}
