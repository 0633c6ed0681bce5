//! Process signals, held by the one owner that asked: the second of law 1's two exceptions.

use crate::Unparker;

/// A signal that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// SIGINT: ctrl-C.
    Interrupt,
    /// SIGTERM: an orderly stop.
    Terminate,
    /// SIGUSR1: a dump.
    User1,
}

/// Signals could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Another owner in this process holds them.
    #[error(
        "process signals are already held by '{holder}' in this process; only one Runtime may handle them: build the others without signals"
    )]
    Held {
        /// The name the holder gave.
        holder: String,
    },
    /// The kernel refused.
    #[error("cannot install a handler for {signal:?}: {source}")]
    Refused {
        /// Which signal.
        signal: Signal,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Delivery of signals to one owner, from [`Signals::take`] until dropped; then the handlers that were
/// there before are back. The handler only counts and unparks.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Takes `signals` for `holder`; each arrival is counted and ends a [`park`](crate::Driver::park).
    pub fn take(holder: &str, signals: &[Signal], unparker: Unparker) -> Result<Signals, SignalError> {
        let _ = (holder, signals, unparker);
        todo!()
    }

    /// How often `signal` arrived since the last call. Cheap: one atomic exchange.
    pub fn arrived(&self, signal: Signal) -> u32 {
        let _ = signal;
        todo!()
    }
}
