//! A panic's report is not a stall: to print a backtrace takes longer than the watchdog allows a call.
//!
//! The hook is the process's, as there is no other way to learn that a thread panics before its report is printed.
//! It is set once, in front of the one that was there, and holds nothing; a program that sets its own afterwards
//! takes it away, and may then see a stall beside a panic.

use std::sync::Once;

use crate::current;

static SET: Once = Once::new();

/// Has reports of panics on Spindle threads not counted as time of the call that panicked.
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
