//! The way of a request through the lanes of one thread: the lane table, its loop and what it does for lanes,
//! and the two traits that a module implements ([`device`]). Belongs to one thread; other threads send letters.

pub(crate) mod abandoning;
pub(crate) mod aborting;
pub(crate) mod alarms;
pub(crate) mod claimed;
pub(crate) mod clock;
pub(crate) mod cutting;
pub(crate) mod cx;
pub(crate) mod device;
pub(crate) mod epochs;
pub(crate) mod events;
pub(crate) mod front;
pub(crate) mod lane_state;
pub(crate) mod lanes;
pub(crate) mod layer;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod meter;
pub(crate) mod notifier;
pub(crate) mod opening;
pub(crate) mod orphans;
pub(crate) mod queues;
pub(crate) mod service;
pub(crate) mod side_queues;
pub(crate) mod stack;
pub(crate) mod table;
pub(crate) mod users;
