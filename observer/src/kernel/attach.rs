//! Walks the catalogue: which variant of each probe this kernel takes, and why not the others.
use aya::Btf;
use aya::Ebpf;
use aya::programs::BtfTracePoint;
use aya::programs::FEntry;
use aya::programs::FExit;
use aya::programs::KProbe;
use aya::programs::Program;
use aya::programs::ProgramError;
use aya::programs::TracePoint;
use aya::programs::UProbe;

use super::capability;
use super::capability::Preempts;
use super::catalog::CATALOG;
use super::catalog::Need;
use super::catalog::Point;
use super::catalog::Probe;
use super::catalog::ProgramKind;
use super::catalog::Variant;
use super::catalog::When;

/// How much of a verifier log an error shows.
const VERIFIER_LINES: usize = 4;

/// Why a variant was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The variant.
    pub variant: Variant,
    /// The program and what the kernel said.
    pub why: String,
}

/// What became of one probe.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The probe.
    pub probe: &'static Probe,
    /// The variant that is attached, or can be when it is needed; `None` when all were refused.
    pub variant: Option<Variant>,
    /// The variants that were tried before it.
    pub refusals: Vec<Refusal>,
}

impl Attachment {
    /// The places of the variant that is attached.
    pub fn points(&self) -> &'static [Point] {
        let chosen = self.probe.variants.iter().find(|(variant, _)| Some(*variant) == self.variant);
        chosen.map_or(&[], |(_, points)| points)
    }

    /// The name of the variant that is attached.
    pub fn variant_name(&self) -> &'static str {
        self.variant.map_or("none", Variant::name)
    }
}

/// What became of every variant of one probe in a rehearsal.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The probe.
    pub probe: &'static Probe,
    /// Each variant in order of preference, with what the kernel said if it refused.
    pub variants: Vec<(Variant, Option<String>)>,
}

/// What programs are loaded for.
pub struct Kernel {
    /// Its types.
    pub btf: Btf,
    /// Which programs it preempts.
    pub preempts: Preempts,
}

impl Kernel {
    /// The programs that a point takes here: one, or a second one where this kernel can preempt the first.
    fn programs(&self, point: &Point) -> impl Iterator<Item = &'static str> + use<> {
        let preempted = match point.kind() {
            ProgramKind::Syscall => self.preempts.syscalls,
            ProgramKind::Fentry | ProgramKind::Fexit => self.preempts.trampolines,
            ProgramKind::Kprobe | ProgramKind::Kretprobe | ProgramKind::TpBtf | ProgramKind::Uprobe => false,
        };
        point.programs().take(if preempted { 2 } else { 1 })
    }
}

/// Attaches every probe of the catalogue; `forced` leaves one variant to choose of those that have several.
pub fn attach(ebpf: &mut Ebpf, kernel: &Kernel, forced: Option<Variant>) -> Vec<Attachment> {
    CATALOG.iter().map(|probe| attach_probe(ebpf, kernel, probe, forced)).collect()
}

/// Tries every variant of every probe and leaves none attached.
pub fn rehearse(ebpf: &mut Ebpf, kernel: &Kernel) -> Vec<Rehearsal> {
    let try_all = |ebpf: &mut Ebpf, probe: &'static Probe| {
        let tried = probe.variants.iter().map(|(variant, points)| {
            // What can be tried without an interpreter is.
            let refused = take_points(ebpf, kernel, points, When::Start).err();
            if refused.is_none() {
                detach(ebpf, points);
            }
            (*variant, refused)
        });
        Rehearsal { probe, variants: tried.collect() }
    };
    CATALOG.iter().map(|probe| try_all(ebpf, probe)).collect()
}

/// The probes without which there is nothing to report and that could not be attached.
pub fn unmet(attachments: &[Attachment]) -> Option<&Attachment> {
    attachments
        .iter()
        .find(|attachment| attachment.variant.is_none() && attachment.probe.need == Need::Required)
}

fn attach_probe(
    ebpf: &mut Ebpf,
    kernel: &Kernel,
    probe: &'static Probe,
    forced: Option<Variant>,
) -> Attachment {
    let mut refusals = Vec::new();
    for (variant, points) in probe.variants {
        if !probe.allows(*variant, forced) {
            continue;
        }
        match take_points(ebpf, kernel, points, probe.when) {
            Ok(()) => return Attachment { probe, variant: Some(*variant), refusals },
            Err(why) => refusals.push(Refusal { variant: *variant, why }),
        }
    }
    Attachment { probe, variant: None, refusals }
}

/// Takes all points of a variant, or none.
fn take_points(ebpf: &mut Ebpf, kernel: &Kernel, points: &[Point], when: When) -> Result<(), String> {
    let mut has_optional = false;
    for (at, point) in points.iter().enumerate() {
        if point.instead && has_optional {
            continue;
        }
        let attached = kernel.programs(point).try_for_each(|name| {
            let program = ebpf.program_mut(name).ok_or("not in the object")?;
            if point.unlocked && kernel.preempts.tracepoints {
                return Err("this kernel can preempt it, and passes over it for others meanwhile".to_owned());
            }
            load_point(program, &kernel.btf, point)?;
            if when == When::Start { attach_point(program, point) } else { Ok(()) }
        });
        match attached {
            Ok(()) => has_optional |= point.optional,
            Err(_) if point.optional => unload_point(ebpf, point),
            Err(why) => {
                unload_point(ebpf, point);
                detach(ebpf, points.get(..at).unwrap_or_default());
                return Err(format!("{}: {why}", point.program));
            }
        }
    }
    Ok(())
}

fn detach(ebpf: &mut Ebpf, points: &[Point]) {
    points.iter().for_each(|point| unload_point(ebpf, point));
}

fn unload_point(ebpf: &mut Ebpf, point: &Point) {
    for name in point.programs() {
        if let Some(program) = ebpf.program_mut(name) {
            unload(program, point);
        }
    }
}

/// Unloading a program detaches it. It fails only for a program that is not loaded.
pub(super) fn unload(program: &mut Program, point: &Point) {
    let unloaded = match point.kind() {
        ProgramKind::Kprobe | ProgramKind::Kretprobe => act_as(program, KProbe::unload),
        ProgramKind::Fentry => act_as(program, FEntry::unload),
        ProgramKind::Fexit => act_as(program, FExit::unload),
        ProgramKind::TpBtf => act_as(program, BtfTracePoint::unload),
        ProgramKind::Syscall => act_as(program, TracePoint::unload),
        ProgramKind::Uprobe => act_as(program, UProbe::unload),
    };
    if let Err(error) = unloaded {
        tracing::trace!(program = point.program, %error, "not unloaded");
    }
}

fn act_as<'a, P: 'a>(
    program: &'a mut Program,
    act: impl FnOnce(&mut P) -> Result<(), ProgramError>,
) -> Result<(), ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    act(program.try_into()?)
}

fn load_point(program: &mut Program, btf: &Btf, point: &Point) -> Result<(), String> {
    let target = point.target;
    let loaded = match point.kind() {
        ProgramKind::Kprobe | ProgramKind::Kretprobe if !capability::has_kprobes() => {
            return Err("this kernel has no kprobes (CONFIG_KPROBES)".to_owned());
        }
        ProgramKind::Uprobe if !capability::has_uprobes() => {
            return Err("this kernel has no uprobes (CONFIG_UPROBES)".to_owned());
        }
        ProgramKind::Kprobe | ProgramKind::Kretprobe => act_as(program, KProbe::load),
        ProgramKind::Fentry => act_as(program, |probe: &mut FEntry| probe.load(target, btf)),
        ProgramKind::Fexit => act_as(program, |probe: &mut FExit| probe.load(target, btf)),
        ProgramKind::TpBtf => act_as(program, |probe: &mut BtfTracePoint| probe.load(target, btf)),
        ProgramKind::Syscall => act_as(program, TracePoint::load),
        ProgramKind::Uprobe => act_as(program, UProbe::load),
    };
    loaded.map_err(sentence)
}

/// Attaches a program that is loaded.
pub(super) fn attach_point(program: &mut Program, point: &Point) -> Result<(), String> {
    let target = point.target;
    let attached = match point.kind() {
        ProgramKind::Kprobe | ProgramKind::Kretprobe => {
            act_as(program, |probe: &mut KProbe| probe.attach(target, 0).map(drop))
        }
        ProgramKind::Fentry => act_as(program, |probe: &mut FEntry| probe.attach().map(drop)),
        ProgramKind::Fexit => act_as(program, |probe: &mut FExit| probe.attach().map(drop)),
        ProgramKind::TpBtf => act_as(program, |probe: &mut BtfTracePoint| probe.attach().map(drop)),
        ProgramKind::Syscall => {
            act_as(program, |probe: &mut TracePoint| probe.attach("syscalls", target).map(drop))
        }
        ProgramKind::Uprobe => Ok(()), // only files of processes have a place for it
    };
    attached.map_err(sentence)
}

/// Whether a line of a verifier log only sums up.
fn is_summary(line: &str) -> bool {
    const SUMMARIES: [&str; 5] = ["verification time", "stack depth", "processed", "subprog", "insns"];
    line.trim().is_empty() || SUMMARIES.iter().any(|start| line.starts_with(start))
}

/// An error and its causes in one line; of a verifier log the last lines, which say what it disliked.
pub(super) fn sentence(error: ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = &error {
        let log = verifier_log.to_string();
        let said: Vec<&str> = log.lines().filter(|line| !is_summary(line)).collect();
        let said = said.get(said.len().saturating_sub(VERIFIER_LINES)..).unwrap_or_default().join(" / ");
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        return format!("the kernel refused to load it: {io_error}{said}");
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text.replace('\n', " ")
}
