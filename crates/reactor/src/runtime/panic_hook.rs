//! Keeps the report of a panic from counting as a stall: printing a backtrace takes longer than the watchdog
//! allows.
//!
//! The hook is global to the process, as there is no other way to learn of a panic before its report is
//! printed. It is set once, calls the previous one, and holds nothing. A program that sets its own hook
//! afterwards removes this one, and may then see a stall beside a panic.

use std::sync::Once;

use crate::local::current;

static SET: Once = Once::new();

/// Sets the hook, so that reports of panics on Spindle threads do not count as time of the panicking call.
pub(crate) fn set() {
    SET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let shared = current::cloned().map(|core| (core.local.shared.clone(), core.local.index));
            let paused = shared.as_ref().map(|(shared, index)| shared.ports[*index].activity.pause());
            report(panic);
            if let (Some((shared, index)), Some(paused)) = (shared, paused) {
                shared.ports[index].activity.resume(paused);
            }
        }));
    });
}
