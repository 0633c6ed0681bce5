//! State shared by the lanes of one device: their places, the gate in front of them, statistics and limits,
//! and ranges that older writes may still reach.
//!
//! Owned by the device and used from any thread. Its lock is taken when a lane opens or closes, when an event
//! is sent, and when statistics are asked for; a request that succeeds never takes it. An event reaches each
//! lane as a message to its thread.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use spindle_reactor::Thread;

use crate::state::hindrance::Hindrance;
use crate::state::histogram::LaneHistogram;
use crate::state::limits::Account;
use crate::state::mailbox::{Body, Letter, Mailbox, Obligation, locked};
use crate::state::ranges::Ranges;
use crate::state::statistics::Counters;
use crate::state::turn::{Turn, Turns};
use crate::state::wanted::Wanted;
use crate::{
    Delivered, ErrorCounts, Gate, Histogram, HistogramOptions, IoErrorKind, LaneEvent, Limits, Statistics,
    StatisticsReset,
};

/// Shared by a [`Device`](crate::Device) and its lanes on all threads. Clones are handles on the same state.
#[derive(Clone, Default)]
pub struct DeviceState(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    ranges: Ranges,
}

#[derive(Default)]
struct Inner {
    /// Number of live [`Frozen`] values.
    freezes: u32,
    removed: bool,
    /// Operations that must be alone on the device.
    turns: Turns,
    next: u64,
    lanes: BTreeMap<u64, LaneRef>,
    statistics: bool,
    histogram: Option<HistogramOptions>,
    account: Option<Arc<Account>>,
    /// Statistics of closed lanes.
    past: Statistics,
    past_histogram: Option<Histogram>,
    errors: ErrorCounts,
    /// The same for each open lane that has some, by its key.
    errors_of: BTreeMap<u64, ErrorCounts>,
}

/// The place of one lane, and its counters.
struct LaneRef {
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
    wanted: Wanted,
}

impl Inner {
    fn gate(&self) -> Gate {
        match (self.removed, self.freezes) {
            (true, _) => Gate::Husk,
            (false, 0) => Gate::Open,
            (false, _) => Gate::Frozen,
        }
    }

    /// The new settings of a lane whose settings were `before`.
    fn wanted(&self, before: &Wanted) -> Wanted {
        let same = before.histogram.as_ref().filter(|known| Some(known.options) == self.histogram).cloned();
        Wanted {
            counters: self.statistics.then(|| before.counters.clone().unwrap_or_default()),
            histogram: self
                .histogram
                .map(|options| same.unwrap_or_else(|| Arc::new(LaneHistogram::new(options)))),
            account: self.account.clone(),
        }
    }

    /// Keeps the counts of a lane that stops counting.
    fn keep(&mut self, counters: &Counters) {
        let last = Statistics { in_flight: 0, ..counters.read() };
        self.past.add(last);
    }
}

impl DeviceState {
    /// The state of an open device without lanes.
    pub fn new() -> DeviceState {
        DeviceState::default()
    }

    /// Whether requests pass into the lanes of the device.
    pub fn gate(&self) -> Gate {
        locked(&self.0.inner).gate()
    }

    /// Lanes that are open, on all threads.
    pub fn lanes(&self) -> usize {
        locked(&self.0.inner).lanes.len()
    }

    /// The threads that have a lane of the device; tables stepped by hand are left out.
    pub fn threads(&self) -> Vec<Thread> {
        locked(&self.0.inner).lanes.values().filter_map(|lane| lane.mailbox.thread().cloned()).collect()
    }

    /// Tells the lanes that the geometry has changed. To grow: change the geometry, then call this. To
    /// shrink: [freeze](Self::freeze), change it, call this, thaw. Channels and lanes above update their
    /// copies when the event arrives.
    pub fn resized(&self) -> Delivered {
        self.tell(Body::Event(LaneEvent::Resized), |_| {})
    }

    /// Sends every lane an event of the module's own.
    pub fn send(&self, event: Arc<dyn Any + Send + Sync>) -> Delivered {
        self.tell(Body::Event(LaneEvent::Module(event)), |_| {})
    }

    /// Keeps requests out of the lanes and waits until those that are in them have ended. Requests that come
    /// wait in order until the [`Frozen`] is dropped, which also happens when this future is dropped.
    /// Freezing twice needs thawing twice.
    pub async fn freeze(&self) -> Frozen {
        let (frozen, quiet) = self.begin_freeze();
        quiet.await;
        frozen
    }

    /// As [`freeze`](Self::freeze), but returns the wait separately.
    pub(crate) fn begin_freeze(&self) -> (Frozen, Delivered) {
        let quiet = self.tell(Body::Event(LaneEvent::Freeze), |inner| inner.freezes += 1);
        (Frozen(self.clone()), quiet)
    }

    /// Sends a letter of the lane table to every lane.
    pub(crate) fn tell_lanes(&self, body: Body) -> Delivered {
        self.tell(body, |_| {})
    }

    /// Sends an event of the lane table to every lane.
    pub(crate) fn tell_event(&self, event: LaneEvent) -> Delivered {
        self.tell(Body::Event(event), |_| {})
    }

    /// Takes a place in the queue for a turn on the device. `waker` is called when the turn comes.
    pub(crate) fn take_turn(&self, waker: Waker) -> Turn {
        let key = self.turns(|turns| turns.ask(waker));
        Turn::new(self.clone(), key)
    }

    pub(crate) fn turns<R>(&self, f: impl FnOnce(&mut Turns) -> R) -> R {
        f(&mut locked(&self.0.inner).turns)
    }

    /// Turns the lanes into husks, for good: waiting and new requests end as
    /// [`Removed`](crate::IoErrorKind::Removed), and lanes opened later are husks too. Resolves when every
    /// request that the lanes held has ended.
    pub fn remove(&self) -> Delivered {
        self.tell(Body::Event(LaneEvent::Removed), |inner| inner.removed = true)
    }

    /// Starts or stops counting in the lanes. Existing counts stay.
    pub fn keep_statistics(&self, yes: bool) -> Delivered {
        self.want(|inner| inner.statistics = yes)
    }

    /// The counts of all lanes. Lanes of other threads go on counting meanwhile.
    pub fn statistics(&self) -> Statistics {
        let inner = locked(&self.0.inner);
        let mut sum = inner.past.clone();
        inner
            .lanes
            .values()
            .filter_map(|lane| lane.wanted.counters.as_ref())
            .for_each(|one| sum.add(one.read()));
        sum
    }

    /// The counts of each open lane and its failed requests, with its thread.
    pub fn lane_statistics(&self) -> Vec<(Option<Thread>, Statistics, ErrorCounts)> {
        let inner = locked(&self.0.inner);
        let counted = inner.lanes.iter().filter_map(|(key, lane)| {
            let counters = lane.wanted.counters.as_ref()?;
            let errors = inner.errors_of.get(key).cloned().unwrap_or_default();
            Some((lane.mailbox.thread().cloned(), counters.read(), errors))
        });
        counted.collect()
    }

    /// Failed requests, counted while statistics are kept.
    pub fn errors(&self) -> ErrorCounts {
        locked(&self.0.inner).errors.clone()
    }

    /// Resets the counts. Resolves when every thread has done so.
    pub fn reset_statistics(&self, what: StatisticsReset) -> Delivered {
        self.tell(Body::Reset(what), |inner| {
            inner.past.reset(what);
            if matches!(what, StatisticsReset::All | StatisticsReset::Errors) {
                inner.errors.clear();
                inner.errors_of.clear();
            }
        })
    }

    /// Starts a new histogram of times in the lanes, or ends it. Earlier counts are forgotten.
    pub fn keep_histogram(&self, options: Option<HistogramOptions>) -> Delivered {
        self.want(|inner| {
            inner.histogram = options;
            inner.past_histogram = None;
            inner.lanes.values_mut().for_each(|lane| lane.wanted.histogram = None);
        })
    }

    /// The histogram, if one is kept.
    pub fn histogram(&self) -> Option<Histogram> {
        let inner = locked(&self.0.inner);
        let past = inner.past_histogram.clone();
        let mut sum = past.or_else(|| inner.histogram.map(Histogram::new))?;
        inner.lanes.values().filter_map(|lane| lane.wanted.histogram.as_ref()).for_each(|one| sum.add(one));
        Some(sum)
    }

    /// Limits the load on the device, over all threads together, from now on. Waiting requests follow the new
    /// limits at once. A limit of 0 counts as 1.
    pub fn set_limits(&self, limits: Limits) -> Delivered {
        self.want(|inner| {
            // The same limits again change nothing.
            if inner.account.as_ref().is_none_or(|account| account.limits() != limits) {
                inner.account = Account::new(limits, inner.account.as_deref()).map(Arc::new);
            }
        })
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        locked(&self.0.inner).account.as_ref().map(|account| account.limits()).unwrap_or_default()
    }

    /// Changes what the table does beside the lanes.
    fn want(&self, change: impl FnOnce(&mut Inner)) -> Delivered {
        self.tell(Body::Wanted, |inner| {
            change(inner);
            let mut lanes = std::mem::take(&mut inner.lanes);
            for lane in lanes.values_mut() {
                let wanted = inner.wanted(&lane.wanted);
                let before = std::mem::replace(&mut lane.wanted, wanted);
                if lane.wanted.counters.is_none()
                    && let Some(counters) = before.counters
                {
                    inner.keep(&counters);
                }
            }
            inner.lanes = lanes;
        })
    }

    /// Changes the state and sends a letter to every lane that exists then.
    fn tell(&self, body: Body, change: impl FnOnce(&mut Inner)) -> Delivered {
        let (first, delivered) = Obligation::new();
        let mut to_ring = Vec::new();
        let mut inner = locked(&self.0.inner);
        change(&mut inner);
        // Sent under the lock, so that two letters reach every lane in the same order.
        for LaneRef { mailbox, lane, generation, .. } in inner.lanes.values() {
            let (body, obligation) = (body.clone(), Some(first.clone()));
            let letter = Letter { lane: *lane, generation: *generation, body, obligation };
            if mailbox.leave(letter) {
                to_ring.push(mailbox.clone());
            }
        }
        drop(inner);
        to_ring.iter().for_each(Mailbox::ring);
        delivered
    }

    pub(crate) fn ranges(&self) -> &Ranges {
        &self.0.ranges
    }

    /// Registers a new lane of a thread.
    pub(crate) fn register(&self, mailbox: &Arc<Mailbox>, lane: u32, generation: u32) -> Registration {
        let mut inner = locked(&self.0.inner);
        let key = inner.next;
        inner.next += 1;
        let wanted = inner.wanted(&Wanted::default());
        inner.lanes.insert(key, LaneRef { mailbox: mailbox.clone(), lane, generation, wanted });
        drop(inner);
        let hindrance = self.ranges().add_lane(key);
        Registration { state: self.clone(), mailbox: mailbox.clone(), lane, generation, key, hindrance }
    }
}

impl std::fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceState({:?}, {} lanes)", self.gate(), self.lanes())
    }
}

/// A device that is frozen while this exists.
#[must_use = "dropping this thaws the device"]
pub struct Frozen(DeviceState);

impl Drop for Frozen {
    fn drop(&mut self) {
        let thaw = Body::Event(LaneEvent::Thaw);
        let _arrives_by_itself = self.0.tell(thaw, |inner| inner.freezes -= 1);
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frozen({:?})", self.0)
    }
}

/// A lane's entry in the state of its device; dropping it removes the entry.
pub(crate) struct Registration {
    state: DeviceState,
    mailbox: Arc<Mailbox>,
    lane: u32,
    generation: u32,
    key: u64,
    hindrance: Arc<Hindrance>,
}

impl Registration {
    pub(crate) fn state(&self) -> &DeviceState {
        &self.state
    }

    pub(crate) fn gate(&self) -> Gate {
        self.state.gate()
    }

    /// What the table does beside the lane.
    pub(crate) fn wanted(&self) -> Wanted {
        let inner = locked(&self.state.0.inner);
        inner.lanes.get(&self.key).map(|lane| lane.wanted.clone()).unwrap_or_default()
    }

    pub(crate) fn count_error(&self, kind: IoErrorKind) {
        let mut inner = locked(&self.state.0.inner);
        *inner.errors.entry(kind.class()).or_default() += 1;
        *inner.errors_of.entry(self.key).or_default().entry(kind.class()).or_default() += 1;
    }

    /// The lane's word.
    pub(crate) fn hindrance(&self) -> Arc<Hindrance> {
        self.hindrance.clone()
    }

    /// True if a change of these blocks must wait for an older one; the lane is notified when it need not.
    pub(crate) fn must_wait(&self, start: u64, count: u64) -> bool {
        self.state.ranges().must_wait(start, count, &self.mailbox, self.lane, self.generation)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.state.ranges().remove_lane(self.key);
        let mut inner = locked(&self.state.0.inner);
        inner.errors_of.remove(&self.key);
        let Some(LaneRef { wanted, .. }) = inner.lanes.remove(&self.key) else { return };
        if let Some(counters) = wanted.counters {
            inner.keep(&counters);
        }
        if let Some(histogram) = wanted.histogram
            && let Some(options) = inner.histogram
        {
            inner.past_histogram.get_or_insert_with(|| Histogram::new(options)).add(&histogram);
        }
    }
}
