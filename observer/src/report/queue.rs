//! What waits to be sent: bounded, the oldest goes first when it is full, and every loss is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::identity::Instance;
use crate::identity::event::Event;
use crate::meter::MeterBatch;
use crate::report::Report;
use crate::stats::Reason;
use crate::stats::SharedDrops;
use crate::trace::Segment;

/// How many segments, or events, go in one stream at most.
const BATCH: usize = 500;
/// Of how many instances the meters go in one stream at most: some hundred KiB.
const METERS: usize = 100;
/// How long a segment waits for others to share its stream.
const LINGER: Duration = Duration::from_secs(1);

/// An instance came or went.
#[derive(Debug)]
pub(super) enum Change {
    Hello(Instance),
    Bye(Instance),
}

/// The queue between whoever reports and the task that sends.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    drops: Arc<SharedDrops>,
}

struct State {
    /// Not bounded: the sending task empties it at once, connected or not.
    changes: Vec<Change>,
    segments: Buffer<Segment>,
    /// When the oldest of a batch that is not yet full came.
    since: Option<Instant>,
    meters: Buffer<MeterBatch>,
    events: Buffer<Event>,
    /// Taken, not yet answered.
    in_flight: u64,
    stopping: bool,
}

impl Queue {
    /// `capacity` segments, as many meter batches and as many events.
    pub(super) fn new(capacity: usize, drops: Arc<SharedDrops>) -> Self {
        let state = State {
            changes: Vec::new(),
            segments: Buffer::new(capacity),
            since: None,
            meters: Buffer::new(capacity),
            events: Buffer::new(capacity),
            in_flight: 0,
            stopping: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), drops }
    }

    /// Never waits; wakes the sending task only when it has something to do.
    pub(super) fn push(&self, report: Report) {
        let mut state = self.lock();
        let (wake, lost) = match report {
            Report::Hello(instance) => {
                state.changes.push(Change::Hello(instance));
                (true, 0)
            }
            Report::Bye(instance) => {
                state.changes.push(Change::Bye(instance));
                (true, 0)
            }
            Report::Meters(batch) => (true, state.meters.push(batch)),
            Report::Event(event) => (true, state.events.push(event)),
            Report::Role(_) => (false, 0), // printed only
            Report::Segment(segment) => {
                let lost = state.segments.push(segment);
                let first = state.since.is_none();
                state.since.get_or_insert_with(Instant::now);
                (first || state.segments.items.len() == BATCH, lost)
            }
        };
        drop(state);
        self.drops.add(Reason::QueueFull, lost);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Returns after something changed that the sending task must look at.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// When the next segments, meters or events are to be sent; `None` if there are none.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        let state = self.lock();
        let now = Instant::now();
        if !state.meters.items.is_empty() || !state.events.items.is_empty() {
            return Some(now);
        }
        let since = state.since?;
        let hurry = state.stopping || state.segments.items.len() >= BATCH;
        Some(if hurry { now } else { since + LINGER })
    }

    /// The oldest segments if their time has come, else none.
    pub(super) fn take_segments(&self) -> Vec<Segment> {
        let mut state = self.lock();
        let now = Instant::now();
        let len = state.segments.items.len();
        let due = state.stopping || len >= BATCH || state.since.is_some_and(|since| since + LINGER <= now);
        if !due {
            return Vec::new();
        }
        let batch: Vec<_> = state.segments.items.drain(..len.min(BATCH)).collect();
        state.since = (len > BATCH).then_some(now);
        state.in_flight = batch.len() as u64;
        batch
    }

    /// The oldest meters.
    pub(super) fn take_meters(&self) -> Vec<MeterBatch> {
        let mut state = self.lock();
        let len = state.meters.items.len().min(METERS);
        let batches: Vec<_> = state.meters.items.drain(..len).collect();
        state.in_flight = batches.len() as u64;
        batches
    }

    /// The oldest events, `limit` at most. None while somebody waits to be taken in by [`Self::take_changes`]: an
    /// instance comes before what happened to it.
    pub(super) fn take_events(&self, limit: usize) -> Vec<Event> {
        let mut state = self.lock();
        if !state.changes.is_empty() {
            return Vec::new();
        }
        let len = state.events.items.len().min(limit).min(BATCH);
        let batch: Vec<_> = state.events.items.drain(..len).collect();
        state.in_flight = batch.len() as u64;
        batch
    }

    /// What was taken has been sent.
    pub(super) fn sent(&self) {
        self.lock().in_flight = 0;
    }

    /// What was taken will never be sent.
    pub(super) fn lose(&self) {
        let lost = std::mem::take(&mut self.lock().in_flight);
        self.drops.add(Reason::SendFailed, lost);
    }

    /// What was taken is to be tried again, before all that came later.
    pub(super) fn put_back_segments(&self, batch: Vec<Segment>) {
        self.put_back(|state| {
            state.since.get_or_insert_with(Instant::now);
            state.segments.put_back(batch)
        });
    }

    /// As [`Self::put_back_segments`].
    pub(super) fn put_back_meters(&self, batches: Vec<MeterBatch>) {
        self.put_back(|state| state.meters.put_back(batches));
    }

    /// As [`Self::put_back_segments`].
    pub(super) fn put_back_events(&self, batch: Vec<Event>) {
        self.put_back(|state| state.events.put_back(batch));
    }

    fn put_back(&self, restore: impl FnOnce(&mut State) -> u64) {
        let mut state = self.lock();
        state.in_flight = 0;
        let lost = restore(&mut state);
        drop(state);
        self.drops.add(Reason::SendFailed, lost);
    }

    /// How many segments, meter batches and events wait, and how many of each may.
    pub(super) fn waiting(&self) -> ([usize; 3], usize) {
        let state = self.lock();
        let waiting = [state.segments.items.len(), state.meters.items.len(), state.events.items.len()];
        (waiting, state.segments.capacity)
    }

    /// From now on nothing lingers.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_one();
    }

    pub(super) fn stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Empties the queue, counts what was in it or on its way, and says how many that were.
    pub(super) fn give_up(&self) -> u64 {
        let mut state = self.lock();
        let waiting = state.segments.items.len() + state.meters.items.len() + state.events.items.len();
        let left = std::mem::take(&mut state.in_flight) + waiting as u64;
        state.segments.items.clear();
        state.meters.items.clear();
        state.events.items.clear();
        state.since = None;
        drop(state);
        self.drops.add(Reason::SendFailed, left);
        left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bounded first-in, first-out list.
struct Buffer<T> {
    items: VecDeque<T>,
    capacity: usize,
}

impl<T> Buffer<T> {
    fn new(capacity: usize) -> Self {
        Self { items: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Returns how many of the oldest had to go.
    fn push(&mut self, item: T) -> u64 {
        let full = self.items.len() >= self.capacity;
        if full {
            self.items.pop_front();
        }
        self.items.push_back(item);
        u64::from(full)
    }

    /// To the front, as far as there is room; returns how many of the oldest did not fit.
    fn put_back(&mut self, batch: Vec<T>) -> u64 {
        let room = self.capacity.saturating_sub(self.items.len());
        let lost = batch.len().saturating_sub(room);
        for item in batch.into_iter().skip(lost).rev() {
            self.items.push_front(item);
        }
        lost as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;
    use crate::identity::Role;
    use crate::identity::event::EventName;

    #[test]
    fn an_event_waits_until_its_instance_is_known() {
        let queue = Queue::new(10, Arc::default());
        queue.push(Report::Hello(Instance {
            process: ProcessKey { pid: 9, start: 1 },
            role: Role::Worker,
            service: "demo".into(),
            name: "i".into(),
            properties: Vec::new(),
        }));
        queue.push(Report::Event(Event {
            uuid: "u".to_owned(),
            service: "demo".into(),
            instance: "i".into(),
            name: EventName::Start,
            error: false,
            message: String::new(),
            parameters: Vec::new(),
            start_ms: 1,
            end_ms: None,
        }));
        assert!(queue.take_events(10).is_empty());
        assert_eq!(queue.take_changes().len(), 1);
        assert_eq!(queue.take_events(10).len(), 1);
        assert_eq!(queue.ready_at(), None);
    }

    #[test]
    fn a_full_buffer_lets_the_oldest_go() {
        let mut buffer = Buffer::new(2);
        assert_eq!([buffer.push(1), buffer.push(2), buffer.push(3)], [0, 0, 1]);
        assert_eq!(buffer.items, [2, 3]);
    }

    #[test]
    fn what_is_put_back_keeps_its_order_and_loses_the_oldest() {
        let mut buffer = Buffer::new(4);
        buffer.push(4);
        buffer.push(5);
        assert_eq!(buffer.put_back(vec![1, 2, 3]), 1);
        assert_eq!(buffer.items, [2, 3, 4, 5]);
    }
}
