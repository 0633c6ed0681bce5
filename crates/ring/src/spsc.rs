//! A ring with one producer and one consumer.
//!
//! The producer's half lives on one core, the consumer's on another; each can be sent, but not shared. A
//! slot's header shows whether it is filled, by the parity of the lap: a value and its announcement cross in
//! one cache line, and the producer reads the only other shared line, the consumer's index, once a lap.
//! Wait-free. Values left in the ring are dropped with its last half.

use std::mem::{ManuallyDrop, MaybeUninit};

use crate::primitive::{Arc, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// The bit of a header with the parity, even or odd, of the lap in which its slot was filled.
const ODD_LAP: u64 = 1 << 63;

/// An index that shares its cache lines with nothing else (two lines, for the adjacent-line prefetcher).
#[repr(align(128))]
struct Index(AtomicUsize);

/// With a value of 56 bytes, one cache line.
#[repr(C, align(64))]
struct Slot<T> {
    /// The parity of the lap that last filled it, and the tag.
    header: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot<crate::Call>>() == 64, "a message and the news of it cross in one line");

struct Ring<T> {
    /// Next slot to pop; moved by the consumer.
    head: Index,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot's value is written by the producer before the header that says "filled" and read by the
// consumer after it; read by the consumer before `head` passes it and written again after. The release and
// acquire of the two order them. Modelled in `tests/loom.rs`.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, index: usize) -> &Slot<T> {
        &self.slots[index & (self.slots.len() - 1)]
    }

    /// The highest bit of the header for the slot filled as number `index`.
    fn lap(&self, index: usize) -> u64 {
        if index & self.slots.len() == 0 { 0 } else { ODD_LAP }
    }

    /// The header of slot number `index`, if that is filled.
    #[inline]
    fn filled(&self, index: usize) -> Option<u64> {
        let header = self.slot(index).header.load(Ordering::Acquire);
        (header & ODD_LAP == self.lap(index)).then_some(header)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let head = self.head.0.load(Ordering::Relaxed);
        for index in (0..self.slots.len()).map(|offset| head.wrapping_add(offset)) {
            if self.filled(index).is_none() {
                break;
            }
            // SAFETY: both halves are gone; the slot is filled and was not popped.
            self.slot(index).value.with_mut(|value| unsafe { (*value).assume_init_drop() });
        }
    }
}

/// The half that fills the ring.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    /// As last read; the consumer may be further.
    head: usize,
}

/// The slot at the end of a ring that is not full: for callers that store the value elsewhere if it is.
pub(crate) struct Vacant<'a, T>(&'a mut Producer<T>);

/// The half that empties the ring.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    /// Next slot to pop; the producer may not know yet.
    head: usize,
}

/// The value at the front of a ring. Move it out instead of using it in place: using it would write to a
/// cache line that the producer then has to fetch back, delaying what the receiver sends next. Dropping
/// this drops the value.
pub struct Front<'a, T> {
    consumer: &'a mut Consumer<T>,
    header: u64,
}

/// Makes a ring of `capacity` slots, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    // As if an odd lap before the first had filled them.
    let empty = || Slot { header: AtomicU64::new(ODD_LAP), value: UnsafeCell::new(MaybeUninit::uninit()) };
    let slots = (0..capacity.next_power_of_two()).map(|_| empty()).collect();
    let ring = Arc::new(Ring { head: Index(AtomicUsize::new(0)), slots });
    (Producer { ring: ring.clone(), tail: 0, head: 0 }, Consumer { ring, head: 0 })
}

impl<T: Send> Producer<T> {
    /// Puts a value at the end, with a tag of 63 bits beside it.
    ///
    /// # Errors
    /// The value is returned if the ring is full.
    #[inline]
    pub fn push(&mut self, tag: u64, value: T) -> Result<(), T> {
        match self.vacant() {
            Some(slot) => {
                slot.fill(tag, value);
                Ok(())
            }
            None => Err(value),
        }
    }

    /// The slot at the end; none if the ring is full.
    #[inline]
    pub(crate) fn vacant(&mut self) -> Option<Vacant<'_, T>> {
        let slots = self.ring.slots.len();
        if self.in_ring() == slots {
            self.look();
        }
        (self.in_ring() < slots).then_some(Vacant(self))
    }

    /// True if the consumer has taken the value with the number that [`fill`](Vacant::fill) returned.
    #[inline]
    pub(crate) fn has_popped(&mut self, pushed: usize) -> bool {
        let later = self.tail.wrapping_sub(pushed);
        if self.in_ring() > later {
            self.look();
        }
        self.in_ring() <= later
    }

    /// Values not taken yet, according to the last look.
    fn in_ring(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// Reads the consumer's position.
    fn look(&mut self) {
        self.head = self.ring.head.0.load(Ordering::Acquire);
    }
}

impl<T: Send> Vacant<'_, T> {
    /// Puts a value there, with a tag of 63 bits beside it. Returns the number of values put in so far,
    /// including this one, modulo the width of a word.
    #[inline]
    pub(crate) fn fill(self, tag: u64, value: T) -> usize {
        debug_assert!(tag & ODD_LAP == 0, "a tag has 63 bits");
        let Vacant(producer) = self;
        let slot = producer.ring.slot(producer.tail);
        // SAFETY: the consumer has passed this slot and will not look before its header says "filled".
        slot.value.with_mut(|place| unsafe { (*place).write(value) });
        slot.header.store(producer.ring.lap(producer.tail) | (tag & !ODD_LAP), Ordering::Release);
        producer.tail = producer.tail.wrapping_add(1);
        producer.tail
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the value at the front, and its tag.
    #[inline]
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let front = self.front()?;
        let popped = (front.tag(), front.take());
        self.publish();
        Some(popped)
    }

    /// The value at the front, in place. The producer learns that it is gone when this is
    /// [published](Self::publish).
    #[inline]
    pub(crate) fn front(&mut self) -> Option<Front<'_, T>> {
        let header = self.ring.filled(self.head)?;
        Some(Front { consumer: self, header })
    }

    /// Publishes the consumer's position: a store to a line that the producer reads.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.ring.head.0.store(self.head, Ordering::Release);
    }

    /// True if there is nothing to take now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.filled(self.head).is_none()
    }
}

impl<T> Front<'_, T> {
    /// The tag of 63 bits.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.header & !ODD_LAP
    }

    /// Moves it out.
    #[inline]
    pub fn take(self) -> T {
        // Not dropped, because the value is moved out.
        let mut front = ManuallyDrop::new(self);
        // SAFETY: filled, as `front` saw, and read once, because `take` moves past it.
        let value = front.with(|value| unsafe { value.read() });
        front.consumer.head = front.consumer.head.wrapping_add(1);
        value
    }

    /// Calls `f` with its address.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        self.consumer.ring.slot(self.consumer.head).value.with_mut(|value| f(value.cast()))
    }
}

impl<T> Drop for Front<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Moved past it first: if its destructor panics, it is not dropped again.
        let index = self.consumer.head;
        self.consumer.head = index.wrapping_add(1);
        // SAFETY: filled, as `front` saw; the producer learns later that it was passed, and it is dropped
        // once.
        self.consumer.ring.slot(index).value.with_mut(|value| unsafe { (*value).assume_init_drop() });
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Popped values are not dropped again with the ring.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}
