//! The users of a device: channels with futures, queue pairs without, and loads for measuring.

pub(crate) mod channel;
pub mod load;
pub(crate) mod load_layers;
pub(crate) mod queue_pair;
pub(crate) mod transfer;
