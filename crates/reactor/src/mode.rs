//! What a reactor does when it has nothing to do.

use std::fmt;

/// What a reactor does when it has nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Looks for work continuously: the least latency, a whole core.
    Poll,
    /// Sleeps in the engine at once.
    Interrupt,
    /// Looks for work a little longer than a wake-up would cost, then sleeps.
    #[default]
    Adaptive,
}

impl Mode {
    /// From its number.
    pub(crate) fn of(number: u8) -> Mode {
        match number {
            0 => Mode::Poll,
            1 => Mode::Interrupt,
            _ => Mode::Adaptive,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Poll => "poll",
            Mode::Interrupt => "interrupt",
            Mode::Adaptive => "adaptive",
        })
    }
}
