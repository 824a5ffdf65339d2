//! What waits to be sent: bounded, the oldest goes first when it is full, and every loss is counted.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::Hash;
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
use crate::report::encode;
use crate::stats::Reason;
use crate::stats::SharedDrops;

/// How many segments, or events, go in one stream at most.
const BATCH: usize = 500;
/// Of how many instances the meters go in one stream at most: some hundred KiB.
const METERS: usize = 100;
/// How long a segment waits for others to share its stream. An event does, too: OAP has two queues for events and takes
/// what is in them at one time in any order, and a begin that it takes last overwrites what the end said. So they must not
/// come at one time (OAP: `MetricsAggregateWorker`, `Event.combine`; it looks every 20 ms).
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
    /// As they are sent: one piece of memory each, half of what a segment takes that waits, and little for another thread to
    /// give back.
    segments: Buffer<Arc<[u8]>>,
    /// Where the next one is encoded.
    encoded: Vec<u8>,
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
            encoded: Vec::new(),
            meters: Buffer::new(capacity),
            events: Buffer::new(capacity),
            in_flight: 0,
            stopping: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), drops }
    }

    /// Never waits; wakes the sending task only when it has something to do.
    pub(super) fn push(&self, report: Report) {
        let mut locked = self.lock();
        let state = &mut *locked;
        let (wake, lost) = match report {
            Report::Hello(instance) => {
                state.changes.push(Change::Hello(instance));
                (true, 0)
            }
            Report::Bye(instance) => {
                state.changes.push(Change::Bye(instance));
                (true, 0)
            }
            Report::Role(_) => (false, 0), // printed only
            Report::Meters(batch) => (true, state.meters.push(batch).1),
            Report::Event(event) => state.events.push(event),
            Report::Segment(segment) => {
                state.encoded.clear();
                encode::segment(&segment, &mut state.encoded);
                state.segments.push(state.encoded.as_slice().into())
            }
        };
        drop(locked);
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
        let meters = (!state.meters.items.is_empty()).then_some(now);
        let due = [meters, state.segments.due(now, state.stopping), state.events.due(now, state.stopping)];
        due.into_iter().flatten().min()
    }

    /// The oldest segments if their time has come, else none.
    pub(super) fn take_segments(&self) -> Vec<Arc<[u8]>> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.segments.due(now, state.stopping).is_none_or(|due| due > now) {
            return Vec::new();
        }
        let batch = state.segments.take(BATCH);
        state.segments.due = state.segments.due.map(|_| now + LINGER);
        state.in_flight = batch.len() as u64;
        batch
    }

    /// The oldest meters.
    pub(super) fn take_meters(&self) -> Vec<MeterBatch> {
        let mut state = self.lock();
        let batches = state.meters.take(METERS);
        state.in_flight = batches.len() as u64;
        batches
    }

    /// The oldest events if their time has come, `limit` at most. None while somebody waits to be taken in by
    /// [`Self::take_changes`]: an instance comes before what happened to it. Of one that ended while its begin waited only
    /// the end is left, which says all.
    pub(super) fn take_events(&self, limit: usize) -> Vec<Event> {
        let mut state = self.lock();
        let now = Instant::now();
        let due = state.events.due(now, state.stopping).is_some_and(|due| due <= now);
        if !due || !state.changes.is_empty() {
            return Vec::new();
        }
        state.events.keep_last_of(|event| &event.uuid);
        let batch = state.events.take(limit.min(BATCH));
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
    pub(super) fn put_back_segments(&self, batch: Vec<Arc<[u8]>>) {
        self.put_back(|state| state.segments.put_back(batch));
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
        let waiting = state.segments.clear() + state.meters.clear() + state.events.clear();
        let left = std::mem::take(&mut state.in_flight) + waiting as u64;
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
    /// When they need not wait any longer for others; `None` if there are none.
    due: Option<Instant>,
}

impl<T> Buffer<T> {
    fn new(capacity: usize) -> Self {
        Self { items: VecDeque::new(), capacity: capacity.max(1), due: None }
    }

    /// Whether that changes when they are due, and how many of the oldest had to go.
    fn push(&mut self, item: T) -> (bool, u64) {
        let full = self.items.len() >= self.capacity;
        if full {
            self.items.pop_front();
        }
        self.items.push_back(item);
        let first = self.due.is_none();
        self.due.get_or_insert_with(|| Instant::now() + LINGER);
        (first || self.items.len() == BATCH, u64::from(full))
    }

    /// When they are to be sent: in a hurry and as a full batch at once.
    fn due(&self, now: Instant, hurry: bool) -> Option<Instant> {
        self.due.map(|due| if hurry || self.items.len() >= BATCH { now } else { due })
    }

    /// The oldest, `limit` at most.
    fn take(&mut self, limit: usize) -> Vec<T> {
        let len = self.items.len().min(limit);
        let batch = self.items.drain(..len).collect();
        if self.items.is_empty() {
            self.due = None;
        }
        batch
    }

    /// Of those with one `key` only the last is left.
    fn keep_last_of<K: Hash + Eq>(&mut self, key: impl Fn(&T) -> &K) {
        let mut seen = HashSet::with_capacity(self.items.len());
        let last: Vec<_> = self.items.iter().rev().map(|item| seen.insert(key(item))).collect();
        let mut last = last.into_iter().rev();
        self.items.retain(|_| last.next().unwrap_or(true));
    }

    /// To the front, as far as there is room, and due at once; returns how many of the oldest did not fit.
    fn put_back(&mut self, batch: Vec<T>) -> u64 {
        let room = self.capacity.saturating_sub(self.items.len());
        let lost = batch.len().saturating_sub(room);
        for item in batch.into_iter().skip(lost).rev() {
            self.items.push_front(item);
        }
        self.due = (!self.items.is_empty()).then(Instant::now);
        lost as u64
    }

    /// Lets go of all and says how many that were.
    fn clear(&mut self) -> usize {
        self.due = None;
        std::mem::take(&mut self.items).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ProcessKey;
    use crate::identity::Role;
    use crate::identity::event::EventName;

    fn event(uuid: &str, end_ms: Option<i64>) -> Report {
        Report::Event(Event {
            uuid: uuid.to_owned(),
            service: "demo".into(),
            instance: "i".into(),
            name: EventName::Start,
            error: false,
            message: String::new(),
            parameters: Vec::new(),
            start_ms: 1,
            end_ms,
        })
    }

    /// As if [`LINGER`] had passed.
    fn wait_out(queue: &Queue) {
        queue.lock().events.due = Some(Instant::now());
    }

    #[test]
    fn an_event_waits_until_its_instance_is_known_and_for_others() {
        let queue = Queue::new(10, Arc::default());
        queue.push(Report::Hello(Instance {
            process: ProcessKey { pid: 9, start: 1 },
            role: Role::Worker,
            service: "demo".into(),
            name: "i".into(),
            properties: Vec::new(),
            pace: crate::identity::Pace::default(),
        }));
        queue.push(event("u", None));
        assert!(queue.take_events(10).is_empty());
        wait_out(&queue);
        assert!(queue.take_events(10).is_empty());
        assert_eq!(queue.take_changes().len(), 1);
        assert_eq!(queue.take_events(10).len(), 1);
        assert_eq!(queue.ready_at(), None);
    }

    #[test]
    fn begin_and_end_of_an_event_are_not_taken_together() {
        let queue = Queue::new(10, Arc::default());
        for (uuid, end) in [("a", None), ("b", None), ("a", Some(2)), ("c", Some(3))] {
            queue.push(event(uuid, end));
        }
        wait_out(&queue);
        let taken = |limit| -> Vec<_> {
            queue.take_events(limit).into_iter().map(|event| (event.uuid, event.end_ms)).collect()
        };
        assert_eq!(taken(1), [("b".to_owned(), None)]);
        assert_eq!(taken(9), [("a".to_owned(), Some(2)), ("c".to_owned(), Some(3))]);
        queue.push(event("b", Some(4)));
        assert!(taken(9).is_empty(), "it waits a second after its begin");
        queue.stop();
        assert_eq!(taken(9), [("b".to_owned(), Some(4))]);
    }

    #[test]
    fn a_full_buffer_lets_the_oldest_go() {
        let mut buffer = Buffer::new(2);
        assert_eq!([1, 2, 3].map(|item| buffer.push(item)), [(true, 0), (false, 0), (false, 1)]);
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
