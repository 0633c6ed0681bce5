//! What code asks of the thread that runs it: its clock, its reactor, a new task, a value per thread.

use std::any::TypeId;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::rc::Rc;
use std::task::Poll;

use spindle_engine::Time;

use crate::diagnosis::wait::Wait;
use crate::local::current::{self, expect, with};
use crate::message::join::JoinHandle;
use crate::say::ReportLevel;

/// Starts a future on the current thread. Dropping the handle lets it run to its end.
///
/// # Panics
/// Outside a Spindle thread.
#[track_caller]
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    JoinHandle::spawn_local(&expect("spawn_local"), future, Location::caller())
}

/// Says what a part does, such as "bdev" or "nbd", to the [`Reporter`](crate::Reporter) of the runtime that runs the caller. The
/// text is made only if it is wanted. Without effect outside a runtime, or in one without a reporter. Not for the path
/// of requests: it takes a call of the reporter.
pub fn tell(part: &'static str, text: impl FnOnce() -> String) {
    report(ReportLevel::Info, part, text);
}

/// As [`tell`], of something that is not as it was meant to be, or that failed. Once for each event, not for each request
/// that it concerns.
pub fn report(level: ReportLevel, part: &'static str, text: impl FnOnce() -> String) {
    let reporter =
        with(|core| core.and_then(|core| core.local.shared.reports.interested_in(level, part).cloned()));
    if let Some(reporter) = reporter {
        reporter.report(level, part, &text());
    }
}

/// The time at which the current turn began. One clock reading serves a whole turn.
///
/// # Panics
/// Outside a Spindle thread.
pub fn now() -> Time {
    expect("now").local.now.get()
}

/// The time now, by a separate reading of the clock; `None` outside a Spindle thread. For measuring only;
/// other code uses [`now`].
#[inline]
pub fn clock() -> Option<Time> {
    with(|core| core.map(|core| core.local.driver.borrow_mut().now()))
}

/// A random number; seeded in simulation.
///
/// # Panics
/// Outside a Spindle thread.
pub fn random() -> u64 {
    expect("random").local.driver.borrow_mut().random()
}

/// The core that runs the caller now, according to the kernel; in simulation the simulated core.
///
/// # Panics
/// Outside a Spindle thread.
pub fn current_cpu() -> usize {
    let local = &expect("current_cpu").local;
    if local.simulated { local.shared.cores[local.index] } else { local.driver.borrow().cpu() }
}

/// The number of the reactor that runs the caller, from 0.
///
/// # Panics
/// Outside a Spindle thread.
pub fn reactor_index() -> usize {
    expect("reactor_index").local.index
}

/// The busy shares of the runtime's reactors in the last second, 0 to 1, by number: for a program that places
/// connections. Asks no reactor. Time that a call under way has taken is not in it yet. In simulation nothing
/// takes time, and all are 0.
///
/// # Panics
/// Outside a Spindle thread.
pub fn reactor_loads() -> Vec<f64> {
    let local = &expect("reactor_loads").local;
    let now = local.clock();
    local.shared.ports.iter().map(|port| port.load.share(now)).collect()
}

/// Lets the thread's other work go first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The current thread's single value of type `T`: made by `Default` on first use, dropped when the thread
/// exits. For layers above that keep a table per thread.
///
/// # Panics
/// Outside a Spindle thread.
#[inline]
pub fn extension<T: Default + 'static>() -> Rc<T> {
    let id = TypeId::of::<T>();
    let known = with(|core| core?.extension(id));
    let value = known.unwrap_or_else(|| {
        // Made while nothing is borrowed: `Default` may ask for another extension, or for this one.
        let (core, made) = (expect("extension"), Rc::<T>::default());
        core.extension(id).unwrap_or_else(|| {
            core.extensions.borrow_mut().push((id, made.clone()));
            made
        })
    });
    value.downcast().unwrap_or_else(|_| unreachable!("filed under its own type"))
}

/// Sets what dumps show as the current task's wait: "a free lane", "room in the journal". A future of a layer
/// above calls it just before it returns `Pending`; the last call before the task yields counts. No effect
/// outside a Spindle thread.
pub fn waits_for(what: &'static str) {
    current::note(Wait::Named(what));
}

/// As [`waits_for`], for a name that is made for this wait: with the object that is waited for.
pub fn waits_for_this(what: Rc<str>) {
    current::note(Wait::Described(what));
}
