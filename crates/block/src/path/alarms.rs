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

    /// The lanes whose time has come; their alarms are removed.
    pub(crate) fn take_due(&mut self, now: Time) -> Vec<LaneId> {
        let due = self.0.iter().filter(|(_, time)| *time <= now).map(|(lane, _)| *lane).collect();
        self.0.retain(|(_, time)| *time > now);
        due
    }

    /// The earliest alarm.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().map(|(_, time)| *time).min()
    }
}
