//! Interest in a descriptor, as the kernel's flags and back.

use rustix::event::PollFlags;

use crate::Interest;

/// What to ask the kernel for.
pub(crate) fn wanted(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.readable);
    flags.set(PollFlags::OUT, interest.writable);
    flags
}

/// The kernel's answer; an error or a hang-up is ready for both.
pub(crate) fn told(flags: PollFlags) -> Interest {
    let both = flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
    Interest {
        readable: both || flags.contains(PollFlags::IN),
        writable: both || flags.contains(PollFlags::OUT),
    }
}
