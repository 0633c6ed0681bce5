//! The running hash of all events in a world.

use crate::rng::mix;

/// A value that can be fed into the trace.
pub trait Traced {
    /// Passes the value's words to `word`, in order.
    fn trace(&self, word: &mut dyn FnMut(u64));
}

macro_rules! traced_numbers {
    ($($number:ty),*) => {$(
        impl Traced for $number {
            fn trace(&self, word: &mut dyn FnMut(u64)) {
                word(*self as u64);
            }
        }
    )*};
}
traced_numbers!(u8, u16, u32, u64, usize, i32, i64, bool);

impl Traced for str {
    fn trace(&self, word: &mut dyn FnMut(u64)) {
        self.as_bytes().trace(word);
    }
}

impl Traced for [u8] {
    fn trace(&self, word: &mut dyn FnMut(u64)) {
        word(self.len() as u64);
        for chunk in self.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word(u64::from_le_bytes(bytes));
        }
    }
}

impl<T: Traced + ?Sized> Traced for &T {
    fn trace(&self, word: &mut dyn FnMut(u64)) {
        (**self).trace(word);
    }
}

impl<A: Traced, B: Traced> Traced for (A, B) {
    fn trace(&self, word: &mut dyn FnMut(u64)) {
        self.0.trace(word);
        self.1.trace(word);
    }
}

/// The hash. Depends on every word and on their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        Trace(mix(seed ^ 0x5b1d))
    }

    pub(super) fn add(&mut self, what: impl Traced) {
        what.trace(&mut |word| {
            self.0 = mix(self.0.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word)
        });
    }

    pub(super) fn hash(&self) -> u64 {
        self.0
    }
}
