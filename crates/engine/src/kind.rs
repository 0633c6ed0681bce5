//! The choice of engine as text: `SPINDLE_ENGINE`.

use std::fmt;
use std::str::FromStr;

/// The environment variable that picks the engine.
pub const ENGINE_VARIABLE: &str = "SPINDLE_ENGINE";

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring where the kernel allows it, epoll otherwise.
    #[default]
    Auto,
    /// io_uring, or an error with the reason why not.
    IoUring,
    /// epoll, with worker threads for files.
    Epoll,
    /// The simulation, with its seed.
    Sim(u64),
}

/// A word that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' names no engine; use auto, io_uring, epoll, or sim:SEED with a seed from 0 to 2^64-1")]
pub struct BadEngineKind {
    /// What was given.
    pub word: String,
}

impl EngineKind {
    /// What `SPINDLE_ENGINE` asks for; [`EngineKind::Auto`] when it is unset or empty.
    pub fn from_env() -> Result<EngineKind, BadEngineKind> {
        match std::env::var_os(ENGINE_VARIABLE) {
            None => Ok(EngineKind::Auto),
            Some(word) if word.is_empty() => Ok(EngineKind::Auto),
            Some(word) => word.to_string_lossy().parse(),
        }
    }
}

impl FromStr for EngineKind {
    type Err = BadEngineKind;

    fn from_str(word: &str) -> Result<EngineKind, BadEngineKind> {
        let seed = |digits: &str| match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        };
        let kind = match word.trim() {
            "auto" => Some(EngineKind::Auto),
            "io_uring" => Some(EngineKind::IoUring),
            "epoll" => Some(EngineKind::Epoll),
            other => other.strip_prefix("sim:").and_then(seed).map(EngineKind::Sim),
        };
        kind.ok_or_else(|| BadEngineKind { word: word.to_owned() })
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineKind::Auto => f.write_str("auto"),
            EngineKind::IoUring => f.write_str("io_uring"),
            EngineKind::Epoll => f.write_str("epoll"),
            EngineKind::Sim(seed) => write!(f, "sim:{seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_as_it_prints() {
        for kind in [EngineKind::Auto, EngineKind::IoUring, EngineKind::Epoll, EngineKind::Sim(u64::MAX)] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("sim:0xff".parse(), Ok(EngineKind::Sim(255)));
    }

    #[test]
    fn a_bad_word_is_answered_with_the_good_ones() {
        for word in ["", "uring", "sim", "sim:", "sim:-1", "sim:18446744073709551616", "EPOLL"] {
            let said = word.parse::<EngineKind>().expect_err(word).to_string();
            for good in [word, "auto", "io_uring", "epoll", "sim:SEED"] {
                assert!(said.contains(good), "{said}");
            }
        }
    }
}
