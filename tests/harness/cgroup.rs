//! Control groups made for one test: a limit of memory, and paths as container engines make them.
#![expect(clippy::panic, reason = "the harness ends a test by panicking")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::stage::must;
use crate::stage::wait;

/// How long it may take until a killed process has left its group.
const EMPTY: Duration = Duration::from_secs(10);

/// A control group; it is removed, and what is left in it moved out, when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    top: PathBuf,
    /// The root of its hierarchy.
    root: PathBuf,
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    root: PathBuf,
    is_v2: bool,
    options: String,
}

impl Cgroup {
    /// A group of the version 2 hierarchy.
    pub fn v2(path: &str) -> Self {
        let found = hierarchies().into_iter().find(|one| one.is_v2);
        let Some(found) = found else {
            panic!("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
        };
        Self::make(found.root, path)
    }

    /// A group of a hierarchy without controllers (a named one, or version 2): only its path means something.
    pub fn plain(path: &str) -> Self {
        let found = hierarchies().into_iter().find(|one| one.is_v2 || one.options.contains("name="));
        let Some(found) = found else {
            panic!(
                "no cgroup hierarchy is mounted below /sys/fs/cgroup: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
            )
        };
        Self::make(found.root, path)
    }

    /// A group with at most so many MiB of memory and no swap, of whichever version has the memory controller.
    pub fn memory(path: &str, mib: u64) -> Self {
        let is_memory = |one: &Hierarchy| {
            if one.is_v2 {
                fs::read_to_string(one.root.join("cgroup.controllers"))
                    .is_ok_and(|list| list.split_whitespace().any(|name| name == "memory"))
            } else {
                one.options.split(',').any(|option| option == "memory")
            }
        };
        let Some(found) = hierarchies().into_iter().find(is_memory) else {
            panic!(
                "no memory cgroup here, in neither version: boot with cgroup_enable=memory, or run this test \
                 where /sys/fs/cgroup has the memory controller"
            )
        };
        let bytes = (mib << 20).to_string();
        if found.is_v2 {
            write(&found.root.join("cgroup.subtree_control"), "+memory");
            let group = Self::make(found.root, path);
            write(&group.path.join("memory.max"), &bytes);
            fs::write(group.path.join("memory.swap.max"), "0").ok(); // absent on a kernel without swap
            return group;
        }
        let group = Self::make(found.root, path);
        write(&group.path.join("memory.limit_in_bytes"), &bytes);
        fs::write(group.path.join("memory.memsw.limit_in_bytes"), &bytes).ok(); // likewise
        group
    }

    fn make(root: PathBuf, path: &str) -> Self {
        let path_in = Path::new(path.trim_start_matches('/'));
        let top = path_in.iter().next().map_or_else(|| root.clone(), |first| root.join(first));
        let path = root.join(path_in);
        must(fs::create_dir_all(&path), format_args!("make the cgroup {}", path.display()));
        Self { path, top, root }
    }

    /// The file that a process writes `0` to in order to enter.
    pub fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Puts a process in.
    pub fn add(&self, pid: u32) {
        write(&self.entrance(), &pid.to_string());
    }

    /// Kills everything in it, which only version 2 can.
    pub fn kill(&self) {
        write(&self.path.join("cgroup.kill"), "1");
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let of = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let text = of("memory.events").or_else(|| of("memory.oom_control")).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        value.unwrap_or(0)
    }

    fn empty(&self) -> Option<()> {
        let inside = fs::read_to_string(self.entrance()).unwrap_or_default();
        for pid in inside.lines() {
            fs::write(self.root.join("cgroup.procs"), pid).ok(); // it may be gone by now
        }
        inside.is_empty().then_some(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait(EMPTY, || self.empty());
        let mut path = self.path.as_path();
        while path.starts_with(&self.top) && path != self.root && fs::remove_dir(path).is_ok() {
            let Some(parent) = path.parent() else { break };
            path = parent;
        }
    }
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (root, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let is_v2 = kind == "cgroup2";
        let found = Hierarchy { root: root.into(), is_v2, options: options.to_owned() };
        (is_v2 || kind == "cgroup").then_some(found)
    };
    mounts.lines().filter_map(parse).collect()
}

fn write(path: &Path, text: &str) {
    must(fs::write(path, text), format_args!("write {text} to {}", path.display()));
}
