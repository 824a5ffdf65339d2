//! What the probes log, as log lines of ours; only with the feature `probe-log`.
use aya::Ebpf;
use aya_log::EbpfLogger;

/// Reads the probes' log.
pub struct ProbeLog(EbpfLogger<Lines>);

/// Hands the probes' lines on.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!("probe: {}", record.args());
    }

    fn flush(&self) {}
}

impl ProbeLog {
    /// `None`, with a line, when the object was built without the feature.
    pub fn take(ebpf: &mut Ebpf) -> Option<ProbeLog> {
        match EbpfLogger::init_with_logger(ebpf, Lines) {
            Ok(log) => Some(ProbeLog(log)),
            Err(error) => {
                tracing::warn!(%error, "the probes do not log: build the object with the feature `log`");
                None
            }
        }
    }

    /// Logs what there is.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
