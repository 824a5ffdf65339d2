//! Attach points: one line per place the kernel can call us.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are 64 bits wide, what they carry often is not"
)]

mod attach;
mod emit;
mod entry;
mod filter;
mod interpreter;
mod io;
mod kernel;
mod log;
mod maps;
mod process;
mod program;
mod socket;
mod syscall;
mod tls;
mod tracepoint;

#[cfg(not(target_arch = "bpf"))]
fn main() {} // lets host tools check the probes

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {} // never linked in: a reachable panic fails the build
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
