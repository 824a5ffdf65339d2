//! Where outputs go: to OAP, to standard output, and what is said about losses.
use std::collections::BTreeMap;
use std::io;
use std::io::BufWriter;
use std::io::Stdout;
use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use crate::config::Config;
use crate::expose::Exposer;
use crate::expose::Listener;
use crate::expose::board::Counts;
use crate::expose::board::Queue;
use crate::expose::page::About;
use crate::kernel::Probes;
use crate::kernel::attach::Attachment;
use crate::pipeline::Pipeline;
use crate::pipeline::output::Output;
use crate::report::Oap;
use crate::report::Report;
use crate::report::print::Printer;
use crate::stats::Drops;
use crate::stats::SharedDrops;

/// The reporter, the printer, and the counts of both.
pub struct Sinks {
    oap: Option<Oap>,
    printer: Option<Printer<BufWriter<Stdout>>>,
    exposer: Option<Exposer>,
    broken: Option<io::Error>,
    drops: Arc<SharedDrops>,
    /// What the probes lost, by name.
    lost: BTreeMap<&'static str, u64>,
    /// What was lost when that was last said.
    said: u64,
}

/// The report that an output is, if it is one.
pub fn report(output: Output) -> Option<Report> {
    Some(match output {
        Output::Hello(instance) => Report::Hello(instance),
        Output::Bye(instance) => Report::Bye(instance),
        Output::Segment(segment) => Report::Segment(segment),
        Output::Meters(batch) => Report::Meters(batch),
        Output::Event(event) => Report::Event(event),
        Output::Role(casting) => Report::Role(casting),
        Output::AskFacts(_)
        | Output::AskHolders
        | Output::AskSamples(_)
        | Output::AskImports(..)
        | Output::AskQueues(_)
        | Output::Watch(..)
        | Output::Disregard(..)
        | Output::Ignore(_)
        | Output::Count(_) => {
            return None;
        }
    })
}

/// Each probe with the variant that is attached, or `none`.
fn variants(attachments: &[Attachment]) -> Vec<(&'static str, &'static str)> {
    attachments.iter().map(|attachment| (attachment.probe.name, attachment.variant_name())).collect()
}

impl Sinks {
    /// Opens what the configuration names.
    pub fn start(config: &Config, drops: Arc<SharedDrops>) -> Result<Sinks, AppError> {
        let oap = config.oap.clone().map(|settings| Oap::start(settings, Arc::clone(&drops))).transpose()?;
        let printer = config.print.map(|format| Printer::new(BufWriter::new(io::stdout()), format));
        if oap.is_none() {
            tracing::info!("printing only: --oap HOST:PORT ships to a SkyWalking OAP");
        }
        Ok(Sinks { oap, printer, exposer: None, broken: None, drops, lost: BTreeMap::new(), said: 0 })
    }

    /// Says that probes are attached and the first scan is done; what is printed still waits for a flush.
    pub fn ready(&mut self, attachments: &[Attachment]) {
        let variants = variants(attachments);
        let said: Vec<String> =
            variants.iter().map(|(probe, variant)| format!("{probe}={variant}")).collect();
        tracing::info!("watching gunicorn: {}", said.join(" "));
        self.print(|printer| printer.ready(&variants));
    }

    /// Serves numbers from now on.
    pub fn expose(&mut self, listener: Listener, ring_bytes: u32, probes: &Probes) {
        let costs = probes.costs().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        let about = About { ring_bytes, probes: variants(&probes.attachments) };
        self.exposer = Some(listener.serve(about, costs));
    }

    /// Shows what is served as it is now; `records` were read so far.
    pub fn publish(&mut self, pipeline: &Pipeline, records: u64) {
        if self.exposer.is_none() {
            return;
        }
        let queues = self.oap.as_ref().map_or_else(Vec::new, |oap| {
            let (waiting, capacity) = oap.waiting();
            let of = ["segments", "meters", "events"].into_iter().zip(waiting);
            of.map(|(of, waiting)| Queue { of, waiting, capacity }).collect()
        });
        let left_out = pipeline.omissions().named().collect();
        let counts = Counts { losses: self.all(pipeline.drops()), left_out, records, queues };
        if let Some(exposer) = &mut self.exposer {
            exposer.publish(counts);
        }
    }

    /// Hands an output on.
    pub fn take(&mut self, output: Output) {
        let Some(report) = report(output) else { return };
        self.print(|printer| printer.print(&report));
        if let Some(exposer) = &mut self.exposer {
            exposer.take(&report);
        }
        if let Some(oap) = &self.oap {
            oap.send(report);
        }
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) {
        self.print(Printer::flush);
    }

    /// Whether standard output cannot be written any more.
    pub fn reader_is_gone(&self) -> bool {
        self.broken.is_some()
    }

    /// Adds to what the probes lost.
    pub fn lost(&mut self, losses: Vec<(&'static str, u64)>) {
        for (reason, n) in losses {
            *self.lost.entry(reason).or_default() += n;
        }
    }

    /// One line when more was lost since the last one.
    pub fn warn_of_losses(&mut self, pipeline: &Drops) {
        let all = self.all(pipeline);
        let total = all.iter().map(|(_, n)| n).sum();
        if total > self.said {
            self.said = total;
            let said: Vec<String> = all.iter().map(|(reason, n)| format!("{reason}={n}")).collect();
            tracing::warn!("lost so far: {}", said.join(" "));
        }
    }

    /// Sends what waits, for `limit` at most, and says what was lost.
    pub async fn stop(mut self, pipeline: &Pipeline, limit: Duration) -> Result<(), AppError> {
        if let Some(oap) = self.oap.take() {
            let left = oap.stop(limit).await;
            if left > 0 {
                tracing::warn!(left, "stopped before everything was sent to OAP");
            }
        }
        self.warn_of_losses(pipeline.drops());
        let all = self.all(pipeline.drops());
        let left_out: Vec<_> = pipeline.omissions().named().collect();
        if !left_out.is_empty() {
            let said: Vec<String> = left_out.iter().map(|(why, n)| format!("{why}={n}")).collect();
            tracing::info!("left out on purpose: {}", said.join(" "));
        }
        self.print(|printer| printer.stats(&all, &left_out));
        self.flush();
        tracing::info!("stopped");
        match self.broken {
            // A reader that has enough, such as `head`, is no error.
            None => Ok(()),
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(error) => Err(AppError::Output(error)),
        }
    }

    /// Everything that was lost anywhere, by name.
    fn all(&self, pipeline: &Drops) -> Vec<(&'static str, u64)> {
        let mut all: BTreeMap<&'static str, u64> = self.lost.clone();
        let shared = self.drops.snapshot();
        for (reason, n) in pipeline.named().chain(shared.named()) {
            *all.entry(reason).or_default() += n;
        }
        all.into_iter().collect()
    }

    fn print(&mut self, write: impl FnOnce(&mut Printer<BufWriter<Stdout>>) -> io::Result<()>) {
        if let Some(printer) = &mut self.printer
            && self.broken.is_none()
        {
            self.broken = write(printer).err();
        }
    }
}
