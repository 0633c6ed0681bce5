//! The table's data about one lane.
//!
//! Belongs to the lane table. A free place keeps its generation, so that the id of a closed lane never names
//! a later lane.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use spindle_reactor::WaitList;

use crate::path::clock::Clock;
use crate::path::cutting::Cutting;
use crate::path::epochs::Epochs;
use crate::path::meter::{Meter, NOT_ARRIVED};
use crate::path::notifier::Notify;
use crate::request::io::Slot;
use crate::state::device_state::Registration;
use crate::state::hindrance::{Found, Hindrance};
use crate::state::mailbox::Obligation;
use crate::state::statistics::Counters;
use crate::{Device, Gate, Geometry, Io, IoErrorKind, LaneId};

/// A device's shape as the channels of one thread see it.
pub(crate) type Shape = Rc<Cell<Geometry>>;

/// Everything the table keeps about a lane, except the lane itself.
#[derive(Default)]
pub(crate) struct LaneState {
    /// `None` while the place is free.
    pub(crate) device: Option<Arc<dyn Device>>,
    /// How many lanes have had this place.
    pub(crate) generation: u32,
    /// Channels, queue pairs and lanes above that hold it open.
    pub(crate) refs: u32,
    /// Requests that entered the lane and have not left it, queued ones included.
    pub(crate) epochs: Epochs,
    /// The device's gate, as last reported.
    pub(crate) gate: Gate,
    /// On the retry list.
    pub(crate) retrying: bool,
    /// On the list of lanes to look at when limits allow more.
    pub(crate) throttled: bool,
    /// Asked to be polled every turn.
    pub(crate) always: bool,
    /// On the list of lanes to poll in the next turn.
    pub(crate) soon: bool,
    /// Set if requests are counted.
    pub(crate) counts: bool,
    /// Set if the table must act when a request leaves.
    watched: bool,
    /// Whether a request may go straight to the lane.
    hindrance: Arc<Hindrance>,
    /// Set if the device limits its transfers.
    pub(crate) cutting: Option<Cutting>,
    /// Requests kept out by the gate or by a full lane, in order.
    pub(crate) stalled: VecDeque<Io>,
    /// Requests that wait for such ranges.
    pub(crate) held_back: Vec<Io>,
    /// Counting, timing and limits, if the device wants any.
    pub(crate) meter: Option<Box<Meter>>,
    /// The first epoch whose requests `meter` has counted.
    counted_from: u32,
    /// Lanes it opened.
    pub(crate) lowers: Vec<u32>,
    /// Lanes that it closed while requests that it had passed on may have been there.
    pub(crate) left: Vec<LaneId>,
    /// Set once it has lost a request.
    pub(crate) has_lost: bool,
    /// Set while a notification is pending.
    pub(crate) notify: Notify,
    /// Tasks that wait for it to close.
    pub(crate) closing: Option<Rc<WaitList>>,
    /// Met when every remaining request waits in front of the lane.
    pub(crate) quiet: Vec<Obligation>,
    /// Met when the requests of these epochs, and of earlier ones, have ended or wait in front of the lane.
    settling: Vec<(u32, Obligation)>,
    /// The copy of the geometry that channels share.
    pub(crate) shape: Option<Shape>,
    /// The lane's entry in the state of its device.
    pub(crate) registration: Option<Registration>,
}

impl LaneState {
    /// The state of a lane that is being opened.
    pub(crate) fn of(device: Arc<dyn Device>, generation: u32) -> LaneState {
        let cutting = Cutting::of(&device.geometry());
        let mut state =
            LaneState { device: Some(device), generation, refs: 1, cutting, ..LaneState::default() };
        state.look();
        state
    }

    /// The state of a free place.
    pub(crate) fn free(generation: u32) -> LaneState {
        LaneState { generation, ..LaneState::default() }
    }

    /// Stores the lane's entry in its device's state, and applies what the device wants.
    pub(crate) fn set_registration(&mut self, registration: Registration) {
        self.gate = registration.gate();
        self.hindrance = registration.hindrance();
        self.registration = Some(registration);
        self.follow_wanted();
    }

    /// Adapts the data beside the lane to what its device wants.
    pub(crate) fn follow_wanted(&mut self) {
        let wanted = self.registration.as_ref().map(Registration::wanted).unwrap_or_default();
        match &mut self.meter {
            Some(meter) => meter.change(wanted),
            None if wanted.is_nothing() => {}
            None => {
                // Requests already in the lane were not counted when they came.
                self.epochs.turn();
                self.counted_from = self.epochs.current();
                let shift = self.device.as_ref().map_or(9, |device| device.geometry().block_shift());
                self.meter = Some(Box::new(Meter::new(wanted, shift)));
            }
        }
        self.drop_idle_meter();
    }

    /// Drops the data beside the lane if the device wants nothing of it and nothing waits there.
    pub(crate) fn drop_idle_meter(&mut self) {
        if self.meter.as_ref().is_some_and(|meter| meter.wanted.is_nothing() && meter.waiting() == 0) {
            self.meter = None;
        }
        self.look();
    }

    pub(crate) fn counters(&self) -> Option<&Counters> {
        self.meter.as_ref().and_then(|meter| meter.wanted.counters.as_deref())
    }

    /// What a request finds in front of the lane.
    #[inline]
    pub(crate) fn hindrance(&self) -> Found {
        self.hindrance.look()
    }

    /// Recomputes `hindrance`, `counts` and `watched`; call it after any change.
    pub(crate) fn look(&mut self) {
        let limits = self.meter.as_ref().is_some_and(|meter| meter.wanted.account.is_some());
        let hinders = self.gate != Gate::Open || !self.stalled.is_empty() || limits || self.cutting.is_some();
        self.counts = self.meter.is_some();
        self.hindrance.set_own(hinders, self.counts);
        self.watched = limits
            || !self.stalled.is_empty()
            || !self.held_back.is_empty()
            || !self.quiet.is_empty()
            || !self.settling.is_empty();
    }

    /// True if the table must act after a request has left: requests may wait, or a caller for the last one.
    #[inline]
    pub(crate) fn needs_a_look(&self) -> bool {
        self.watched || self.refs == 0
    }

    /// Counts a request that arrives in front of the lane.
    #[inline]
    pub(crate) fn arrive(&mut self, io: &mut Io, clock: &mut Clock) {
        if let Some(meter) = &mut self.meter {
            meter.begin(io.slot_mut(), clock.now());
        }
    }

    /// Counts a request that leaves.
    #[inline]
    pub(crate) fn depart(&mut self, slot: &Slot, clock: &mut Clock) {
        let Some(meter) = &mut self.meter else { return };
        let arrived = slot.frames[usize::from(slot.depth)].arrived != NOT_ARRIVED;
        if !arrived || slot.held.epoch.wrapping_sub(self.counted_from).cast_signed() < 0 {
            return;
        }
        meter.end(slot, clock.now());
        if let Err(kind) = slot.status {
            self.count_error(kind);
        }
    }

    #[cold]
    fn count_error(&self, kind: IoErrorKind) {
        if let (Some(_), Some(registration)) = (self.counters(), &self.registration) {
            registration.count_error(kind);
        }
    }

    /// Queues a request after the waiting ones.
    pub(crate) fn stall(&mut self, io: Io) {
        self.stalled.push_back(io);
        self.look();
    }

    /// Puts a request for which the lane had no room before the waiting ones.
    pub(crate) fn stall_first(&mut self, io: Io) {
        self.stalled.push_front(io);
        self.look();
    }

    /// The next waiting request.
    pub(crate) fn next_stalled(&mut self) -> Option<Io> {
        let io = self.stalled.pop_front();
        self.look();
        io
    }

    /// True if a request that changes data must wait for an older one of the same blocks.
    pub(crate) fn must_wait_for_range(&self, io: &Io) -> bool {
        let held = self.hindrance.has_ranges() && io.operation().changes_data();
        held && self.registration.as_ref().is_some_and(|entry| entry.must_wait(io.start(), io.count()))
    }

    /// Removes and returns a request that waits in front of the lane.
    pub(crate) fn take_waiting(&mut self, is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        let stalled = self.stalled.iter().position(|io| is_it(io.slot()));
        let found = if let Some(at) = stalled {
            self.stalled.remove(at)
        } else if let Some(at) = self.held_back.iter().position(|io| is_it(io.slot())) {
            Some(self.held_back.remove(at))
        } else {
            self.meter.as_mut().and_then(|meter| meter.take_waiting(is_it))
        };
        self.look();
        found
    }

    /// Removes and returns all requests that wait in front of the lane.
    pub(crate) fn take_all_waiting(&mut self) -> Vec<Io> {
        let mut all: Vec<Io> = self.stalled.drain(..).chain(self.held_back.drain(..)).collect();
        if let Some(meter) = &mut self.meter {
            meter.take_all_waiting(&mut all);
        }
        self.look();
        all
    }

    /// True if every remaining request waits in front of the lane.
    pub(crate) fn is_quiet(&self) -> bool {
        let throttled = self.meter.as_ref().map_or(0, |meter| meter.waiting());
        self.epochs.in_flight() == self.stalled.len() + self.held_back.len() + throttled
    }

    /// True if its removal waits for requests.
    pub(crate) fn is_emptying(&self) -> bool {
        self.gate == Gate::Husk && !self.quiet.is_empty()
    }

    /// Begins a new epoch; `obligation` is met when the earlier requests have ended or wait in front.
    pub(crate) fn settle(&mut self, obligation: Option<Obligation>) {
        let ending = self.epochs.turn();
        self.settling.extend(obligation.map(|obligation| (ending, obligation)));
        self.look();
    }

    /// Takes the obligations that are met now.
    pub(crate) fn take_settled(&mut self, met: &mut Vec<Obligation>) {
        for (ending, obligation) in std::mem::take(&mut self.settling) {
            match self.epochs.up_to(ending) == self.waiting_up_to(ending) {
                true => met.push(obligation),
                false => self.settling.push((ending, obligation)),
            }
        }
        self.look();
    }

    /// True if an obligation waits for earlier requests.
    pub(crate) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Requests of an epoch and of earlier ones that wait in front of the lane.
    fn waiting_up_to(&self, epoch: u32) -> usize {
        let counts = |slot: &Slot| slot.held.epoch.wrapping_sub(epoch).cast_signed() <= 0;
        let here = self.stalled.iter().chain(&self.held_back).filter(|io| counts(io.slot())).count();
        here + self.meter.as_ref().map_or(0, |meter| meter.waiting_where(&counts))
    }
}
