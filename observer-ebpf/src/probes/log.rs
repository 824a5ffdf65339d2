//! Says which attach point did something, for the probes' authors: only with the feature `log`.
use core::ffi::c_void;

/// A handler came back; `None` means that the call was none of its business.
#[cfg(feature = "log")]
#[inline(always)]
pub fn done(context: *mut c_void, program: &str, outcome: Option<()>) {
    if outcome.is_some() {
        let context = aya_ebpf::programs::TracePointContext::new(context);
        aya_log_ebpf::debug!(&context, "{}", program);
    }
}

/// A handler came back; nothing is said of it.
#[cfg(not(feature = "log"))]
#[inline(always)]
pub fn done(_context: *mut c_void, _program: &str, _outcome: Option<()>) {}
