//! The library's only thread-local: the Spindle thread that this OS thread runs now.
//!
//! Set by a reactor for the duration of a turn, a completion or a message; empty otherwise.

use std::any::TypeId;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::rc::Rc;
use std::task::Poll;

use spindle_engine::Time;

use crate::core::ThreadCore;
use crate::join::LocalJoinHandle;

thread_local! {
    /// Never dropped by itself, so that reading it is a load: [`Entered`] clears it.
    static CURRENT: RefCell<ManuallyDrop<Option<Rc<ThreadCore>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Calls `f` with the current thread, if there is one. `f` may call this again, but must not make another
/// thread the current one. So `f` must not run code of tasks (which may step a runner): for those, use
/// [`cloned`].
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(Option<&Rc<ThreadCore>>) -> R) -> R {
    // `try_with` is inlined, `with` is not, and nothing here is ever destroyed.
    CURRENT.try_with(|current| f(current.borrow().as_ref())).expect("a thread-local without a destructor")
}

/// The current thread, if there is one.
pub(crate) fn cloned() -> Option<Rc<ThreadCore>> {
    with(|core| core.cloned())
}

/// The current thread.
///
/// # Panics
/// Outside a Spindle thread: `what` names the function that needs one.
pub(crate) fn expect(what: &str) -> Rc<ThreadCore> {
    match cloned() {
        Some(core) => core,
        None => panic!("{what} needs a Spindle thread; call it inside Runtime::run or Thread::run"),
    }
}

/// Makes `core` the current thread until dropped; then restores the previous one.
pub(crate) struct Entered(Option<Rc<ThreadCore>>);

impl Entered {
    pub(crate) fn new(core: &Rc<ThreadCore>) -> Entered {
        Entered(exchange(Some(core.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // The code that ran may have changed what the thread waits for.
        if let Some(core) = exchange(self.0.take()) {
            core.local.ready.list(&core);
        }
    }
}

/// Replaces the current thread; returns the previous one.
#[inline]
fn exchange(core: Option<Rc<ThreadCore>>) -> Option<Rc<ThreadCore>> {
    let before = CURRENT.with(|current| current.replace(ManuallyDrop::new(core)));
    ManuallyDrop::into_inner(before)
}

/// Starts a future on the current thread. Dropping the handle lets it run to its end.
///
/// # Panics
/// Outside a Spindle thread.
#[track_caller]
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> LocalJoinHandle<T> {
    LocalJoinHandle::spawn(&expect("spawn_local"), future, Location::caller())
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
