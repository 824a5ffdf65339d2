//! The only place that knows gRPC: takes what the pipeline made and ships it to OAP, or prints it.

mod convert; // our types to SkyWalking's messages
pub mod encode; // segments to the bytes of SkyWalking's messages
mod event; // EventService: short streams of events
pub mod grpc; // the connection: settings, metadata, answers, backoff
mod journal; // what is said about the connection, once each
mod management; // ManagementService: registration and heartbeats
mod meter; // MeterReportService: short streams of instances with their meters
pub mod print; // the same reports as text
mod queue; // bounded, oldest first out, counted
mod trace; // TraceSegmentReportService: short streams of segments

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::identity::Casting;
use crate::identity::Instance;
use crate::identity::event::Event;
use crate::meter::MeterBatch;
use crate::report::grpc::Backoff;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;
use crate::report::grpc::Settings;
use crate::report::grpc::SettingsError;
use crate::report::grpc::Target;
use crate::report::journal::Journal;
use crate::report::management::Roster;
use crate::report::queue::Queue;
use crate::stats::SharedDrops;
use crate::trace::Segment;

/// How many calls of one kind go before another kind has its turn.
const TURN: usize = 16;

/// Something to tell OAP.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// An instance is there: register it and keep it alive.
    Hello(Instance),
    /// It is gone: keep it alive no longer.
    Bye(Instance),
    /// What one process did for one request.
    Segment(Segment),
    /// Something happened to an instance, or is over: start and end arrive in the order in which they were sent, after
    /// the instance's `Hello`.
    Event(Event),
    /// A process is something else from now on; printed only.
    Role(Casting),
    /// The numbers of one instance at one time.
    Meters(MeterBatch),
}

/// A reporter at work: one task, one connection.
pub struct Oap {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Oap {
    /// Starts the task that connects, and connects again when the connection breaks. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Settings that cannot work. An OAP that cannot be reached is not an error: it may come.
    pub fn start(settings: Settings, drops: Arc<SharedDrops>) -> Result<Self, SettingsError> {
        let target = Target::new(&settings)?;
        let queue = Arc::new(Queue::new(settings.queue_size, drops));
        let reporter = Reporter {
            target,
            queue: Arc::clone(&queue),
            roster: Roster::new(settings.heartbeat, settings.properties_factor),
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            journal: Journal::new(&settings),
            alone: 0,
        };
        Ok(Self { queue, task: tokio::spawn(reporter.run()) })
    }

    /// Never waits. When the queue is full the oldest segment, meter batch or event goes and is counted as `QueueFull`;
    /// `Hello` and `Bye` always arrive, and `Role` is not for OAP.
    pub fn send(&self, report: Report) {
        self.queue.push(report);
    }

    /// How many segments, meter batches and events wait, and how many of each may.
    pub fn waiting(&self) -> ([usize; 3], usize) {
        self.queue.waiting()
    }

    /// Sends what waits, for `limit` at most; gives up at once if OAP cannot be reached. Returns how many segments,
    /// meter batches and events were left; they are counted as `SendFailed`.
    pub async fn stop(mut self, limit: Duration) -> u64 {
        self.queue.stop();
        let _in_time = timeout(limit, &mut self.task).await.is_ok();
        self.task.abort();
        self.queue.give_up()
    }
}

impl Drop for Oap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind [`Oap`].
struct Reporter {
    target: Target,
    queue: Arc<Queue>,
    roster: Roster,
    backoff: Backoff,
    journal: Journal,
    /// How many events go one by one, because OAP rejected a stream with one of them.
    alone: usize,
}

impl Reporter {
    async fn run(mut self) {
        loop {
            let cause = match self.target.connect().await {
                Ok(link) => {
                    self.journal.connected();
                    self.apply_changes();
                    self.roster.register_all(Instant::now());
                    match self.serve(&link).await {
                        Some(cause) => cause,
                        None => return,
                    }
                }
                Err(cause) => cause,
            };
            self.journal.unreachable(&cause);
            if self.queue.stopping() {
                return;
            }
            self.pause().await;
        }
    }

    /// Reports until the connection breaks, which gives the cause, or until all is said and `stop` was called.
    async fn serve(&mut self, link: &Link) -> Option<String> {
        loop {
            self.apply_changes();
            match self.turn(link).await {
                Ok(()) => {}
                Err(Failure::Lost(cause) | Failure::TimedOut(cause)) => return Some(cause),
                Err(failure) => {
                    self.journal.waiting(&failure);
                    if self.queue.stopping() {
                        return None;
                    }
                    self.pause().await;
                    continue;
                }
            }
            let now = Instant::now();
            let next = if self.queue.stopping() {
                let unsaid = self.queue.ready_at().is_some() || self.roster.is_behind(now);
                if !unsaid {
                    return None;
                }
                Some(now)
            } else {
                self.roster.next().into_iter().chain(self.queue.ready_at()).min()
            };
            self.wait(next).await;
        }
    }

    /// Everything that is due, but not more of one kind than its turn allows.
    async fn turn(&mut self, link: &Link) -> Result<(), Failure> {
        let beats = self.roster.due(Instant::now(), self.queue.stopping());
        for (beat, result) in management::send(link, beats).await {
            let taken = result.is_ok();
            self.judge("the heartbeat of an instance", result)?;
            self.roster.answered(&beat, taken, Instant::now());
        }
        self.events(link).await?;
        let segments = self.queue.take_segments();
        if !segments.is_empty() {
            let result = trace::send(link, &segments).await;
            if self.is_to_be_tried_again(&result) {
                self.queue.put_back_segments(segments);
            }
            self.judge("segments", result)?;
        }
        let batches = self.queue.take_meters();
        if !batches.is_empty() {
            let result = meter::send(link, &batches).await;
            if self.is_to_be_tried_again(&result) {
                self.queue.put_back_meters(batches);
            }
            self.judge("meters", result)?;
        }
        Ok(())
    }

    /// Some events, once everybody they can be about is registered. OAP ends a stream at the first event that it does not
    /// want, so the events of that stream go one by one then. Sending one twice does no harm: OAP merges by uuid.
    async fn events(&mut self, link: &Link) -> Result<(), Failure> {
        for _ in 0..TURN {
            if self.roster.is_behind(Instant::now()) {
                break;
            }
            let batch = self.queue.take_events(if self.alone > 0 { 1 } else { usize::MAX });
            let size = batch.len();
            if size == 0 {
                break;
            }
            let result = event::send(link, &batch).await;
            match &result {
                Ok(()) => self.queue.sent(),
                Err(Failure::Rejected(_)) if size == 1 => self.queue.lose(),
                Err(failure) => {
                    self.queue.put_back_events(batch);
                    if matches!(failure, Failure::Rejected(_)) {
                        self.alone = size;
                        continue;
                    }
                    return result;
                }
            }
            self.alone = self.alone.saturating_sub(1);
            self.judge("an event", result)?;
        }
        Ok(())
    }

    /// Strikes what was taken from the queue off, unless it is to go back.
    fn is_to_be_tried_again(&self, result: &Result<(), Failure>) -> bool {
        match result {
            Ok(()) => self.queue.sent(),
            Err(Failure::Rejected(_) | Failure::TimedOut(_)) => self.queue.lose(),
            Err(Failure::Lost(_) | Failure::Refused(_) | Failure::Busy) => return true,
        }
        false
    }

    /// Notes how a call went; what is wrong with one message only is no failure of the rest.
    fn judge(&mut self, what: &str, result: Result<(), Failure>) -> Result<(), Failure> {
        match result {
            Ok(()) => {
                self.backoff.reset();
                self.journal.answered();
                Ok(())
            }
            Err(Failure::Rejected(cause)) => {
                self.journal.rejected(what, &cause);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// The wait after a failure; instances come and go meanwhile, and `stop` ends it.
    async fn pause(&mut self) {
        let until = Instant::now() + self.backoff.wait();
        while Instant::now() < until && !self.queue.stopping() {
            self.wait(Some(until)).await;
            self.apply_changes();
        }
    }

    async fn wait(&self, until: Option<Instant>) {
        match until {
            None => self.queue.changed().await,
            Some(until) => tokio::select! {
                () = sleep_until(until) => {}
                () = self.queue.changed() => {}
            },
        }
    }

    fn apply_changes(&mut self) {
        self.roster.apply(self.queue.take_changes(), Instant::now());
    }
}
