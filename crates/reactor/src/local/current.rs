//! The library's only thread-local: the Spindle thread that this OS thread runs now.
//!
//! Set by a reactor for the duration of a turn, a completion or a message; empty otherwise.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use crate::diagnosis::wait::Wait;
use crate::local::thread_core::ThreadCore;

thread_local! {
    /// Never dropped, so that reading it is a load: [`Entered`] clears it.
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
    let replace = |current: &RefCell<_>| current.replace(ManuallyDrop::new(core));
    ManuallyDrop::into_inner(CURRENT.try_with(replace).expect("a thread-local without a destructor"))
}

/// Notes what the current task is about to wait for; the last note before the task yields counts.
#[inline]
pub(crate) fn note(wait: Wait) {
    with(|core| {
        if let Some(core) = core {
            core.tasks.note_wait(wait);
        }
    });
}
