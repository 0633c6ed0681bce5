//! Process signals, held by the first owner that asks: one of the two exceptions of law 1 (ARCHITECTURE.md).
//!
//! A handler runs on any OS thread at any moment, so it does the minimum: one atomic addition for each
//! arrival and one unpark (an atomic exchange and perhaps a write to an eventfd). The owner decides what a
//! signal means when it calls [`Signals::arrived`].

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Unparker;

/// A signal that can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// SIGINT: ctrl-C.
    Interrupt,
    /// SIGTERM: an orderly stop.
    Terminate,
    /// SIGUSR1: a dump.
    User1,
    /// SIGHUP: the terminal has gone. A process started to ignore it, as by nohup, still ignores it.
    Hangup,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Interrupt, Signal::Terminate, Signal::User1, Signal::Hangup];

    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::User1 => libc::SIGUSR1,
            Signal::Hangup => libc::SIGHUP,
        }
    }
}

/// Why signals could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Another owner in this process holds them.
    #[error(
        "process signals are already held by '{holder}' in this process; only one Runtime may handle them: build the others without signals"
    )]
    Held {
        /// The name of the holder.
        holder: String,
    },
    /// The kernel refused.
    #[error("cannot install a handler for {signal:?}: {source}")]
    Refused {
        /// Which signal.
        signal: Signal,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The name of the holder, which may install handlers.
static HOLDER: Mutex<Option<String>> = Mutex::new(None);
/// What the handler unparks; null while the signals are not held.
static TARGET: AtomicPtr<Unparker> = AtomicPtr::new(ptr::null_mut());
/// Handlers that run now: the target must outlive them.
static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);
/// Arrivals not yet read, by signal.
static ARRIVED: [AtomicU32; Signal::ALL.len()] = [const { AtomicU32::new(0) }; Signal::ALL.len()];

/// Delivery of signals to one owner, from [`Signals::take`] until dropped, which restores the previous
/// handlers.
pub struct Signals {
    previous: Vec<(Signal, libc::sigaction)>,
}

impl Signals {
    /// Takes `signals` for `holder`. Each arrival from then on is counted, and calls `unparker`.
    pub fn take(holder: &str, signals: &[Signal], unparker: Unparker) -> Result<Signals, SignalError> {
        let mut held = lock_holder();
        if let Some(holder) = &*held {
            return Err(SignalError::Held { holder: holder.clone() });
        }
        *held = Some(holder.to_owned());
        drop(held);
        ARRIVED.iter().for_each(|count| count.store(0, Ordering::SeqCst));
        TARGET.store(Box::into_raw(Box::new(unparker)), Ordering::SeqCst);
        // From here on a failure drops `taken`, which gives back what was installed.
        let mut taken = Signals { previous: Vec::new() };
        for &signal in signals {
            let refused = |source| SignalError::Refused { signal, source };
            let previous = install(signal).map_err(refused)?;
            if signal == Signal::Hangup && previous.sa_sigaction == libc::SIG_IGN {
                restore(signal, &previous);
                continue;
            }
            taken.previous.push((signal, previous));
        }
        Ok(taken)
    }

    /// How often `signal` has arrived since the last call. One atomic exchange.
    pub fn arrived(&self, signal: Signal) -> u32 {
        ARRIVED[signal as usize].swap(0, Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.previous.iter().map(|(signal, _)| signal)).finish()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, previous) in self.previous.drain(..).rev() {
            restore(signal, &previous);
        }
        let target = TARGET.swap(ptr::null_mut(), Ordering::SeqCst);
        // A handler that read the target before the swap has counted itself first; it ends on its own, on
        // another thread, within a few instructions.
        while IN_HANDLER.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        if !target.is_null() {
            // SAFETY: made by `Box::into_raw` in `take`; no handler holds it and none can get it again.
            drop(unsafe { Box::from_raw(target) });
        }
        *lock_holder() = None;
    }
}

fn lock_holder() -> MutexGuard<'static, Option<String>> {
    HOLDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the process ignore two signals that would kill it by default: SIGXFSZ, so that a write beyond a
/// limit on the size of files fails with EFBIG, and SIGUSR1 while it is not [taken](Signals::take). Call it
/// at the start of a program; its child processes inherit it.
///
/// # Errors
/// The kernel refused.
pub fn ignore_deadly_signals() -> io::Result<()> {
    for number in [libc::SIGXFSZ, libc::SIGUSR1] {
        // SAFETY: to ignore a signal runs no code.
        if unsafe { libc::signal(number, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Restores the handler from before [`install`].
fn restore(signal: Signal, previous: &libc::sigaction) {
    // SAFETY: `previous` was the kernel's own answer when the handler was installed. A refusal would leave
    // our handler, which does nothing once the target is gone.
    unsafe { libc::sigaction(signal.number(), previous, ptr::null_mut()) };
}

/// Installs the handler and returns the previous one.
fn install(signal: Signal) -> io::Result<libc::sigaction> {
    // SAFETY: a sigaction of zeroes is valid: default action, empty mask, no flags.
    let (mut action, mut previous) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    // Restarts system calls where possible, so that other code in the process is not affected.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both pointers are to valid structures, and `on_signal` is safe to call as a handler.
    match unsafe { libc::sigaction(signal.number(), &action, &mut previous) } {
        0 => Ok(previous),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler: atomics and at most one write(2), all of it async-signal-safe; errno is kept.
extern "C" fn on_signal(number: libc::c_int) {
    // SAFETY: errno's address is always valid for the calling thread.
    let errno = unsafe { *libc::__errno_location() };
    IN_HANDLER.fetch_add(1, Ordering::SeqCst);
    if let Some(signal) = Signal::ALL.iter().find(|s| s.number() == number) {
        ARRIVED[*signal as usize].fetch_add(1, Ordering::SeqCst);
    }
    let target = TARGET.load(Ordering::SeqCst);
    if !target.is_null() {
        // SAFETY: not null, so the owner has not dropped it, and it waits for us to leave before it does.
        unsafe { &*target }.unpark();
    }
    IN_HANDLER.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}
