//! A ring with one producer and one consumer.
//!
//! The producer's half lives on one core, the consumer's on another; either may be sent once, neither
//! shared. Each keeps a copy of the other's index and looks at the real one only when the copy says full
//! or empty, so in a flood the cores touch each other's lines once per lap. Wait-free. Values left in
//! the ring are dropped with its last half.

use std::mem::MaybeUninit;

use crate::primitive::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// An index on cache lines of its own (two, for the adjacent-line prefetcher).
#[repr(align(128))]
struct Index(AtomicUsize);

struct Ring<T> {
    /// Next slot to pop; moved by the consumer.
    head: Index,
    /// Next slot to fill; moved by the producer.
    tail: Index,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is written by the producer before `tail` passes it and read by the consumer after, and
// the other way round for `head`; the indices' release and acquire order the two. Modelled in
// `tests/loom.rs`.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: both halves are gone; slots between the indices are filled.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The half that fills the ring.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    /// As last seen; the consumer may be further.
    head: usize,
}

/// The half that empties the ring.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    /// As last seen; the producer may be further.
    tail: usize,
}

/// Makes a ring of `capacity` slots, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let (head, tail) = (Index(AtomicUsize::new(0)), Index(AtomicUsize::new(0)));
    let ring = Arc::new(Ring { head, tail, slots });
    (Producer { ring: ring.clone(), tail: 0, head: 0 }, Consumer { ring, head: 0, tail: 0 })
}

impl<T: Send> Producer<T> {
    /// Puts a value at the end.
    ///
    /// # Errors
    /// The value comes back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) == self.ring.slots.len() {
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == self.ring.slots.len() {
                return Err(value);
            }
        }
        // SAFETY: the consumer has passed this slot and will not look before `tail` passes it.
        self.ring.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(value) });
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the value at the front.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the producer has filled this slot and will not touch it before `head` passes it.
        let value = self.ring.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to take now.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail {
            self.tail = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail
    }
}
