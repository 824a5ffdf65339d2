//! A control group for each case: it says which processes are the case's, whatever became of their parents.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use harness::gunicorn::kill;
use harness::stage::must;
use harness::stage::wait;
use rustix::process::Signal;

/// How long the kernel may take to empty a group that was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of the unified hierarchy, and one that limits memory where a case wants it.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    memory: Option<PathBuf>,
}

impl Group {
    /// Makes one; `memory` limits the whole of it, in MiB.
    pub fn make(name: &str, memory: Option<u64>) -> Self {
        let root = mounted("cgroup2", "")
            .unwrap_or_else(|| panic!("no cgroup2 is mounted: mount one on /sys/fs/cgroup"));
        let own = format!("sw-corpus-{}", process::id());
        let dir = root.join(&own).join(name);
        must(fs::create_dir_all(&dir), format_args!("make the control group {}", dir.display()));
        let mut group = Self { dir, memory: None };
        if let Some(limit) = memory {
            group.limit(&root, &own, name, limit << 20);
        }
        group
    }

    fn limit(&mut self, root: &Path, own: &str, name: &str, bytes: u64) {
        if let Some(old) = mounted("cgroup", "memory") {
            let dir = old.join(own).join(name);
            must(fs::create_dir_all(&dir), format_args!("make the control group {}", dir.display()));
            must(fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string()), "limit memory");
            fs::write(dir.join("memory.memsw.limit_in_bytes"), bytes.to_string()).ok(); // only with swap accounting
            self.memory = Some(dir);
            return;
        }
        for dir in [root.to_path_buf(), root.join(own)] {
            must(
                fs::write(dir.join("cgroup.subtree_control"), "+memory"),
                format_args!("limit memory below {}", dir.display()),
            );
        }
        must(fs::write(self.dir.join("memory.max"), bytes.to_string()), "limit memory");
        fs::write(self.dir.join("memory.swap.max"), "0").ok(); // only with swap accounting
    }

    /// A shell's words that enter it before they run what follows.
    pub fn entering(&self) -> [String; 4] {
        let files = [Some(&self.dir), self.memory.as_ref()].into_iter().flatten();
        let enter: Vec<_> = files.map(|dir| format!("echo $$ > '{}/cgroup.procs'", dir.display())).collect();
        ["/bin/sh".into(), "-c".into(), format!("{}; exec \"$@\"", enter.join("; ")), "sh".into()]
    }

    /// Its living processes.
    pub fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Ends what is left in it.
    pub fn clear(&self) {
        wait(PATIENCE, || {
            let left = self.pids();
            for pid in &left {
                kill(*pid, Signal::KILL);
                kill(*pid, Signal::CONT);
            }
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.clear();
        for dir in [Some(&self.dir), self.memory.as_ref()].into_iter().flatten() {
            wait(PATIENCE, || fs::remove_dir(dir).ok());
            dir.parent().map(fs::remove_dir); // the last one takes the folder of this run with it
        }
    }
}

/// Where a hierarchy is mounted.
fn mounted(kind: &str, controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, found, options) = (fields.next()?, fields.next()?, fields.next()?);
        let has = controller.is_empty() || options.split(',').any(|option| option == controller);
        (found == kind && has).then(|| PathBuf::from(path))
    })
}
