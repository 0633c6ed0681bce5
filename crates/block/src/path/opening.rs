//! Opens and closes the lanes of a thread, and lanes on each other.
//!
//! Called by the table's loop and by openers of a device. A lane closes when it has no holder and every
//! request has left it.

use std::sync::Arc;

use crate::path::lane_state::LaneState;
use crate::path::lanes::Lanes;
use crate::{Device, Gate, Lane, LaneCx, LaneId, MAX_DEPTH, OpenError};

/// Identifies a device while it exists.
fn key_of(device: &Arc<dyn Device>) -> usize {
    Arc::as_ptr(device).cast::<u8>().addr()
}

/// How an opening begins.
pub(crate) enum Begun {
    /// The lane is open already, and has one more holder.
    Open(u32),
    /// The lane has a place; the device must make it.
    Place(u32),
}

impl Lanes {
    /// Opens the lane of a device, or counts one more holder. For the table's loop; an opener outside of it calls
    /// [`Table::open`](crate::path::table::Table::open), in which the device may itself open channels.
    pub(crate) fn open(&mut self, device: &Arc<dyn Device>) -> Result<u32, OpenError> {
        match self.begin_open(device)? {
            Begun::Open(index) => Ok(index),
            Begun::Place(index) => {
                let made = device.clone().lane(&mut LaneCx::new(self, index));
                self.end_open(device, index, made)
            }
        }
    }

    /// Counts one more holder of the lane of a device, or gives its lane a place.
    pub(crate) fn begin_open(&mut self, device: &Arc<dyn Device>) -> Result<Begun, OpenError> {
        if let Some(&index) = self.by_device.get(&key_of(device)) {
            if self.lanes[index as usize].is_none() {
                return Err(circle(device));
            }
            self.queues.lanes[index as usize].refs += 1;
            return Ok(Begun::Open(index));
        }
        let index = self.place(device);
        if let Some(state) = device.state() {
            let generation = self.queues.lanes[index as usize].generation;
            let registration = state.register(&self.mailbox, index, generation);
            self.queues.lanes[index as usize].set_registration(registration);
        }
        Ok(Begun::Place(index))
    }

    /// Puts the lane that the device has made into its place, or gives the place up.
    pub(crate) fn end_open(
        &mut self,
        device: &Arc<dyn Device>,
        index: u32,
        made: Result<Box<dyn Lane>, OpenError>,
    ) -> Result<u32, OpenError> {
        let checked = made.and_then(|lane| match self.height(index) {
            depth if depth > MAX_DEPTH => Err(too_deep(device, depth)),
            _ => Ok(lane),
        });
        match checked {
            Ok(lane) => {
                self.lanes[index as usize] = Some(lane);
                Ok(index)
            }
            Err(error) => {
                self.clear(index);
                Err(error)
            }
        }
    }

    /// The open lane of a device.
    pub(crate) fn lane_of(&self, device: &Arc<dyn Device>) -> Option<u32> {
        self.by_device.get(&key_of(device)).copied()
    }

    /// A place for the lane of a device that is being opened.
    fn place(&mut self, device: &Arc<dyn Device>) -> u32 {
        let states = &mut self.queues.lanes;
        let index = self.free.pop().unwrap_or_else(|| {
            states.push(LaneState::default());
            self.lanes.push(None);
            u32::try_from(states.len() - 1).expect("fewer than 2^32 lanes fit in memory")
        });
        let generation = states[index as usize].generation;
        states[index as usize] = LaneState::of(device.clone(), generation);
        self.by_device.insert(key_of(device), index);
        index
    }

    /// Opens one more device below a lane, at that lane's request.
    pub(crate) fn open_one_more(&mut self, upper: LaneId, device: &Arc<dyn Device>) {
        if self.state_of(upper).is_none() {
            return;
        }
        let opened = self.open(device).and_then(|lower| {
            let refused = if self.reaches(lower, upper.index) {
                Some(circle(device))
            } else {
                self.queues.lanes[upper.index as usize].lowers.push(lower);
                let depth = self.height(self.top_of(upper.index));
                (depth > MAX_DEPTH).then(|| too_deep(device, depth))
            };
            let Some(error) = refused else { return Ok(self.id_of(lower)) };
            if matches!(error, OpenError::TooDeep { .. }) {
                self.queues.lanes[upper.index as usize].lowers.pop();
            }
            self.release(lower);
            Err(error)
        });
        self.call(upper.index, |lane, cx| lane.opened(device, opened, cx));
    }

    /// Closes a device below a lane, at that lane's request.
    pub(crate) fn close_below(&mut self, upper: LaneId, lower: LaneId) {
        let Some(state) = self.state_of(upper) else { return };
        if let Some(at) = state.lowers.iter().position(|index| *index == lower.index) {
            state.lowers.swap_remove(at);
            self.remember_left(upper.index, lower.index);
            self.release(lower.index);
        }
    }

    /// Notes that a lane closed another one, if its requests may still be there.
    fn remember_left(&mut self, upper: u32, lower: u32) {
        if self.queues.lanes[upper as usize].epochs.is_empty() {
            return;
        }
        let lower = self.id_of(lower);
        let mut left = std::mem::take(&mut self.queues.lanes[upper as usize].left);
        left.retain(|known| *known != lower && self.state_of(*known).is_some());
        left.push(lower);
        self.queues.lanes[upper as usize].left = left;
    }

    /// Counts one holder less.
    pub(crate) fn release(&mut self, index: u32) {
        self.queues.lanes[index as usize].refs -= 1;
        self.close_if_idle(index);
    }

    /// True if `from` is `to`, or lies on it.
    fn reaches(&self, from: u32, to: u32) -> bool {
        from == to || self.queues.lanes[from as usize].lowers.iter().any(|&lower| self.reaches(lower, to))
    }

    /// Modules from a lane downwards, without the lowest device.
    fn height(&self, index: u32) -> usize {
        let LaneState { lowers, device, .. } = &self.queues.lanes[index as usize];
        let own = usize::from(device.as_ref().is_none_or(|device| device.is_module()));
        lowers.iter().map(|&lower| self.height(lower) + own).max().unwrap_or(0)
    }

    /// The highest lane above this one.
    fn top_of(&self, index: u32) -> u32 {
        let tops = self.uppers(index).into_iter().map(|upper| self.top_of(upper));
        tops.max_by_key(|&top| self.height(top)).unwrap_or(index)
    }

    /// The lanes directly above.
    pub(crate) fn uppers(&self, index: u32) -> Vec<u32> {
        let states = self.queues.lanes.iter().enumerate();
        states.filter(|(_, state)| state.lowers.contains(&index)).map(|(at, _)| at as u32).collect()
    }

    pub(crate) fn close_if_idle(&mut self, index: u32) {
        let state = &self.queues.lanes[index as usize];
        if state.device.is_some() && state.refs == 0 && state.epochs.is_empty() {
            self.clear(index);
        }
    }

    /// Drops a lane and releases the lanes it opened.
    fn clear(&mut self, index: u32) {
        self.queues.alarms.forget(self.id_of(index));
        self.queues.throttled.retain(|lane| *lane != index);
        let state = &mut self.queues.lanes[index as usize];
        let generation = state.generation.wrapping_add(1);
        let mut state = std::mem::replace(state, LaneState::free(generation));
        drop(self.lanes[index as usize].take());
        if state.always {
            self.queues.always.retain(|lane| *lane != index);
        }
        self.queues.wakes.extend(state.closing.iter().flat_map(|closing| closing.take()));
        self.queues.met.append(&mut state.quiet);
        state.take_settled(&mut self.queues.met);
        if let Some(device) = &state.device {
            self.by_device.remove(&key_of(device));
        }
        self.free.push(index);
        for lower in state.lowers {
            self.release(lower);
        }
    }

    /// Whether requests pass into the device of a lane.
    pub(crate) fn device_gate(&self, index: u32) -> Gate {
        self.queues.lanes[index as usize].registration.as_ref().map_or(Gate::Open, |entry| entry.gate())
    }
}

fn too_deep(device: &Arc<dyn Device>, depth: usize) -> OpenError {
    OpenError::TooDeep { device: device.name().to_owned(), depth, max: MAX_DEPTH }
}

fn circle(device: &Arc<dyn Device>) -> OpenError {
    OpenError::Other {
        device: device.name().to_owned(),
        reason: "it lies on itself; break the circle".to_owned(),
    }
}
