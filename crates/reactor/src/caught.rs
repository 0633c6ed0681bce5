//! Calls to foreign code (tasks, pollers, destructors) whose panics must not end the reactor.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a foreign value, and catches a panic of its destructor, which would end the reactor.
pub(crate) fn drop_caught<T>(left: T) {
    call_caught(|| drop(left));
}

/// Calls foreign code where there is no task to receive a panic: the panic hook has reported it.
pub(crate) fn call_caught(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        drop_payload(payload);
    }
}

/// A panic's message, if it was text.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic without text").to_owned();
    drop_payload(payload);
    text
}

/// Drops a panic's payload, a foreign value whose destructor may panic too.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Each payload's destructor might panic with another one, without end.
        std::mem::forget(again);
    }
}
