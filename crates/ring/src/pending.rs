//! Which of many senders have left something: one bit each.
//!
//! Shared between the senders and one receiver, who looks here instead of into every ring.

use crate::primitive::{AtomicU64, Ordering, fence};

/// One bit for each sender.
pub struct Pending {
    words: Box<[AtomicU64]>,
}

impl Pending {
    /// Makes a bitmap for `senders` senders, numbered from 0.
    pub fn new(senders: usize) -> Pending {
        Pending { words: (0..senders.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Says that `sender` has left something, and returns whether its bit was down: only then may the
    /// receiver be asleep over it, see [`Sleep::wake`](crate::Sleep::wake).
    #[inline]
    #[must_use]
    pub fn set(&self, sender: usize) -> bool {
        let (word, bit) = (&self.words[sender / 64], 1 << (sender % 64));
        // Orders what the sender left before this look. A bit seen up has yet to be taken, and whoever
        // takes it sees what was left: a flood writes the line once a batch, not once a message.
        fence(Ordering::SeqCst);
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Release) & bit == 0
    }

    /// Takes every bit down and calls `f` with its sender.
    #[inline]
    pub fn take_all(&self, mut f: impl FnMut(usize)) {
        for (index, word) in self.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Acquire);
            fence(Ordering::SeqCst);
            while bits != 0 {
                f(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Whether any bit is up.
    #[inline]
    pub fn any(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }
}
