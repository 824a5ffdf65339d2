//! Everything that touches aya: load, attach, read. The public face is [`Probes`].
pub mod attach;
pub mod btf;
pub mod capability;
pub mod catalog;
pub mod clocks;
pub mod costs;
pub mod counters;
#[cfg(feature = "probe-log")]
pub mod log;
mod mapped;
pub mod maps;
pub mod offsets;
pub mod pod;
pub mod ring;
pub mod sessions;

use aya::Btf;
use aya::Ebpf;
use aya::EbpfLoader;

use attach::Attachment;
use attach::Kernel;
use attach::Rehearsal;
use capability::Preempts;
use catalog::Point;
use catalog::Variant;
use clocks::Clocks;
use costs::Costs;
use counters::Counters;
use maps::Maps;
use observer_ebpf::counter::SLOTS;
use offsets::Layout;
use pod::Pod;
use ring::Ring;
use sessions::Sessions;

/// The compiled probes; empty in a build with `SW_OBSERVE_EBPF=stub`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes"));

/// The compiled probes as an ELF object; empty in a build without them.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Why probes could not be loaded or attached: what, because of what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary holds no probes.
    #[error("this build has no probes (SW_OBSERVE_EBPF=stub): build again without that variable")]
    Stub,
    /// Not root, or too few capabilities.
    #[error(
        "cannot load probes: {missing} missing: run as root (sudo sw-observe …) or add these capabilities"
    )]
    Permission {
        /// Names of the missing capabilities.
        missing: String,
    },
    /// In a container with pids of its own.
    #[error(
        "cannot watch from a pid namespace of its own: processes have other pids there: \
         run in the host's (Kubernetes: hostPID: true; containers: --pid=host)"
    )]
    PidNamespace,
    /// The kernel has no BTF.
    #[error(
        "cannot read kernel type information {path}: {source}: \
         use a kernel built with CONFIG_DEBUG_INFO_BTF, or mount /sys into the container"
    )]
    NoBtf {
        /// Where it was looked for.
        path: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// BTF that does not describe what the probes read.
    #[error("this kernel's BTF lacks {what}: report it with the output of `uname -r`")]
    UnknownLayout {
        /// The missing members.
        what: String,
    },
    /// Tracefs is not mounted and cannot be.
    #[error("cannot mount tracefs on {path}: {source}: mount it, or mount the host's into the container")]
    NoTracefs {
        /// Where it belongs.
        path: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the probes: {0}: `sw-observe check` says what this host lacks")]
    Load(#[from] aya::EbpfError),
    /// BTF could not be read by the loader.
    #[error("cannot read this kernel's BTF: {0}: report it with the output of `uname -r`")]
    Btf(#[from] aya::BtfError),
    /// A required probe could not be attached in any variant.
    #[error(
        "cannot attach probe {probe} ({why_needed}): {refusals}: `sw-observe check` says what this host lacks"
    )]
    Unattached {
        /// The probe.
        probe: &'static str,
        /// What it is for.
        why_needed: &'static str,
        /// What the kernel said to each variant.
        refusals: String,
    },
    /// A map is not in the object.
    #[error("the probes have no map {name}: the object does not belong to this release")]
    NoMap {
        /// Its name.
        name: &'static str,
    },
    /// A map could not be used.
    #[error("cannot use map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What went wrong.
        source: aya::maps::MapError,
    },
    /// How many processors there can be could not be read.
    #[error("cannot count processors: {0}: mount /sys into the container")]
    Processors(String),
    /// An array could not be mapped.
    #[error("cannot map {name} of the probes: {source}: this kernel is older than 5.5")]
    Mapping {
        /// The array.
        name: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Programs are not accounted.
    #[error("the kernel does not account what probes cost: {0}: add the capability CAP_SYS_ADMIN")]
    Accounting(std::io::Error),
    /// The ring could not be polled.
    #[error("cannot poll the ring: {0}")]
    Poll(std::io::Error),
}

/// Sizes and choices that are set before load.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Size of the ring in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// How many connections can be followed at a time.
    pub connections: u32,
    /// Take only this variant.
    pub attach: Option<Variant>,
    /// Attach programs that do nothing: a benchmark tells by them what the kernel takes to reach probes.
    pub empty: bool,
}

/// Loaded and attached probes. Dropping it detaches all of them.
pub struct Probes {
    /// Records.
    pub ring: Ring,
    /// Watched processes and sockets.
    pub maps: Maps,
    /// What the probes lost.
    pub counters: Counters,
    /// The clocks of interpreters.
    pub clocks: Clocks,
    /// Which TLS libraries have the probes.
    sessions: Sessions,
    /// What became of each probe.
    pub attachments: Vec<Attachment>,
    #[cfg(feature = "probe-log")]
    log: Option<log::ProbeLog>,
    /// Programs and their links; `None` after [`Probes::detach`].
    programs: Option<Ebpf>,
}

impl Probes {
    /// Loads and attaches. Must be called inside a tokio runtime.
    pub fn start(settings: Settings) -> Result<Probes, KernelError> {
        let (mut ebpf, kernel) = load(settings)?;
        let ring = Ring::take(&mut ebpf)?;
        let maps = Maps::take(&mut ebpf)?;
        let counters = Counters::take(&mut ebpf, processors()?)?;
        let clocks = Clocks::take(&mut ebpf)?;
        let attachments = attach::attach(&mut ebpf, &kernel, settings.attach);
        drop(kernel);
        return_memory();
        if let Some(unmet) = attach::unmet(&attachments) {
            let refusals =
                unmet.refusals.iter().map(|refusal| format!("{}: {}", refusal.variant.name(), refusal.why));
            return Err(KernelError::Unattached {
                probe: unmet.probe.name,
                why_needed: unmet.probe.why,
                refusals: refusals.collect::<Vec<_>>().join("; "),
            });
        }
        Ok(Probes {
            ring,
            maps,
            counters,
            clocks,
            sessions: Sessions::default(),
            attachments,
            #[cfg(feature = "probe-log")]
            log: log::ProbeLog::take(&mut ebpf),
            programs: Some(ebpf),
        })
    }

    /// Logs what the probes logged, in a build with the feature `probe-log`.
    pub fn flush_log(&mut self) {
        #[cfg(feature = "probe-log")]
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Has the kernel account what each program costs, until the value is dropped. Every BPF program of the host is
    /// accounted then, for two readings of the kernel's clock in each run. Nothing when all are detached.
    pub fn costs(&self) -> Result<Option<Costs>, KernelError> {
        self.programs.as_ref().map(|ebpf| Costs::start(ebpf, &self.attachments)).transpose()
    }

    /// Detaches all probes; what they wrote and counted stays readable.
    pub fn detach(&mut self) {
        let leaving = self.leave_files();
        if let Some(mut ebpf) = self.programs.take() {
            // The kernel takes its time for each link, and can do so for all at once.
            let points: Vec<&Point> = self.attachments.iter().flat_map(Attachment::points).collect();
            std::thread::scope(|scope| {
                for (name, program) in ebpf.programs_mut() {
                    let point = points.iter().find(|point| point.programs().any(|program| program == name));
                    if let Some(point) = point {
                        scope.spawn(|| attach::unload(program, point));
                    }
                }
            });
        }
        if leaving.into_iter().any(|thread| thread.join().is_err()) {
            tracing::debug!("a probe stays in a file");
        }
    }
}

/// More than this is never left unread until the next look.
const WAKE_AT_MOST: u32 = 256 * 1024;

/// How many processors there can be.
fn processors() -> Result<usize, KernelError> {
    aya::util::nr_cpus().map_err(|(what, error)| KernelError::Processors(format!("{what}: {error}")))
}

/// Gives back what reading BTF took: tens of megabytes in small pieces, which the allocator would keep.
fn return_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the prototype is that of malloc_trim(3), which any thread may call at any time.
        unsafe extern "C" {
            /// malloc_trim(3)
            safe fn malloc_trim(pad: usize) -> core::ffi::c_int;
        }
        malloc_trim(0);
    }
}

/// Tries every variant of every probe on this kernel.
pub fn rehearse() -> Result<Vec<Rehearsal>, KernelError> {
    let (mut ebpf, kernel) =
        load(Settings { ring_bytes: 1 << 16, connections: 1 << 10, attach: None, empty: false })?;
    Ok(attach::rehearse(&mut ebpf, &kernel))
}

fn load(settings: Settings) -> Result<(Ebpf, Kernel), KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::Stub);
    }
    capability::permission()?;
    capability::pid_namespace()?;
    let layout = layout()?;
    capability::mount_tracefs()?;
    let btf = Btf::from_sys_fs()?;
    let (offsets, facts) = (Pod(layout.offsets), Pod(layout.facts));
    // Late enough to gather many records, early enough to leave room until the reader runs.
    let wake_at = (settings.ring_bytes / 4).min(WAKE_AT_MOST);
    let ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", &offsets, true)
        .override_global("FACTS", &facts, true)
        .override_global("WAKE_AT", &wake_at, true)
        .override_global("EMPTY", &u32::from(settings.empty), true)
        .map_max_entries("RECORDS", settings.ring_bytes)
        .map_max_entries("SOCKETS", settings.connections)
        .map_max_entries("COUNTERS", u32::try_from(processors()?).unwrap_or(u32::MAX).saturating_mul(SLOTS))
        .load(OBJECT)?;
    Ok((ebpf, Kernel { btf, preempts: Preempts::of_this_kernel(&layout) }))
}

fn layout() -> Result<Layout, KernelError> {
    let unknown = |what: String| KernelError::UnknownLayout { what };
    let btf =
        btf::Btf::parse(capability::btf_bytes()?).ok_or_else(|| unknown("a readable header".to_owned()))?;
    let missing = offsets::missing(&btf);
    if missing.is_empty() { Ok(offsets::layout(&btf)) } else { Err(unknown(missing.join(", "))) }
}
