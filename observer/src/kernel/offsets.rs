//! Structure offsets and facts from the running kernel's BTF.
use observer_ebpf::config::ABSENT;
use observer_ebpf::config::Facts;
use observer_ebpf::config::Offsets;
use observer_ebpf::config::PATHS;
use observer_ebpf::wire;

use super::btf::Btf;

/// What the probes need to know of this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offsets of structure members.
    pub offsets: Offsets,
    /// Other facts.
    pub facts: Facts,
    /// Whether programs at system calls may wait for memory, and so are run with preemption on: from 7.2.
    pub faultable: bool,
    /// Whether its SRCU has readers of several flavours: from 6.13.
    pub flavours: bool,
}

/// Reads every offset; those that this kernel lacks are absent.
pub fn layout(btf: &Btf) -> Layout {
    let bytes: Vec<u8> = PATHS.iter().flat_map(|paths| offset(btf, paths).to_le_bytes()).collect();
    let old_iterator = btf.offset("iov_iter.iter_type").is_none();
    Layout {
        offsets: wire::read(&bytes).unwrap_or(Offsets::NONE),
        facts: Facts {
            // `f_count` is 1 when one reference is left, `f_ref` is 0.
            file_last: u32::from(btf.offset("file.f_count").is_some()),
            iter_mask: if old_iterator { 0xfe } else { 0xff },
            iter_iovec: btf.enumerator("ITER_IOVEC").unwrap_or(ABSENT),
            iter_ubuf: btf.enumerator("ITER_UBUF").unwrap_or(ABSENT),
        },
        faultable: btf.has_function("trace_call_bpf_faultable"),
        flavours: btf.offset("srcu_data.srcu_reader_flavor").is_some(),
    }
}

/// Paths that this kernel lacks although every variant of the probes needs them.
pub fn missing(btf: &Btf) -> Vec<&'static str> {
    // Iterators got this kind in 6.0; the registers are x86-64's.
    const MAY_LACK: [&str; 4] = ["iov_iter.ubuf", "pt_regs.orig_ax", "pt_regs.si", "pt_regs.dx"];
    PATHS.into_iter().filter(|paths| !MAY_LACK.contains(paths) && offset(btf, paths) == ABSENT).collect()
}

fn offset(btf: &Btf, paths: &str) -> u32 {
    let found = paths.split('|').find_map(|path| match path.strip_suffix('#') {
        Some(structure) => btf.size(structure),
        None => btf.offset(path),
    });
    found.unwrap_or(ABSENT)
}
