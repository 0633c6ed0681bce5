//! The ring itself: set up for what the kernel offers, submission with an overflow queue in order,
//! sleeping with a deadline.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, Probe, cqueue, opcode};

/// Submission entries of a ring; more wait in the overflow queue. Since 5.12 the kernel does not charge them
/// to locked memory; before, 256 fit the usual 64 KiB.
const ENTRIES: u32 = 256;

/// Completion entries. More operations than this may be in flight: the kernel keeps what overflows.
const COMPLETIONS: u32 = 4096;

/// One way to set up a ring.
type Setup = fn(&mut Builder<Entry, cqueue::Entry>);

/// From the best to one that every kernel with io_uring accepts.
const SETUPS: [Setup; 3] = [
    // 6.1: completions are processed when this thread asks, and a flag says that there are some.
    |b| {
        b.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    },
    // 5.19: no interrupts between cores for a thread that enters the kernel anyway.
    |b| {
        b.setup_coop_taskrun().setup_taskrun_flag();
    },
    |_| {},
];

/// One ring, used by the OS thread that made it.
pub(super) struct Ring {
    ring: IoUring,
    /// Entries that did not fit, oldest first. Warm, it does not allocate.
    overflow: VecDeque<Entry>,
    /// Number of entries that have left the overflow queue, which is the number of its first one.
    left: u64,
    /// Calls of io_uring_enter.
    pub(super) enters: u64,
    /// True if an entry may ask for no completion when it succeeds (5.17).
    pub(super) may_be_quiet: bool,
    /// True if the kernel has multishot accepts, receives and polls, and sends without copying (6.0).
    pub(super) may_go_on: bool,
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        let ring = build(ENTRIES)?;
        let may_be_quiet = ring.params().is_feature_skip_cqe_on_success();
        let mut known = Probe::new();
        let probed = again(|| ring.submitter().register_probe(&mut known));
        // Came with the same kernel as multishot receives.
        let may_go_on = probed.is_ok() && known.is_supported(opcode::SendZc::CODE);
        Ok(Ring { ring, overflow: VecDeque::new(), left: 0, enters: 0, may_be_quiet, may_go_on })
    }

    /// Queues an entry after all earlier ones. If it does not fit yet it gets a number in the overflow queue,
    /// for [taking it back](Self::take_back).
    ///
    /// # Safety
    /// What the entry points at must stay valid, and untouched where the kernel writes, until its
    /// completion was taken.
    pub(super) unsafe fn push(&mut self, entry: Entry) -> Option<u64> {
        if self.overflow.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return None;
            }
        }
        self.overflow.push_back(entry);
        Some(self.left + self.overflow.len() as u64 - 1)
    }

    /// Takes back an entry that the kernel has not seen, by its number in the overflow queue; `instead` takes
    /// its place. False if the kernel has seen it.
    pub(super) fn take_back(&mut self, number: u64, instead: Entry) -> bool {
        let place = number.checked_sub(self.left).and_then(|index| self.overflow.get_mut(index as usize));
        let is_there = place.is_some();
        place.into_iter().for_each(|entry| *entry = instead.clone());
        is_there
    }

    /// Submits queued entries and lets the kernel post finished ones, without waiting. No system call if
    /// there are none.
    pub(super) fn enter(&mut self) {
        loop {
            self.refill();
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return;
            }
            drop(queue);
            self.enters += 1;
            // EBUSY and EAGAIN mean: take completions first; EINTR: again. All of it happens next turn.
            if self.ring.submit().is_err() || self.overflow.is_empty() {
                return;
            }
        }
    }

    /// True if entries wait to be submitted, or the kernel has completed something. Only reads memory shared
    /// with the kernel.
    pub(super) fn has_news(&mut self) -> bool {
        let queue = self.ring.submission();
        let waiting = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        waiting || !self.overflow.is_empty() || !self.ring.completion().is_empty()
    }

    /// Whether the kernel has taken all entries, and everything that it posted for them can be read: what
    /// overflowed comes with a later entry into the kernel.
    pub(super) fn has_answered(&mut self) -> bool {
        let queue = self.ring.submission();
        let all = queue.is_empty() && !queue.cq_overflow();
        drop(queue);
        all && self.overflow.is_empty()
    }

    /// True if the kernel has completed something.
    pub(super) fn has_completions(&mut self) -> bool {
        let queue = self.ring.submission();
        let waiting = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        waiting || !self.ring.completion().is_empty()
    }

    /// Moves entries from the overflow queue into the ring.
    fn refill(&mut self) {
        if self.overflow.is_empty() {
            return;
        }
        let mut queue = self.ring.submission();
        while let Some(entry) = self.overflow.front() {
            // SAFETY: the promise given to `push` holds until the completion is taken.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.overflow.pop_front();
            self.left += 1;
        }
    }

    /// Submits what is queued and sleeps until something completes or the time is over. May return early.
    pub(super) fn sleep(&mut self, timeout: Option<Duration>) {
        self.refill();
        if !self.overflow.is_empty() {
            return self.enter();
        }
        self.enters += 1;
        // A time-out or an interruption is an early return, which the caller must expect anyway.
        let _ = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(span) => {
                let time = Timespec::from(span);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
    }

    /// The next completion: its user data, its result and its flags.
    pub(super) fn next_completion(&mut self) -> Option<(u64, i32, u32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result(), entry.flags()))
    }
}

fn build(entries: u32) -> io::Result<IoUring> {
    let mut refused = None;
    for setup in SETUPS {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(COMPLETIONS.max(entries));
        setup(&mut builder);
        match again(|| builder.build(entries)) {
            Ok(ring) => return Ok(ring),
            // Flags unknown to the kernel.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

/// Checks whether io_uring can be used here; the error is the reason why not.
pub(crate) fn probe() -> Result<(), String> {
    let mut ring = build(8).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("io_uring_setup is forbidden here ({error}): by seccomp or by kernel.io_uring_disabled")
        }
        Some(libc::ENOSYS) => format!("the kernel or a seccomp filter has no io_uring ({error})"),
        _ => format!("io_uring_setup failed ({error})"),
    })?;
    let params = ring.params();
    if !(params.is_feature_ext_arg() && params.is_feature_nodrop() && params.is_feature_fast_poll()) {
        return Err("the kernel's io_uring is too old: Linux 5.11 or newer is needed".into());
    }
    let mut known = Probe::new();
    again(|| ring.submitter().register_probe(&mut known))
        .map_err(|e| format!("io_uring_register failed ({e})"))?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::RecvMsg::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if let Some(code) = needed.iter().find(|code| !known.is_supported(**code)) {
        return Err(format!("the kernel's io_uring lacks operation {code}"));
    }
    // A filter may allow making a ring and forbid using it.
    // SAFETY: a no-operation points at nothing.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(|e| e.to_string())?;
    again(|| ring.submit_and_wait(1)).map_err(|error| format!("io_uring_enter failed ({error})"))?;
    Ok(())
}

/// Makes a system call, and repeats it if a signal interrupted it, which says nothing about the kernel's
/// abilities.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_the_ring_goes_in_order_and_all_of_it_completes() {
        if let Err(why) = probe() {
            eprintln!("skipped: {why}");
            return;
        }
        let mut ring = Ring::new().unwrap();
        let mut last = None;
        for i in 0..10_000 {
            // SAFETY: a no-operation points at nothing.
            let number = unsafe { ring.push(opcode::Nop::new().build().user_data(i)) };
            last = number.or(last);
        }
        let instead = || opcode::Nop::new().build().user_data(10_000);
        assert!(ring.take_back(last.expect("the ring overflows"), instead()));
        let mut seen = Vec::new();
        while seen.len() < 10_000 {
            ring.enter();
            while let Some((user_data, result, _)) = ring.next_completion() {
                assert_eq!(result, 0);
                seen.push(user_data);
            }
        }
        assert!(seen.iter().copied().eq((0..9_999).chain([10_000])), "in the order of submission");
        assert!(!ring.take_back(last.expect("seen above"), instead()), "the kernel has it");
    }

    #[test]
    fn a_call_that_a_signal_cut_off_is_made_again_and_any_other_error_is_the_answer() {
        let mut answers = [libc::EINTR, libc::EINTR, libc::EPERM].into_iter();
        let mut call = || Err::<(), _>(io::Error::from_raw_os_error(answers.next().expect("no more calls")));
        let error = again(&mut call).expect_err("the last answer");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn every_setup_down_to_the_plainest_works() {
        if probe().is_err() {
            return;
        }
        for setup in SETUPS {
            let mut builder = IoUring::builder();
            setup(&mut builder);
            let Ok(ring) = builder.build(8) else { continue };
            let mut ring = Ring {
                ring,
                overflow: VecDeque::new(),
                left: 0,
                enters: 0,
                may_be_quiet: false,
                may_go_on: false,
            };
            // SAFETY: a no-operation points at nothing.
            let _ = unsafe { ring.push(opcode::Nop::new().build().user_data(7)) };
            ring.sleep(Some(Duration::from_secs(10)));
            assert_eq!(ring.next_completion(), Some((7, 0, 0)));
        }
    }
}
