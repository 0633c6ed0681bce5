//! The name of a lane on its thread.

use std::marker::PhantomData;

/// Names a lane of this thread; the name of one that was closed is never used again. Another thread has other lanes, so it stays here:
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_block::LaneId>();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    here: PhantomData<*const ()>,
}

impl LaneId {
    pub(crate) fn new(index: u32, generation: u32) -> LaneId {
        LaneId { index, generation, here: PhantomData }
    }
}
