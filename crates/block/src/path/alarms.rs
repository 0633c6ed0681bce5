//! Alarms of lanes that must be polled at a certain time, for layers that hold requests for a while.
//!
//! Part of the table's queues. A lane has at most one alarm, so the list is as long as there are such lanes.

use spindle_reactor::Time;

use crate::LaneId;

/// The alarms of a table.
#[derive(Default)]
pub(crate) struct Alarms(Vec<(LaneId, Time)>);

impl Alarms {
    /// Sets a lane's alarm, unless it has an earlier one.
    pub(crate) fn set(&mut self, lane: LaneId, time: Time) {
        match self.0.iter_mut().find(|(known, _)| *known == lane) {
            Some((_, known)) => *known = time.min(*known),
            None => self.0.push((lane, time)),
        }
    }

    /// A lane whose time has come; its alarm is removed.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<LaneId> {
        let at = self.0.iter().position(|(_, time)| *time <= now)?;
        Some(self.0.swap_remove(at).0)
    }

    /// Removes the alarm of a lane that closes.
    pub(crate) fn forget(&mut self, lane: LaneId) {
        self.0.retain(|(known, _)| *known != lane);
    }

    /// Lanes with an alarm.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The earliest alarm.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().map(|(_, time)| *time).min()
    }
}
