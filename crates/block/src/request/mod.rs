//! Requests: the pooled body, the queues, requests cut into pieces, and the makers that wait. All of it
//! belongs to the lane table of one thread. Nothing here calls a lane.

pub(crate) mod io;
pub(crate) mod joins;
pub(crate) mod lane_id;
pub(crate) mod queue;
pub(crate) mod waiter;
