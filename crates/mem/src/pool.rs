//! A pool of buffers with a budget in bytes.
//!
//! Shared by all threads that hold a handle. Free memory waits in one lock-free list per size class, so a
//! warm pool neither allocates nor locks, whichever thread drops the buffer. A returned buffer may hold old
//! bytes of this process. Not promised: fairness between threads that wait for memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::OutOfMemory;
use crate::io_buf::IoBuf;
use crate::segment::Segment;

/// The smallest size class; each further one is twice as large.
const SMALLEST: usize = 4096;

/// 4 KiB to 4 MiB; larger buffers are allocated and freed each time, within the budget.
const CLASSES: usize = 11;

/// Free buffers kept per class; further ones are freed.
const KEPT_PER_CLASS: usize = 1024;

/// A cloneable handle to a pool of buffers.
#[derive(Clone)]
pub struct Pool(Arc<PoolInner>);

/// A lent segment's reference to its pool.
pub(crate) type Home = Arc<PoolInner>;

pub(crate) struct PoolInner {
    name: String,
    budget: usize,
    /// Bytes on loan.
    lent: AtomicUsize,
    /// Bytes allocated, lent or idle: idle buffers are freed before this passes the budget.
    held: AtomicUsize,
    free: [ArrayQueue<Segment>; CLASSES],
}

/// A pool's budget has no room for a buffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pool {pool}: needs {}, {} free; raise its budget or wait for buffers to return", Mebibytes(*.needed), Mebibytes(*.free))]
pub struct OutOfBuffers {
    /// The pool's name.
    pub pool: String,
    /// Bytes the request needs, rounded up to its size class.
    pub needed: usize,
    /// Bytes left in the budget.
    pub free: usize,
}

struct Mebibytes(usize);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} MiB", self.0 as f64 / (1 << 20) as f64)
    }
}

/// The size class of a length; [`CLASSES`] if it is larger than all.
fn class_of(len: usize) -> usize {
    if len > SMALLEST << (CLASSES - 1) {
        return CLASSES;
    }
    len.max(SMALLEST).next_power_of_two().trailing_zeros() as usize - SMALLEST.trailing_zeros() as usize
}

impl Pool {
    /// Makes an empty pool that lends at most `budget` bytes at a time; `name` appears in errors.
    pub fn new(name: &str, budget: usize) -> Pool {
        let free = std::array::from_fn(|_| ArrayQueue::new(KEPT_PER_CLASS));
        Pool(Arc::new(PoolInner {
            name: name.to_owned(),
            budget,
            lent: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            free,
        }))
    }

    /// Lends a buffer of `len` bytes with unspecified content. Dropping it, anywhere, returns it.
    ///
    /// # Errors
    /// [`OutOfBuffers`] if the budget has no room or the process no memory; this never waits.
    pub fn get(&self, len: usize) -> Result<IoBuf, OutOfBuffers> {
        // Checked before rounding up too: the length may come from outside.
        if len > self.0.budget {
            return Err(self.0.refusal(len));
        }
        let class = class_of(len);
        let capacity = match class < CLASSES {
            true => SMALLEST << class,
            false => len.checked_next_multiple_of(SMALLEST).ok_or_else(|| self.0.refusal(len))?,
        };
        self.0.lend(capacity)?;
        let free = self.0.free.get(class).and_then(ArrayQueue::pop);
        let segment = match free {
            Some(segment) => Ok(segment),
            None => self.0.allocate(capacity),
        };
        let mut segment = segment.map_err(|_| {
            self.0.lent.fetch_sub(capacity, Ordering::Release);
            self.0.refusal(capacity)
        })?;
        segment.set_home(self.0.clone());
        Ok(IoBuf::whole(segment, len))
    }

    /// Frees the idle buffers: for use when a load is over.
    pub fn trim(&self) {
        for free in &self.0.free {
            while let Some(segment) = free.pop() {
                self.0.release(segment);
            }
        }
    }

    /// Bytes on loan, in whole size classes.
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// Bytes allocated, lent or idle; within the budget except while several threads allocate at once.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Bytes that may be lent at a time.
    pub fn budget(&self) -> usize {
        self.0.budget
    }
}

impl PoolInner {
    fn lend(&self, capacity: usize) -> Result<(), OutOfBuffers> {
        let fits = |lent: usize| lent.checked_add(capacity).filter(|total| *total <= self.budget);
        match self.lent.fetch_update(Ordering::Acquire, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.refusal(capacity)),
        }
    }

    fn refusal(&self, needed: usize) -> OutOfBuffers {
        let free = self.budget.saturating_sub(self.lent.load(Ordering::Relaxed));
        OutOfBuffers { pool: self.name.clone(), needed, free }
    }

    /// The slow path: allocates, after freeing idle buffers of other sizes.
    fn allocate(&self, capacity: usize) -> Result<Segment, OutOfMemory> {
        let mut held = self.held.fetch_add(capacity, Ordering::Relaxed) + capacity;
        let mut idle = self.free.iter().rev();
        while held > self.budget
            && let Some(free) = idle.next()
        {
            while held > self.budget
                && let Some(segment) = free.pop()
            {
                self.release(segment);
                held = self.held.load(Ordering::Relaxed);
            }
        }
        Segment::try_allocate(capacity).inspect_err(|_| {
            self.held.fetch_sub(capacity, Ordering::Relaxed);
        })
    }

    /// Frees an idle segment.
    fn release(&self, segment: Segment) {
        self.held.fetch_sub(segment.capacity(), Ordering::Relaxed);
        // It has no home any more, so dropping it frees the memory.
        drop(segment);
    }

    /// Takes back a segment whose last owner was dropped.
    pub(crate) fn give_back(&self, segment: Segment) {
        let capacity = segment.capacity();
        let refused = match self.free.get(class_of(capacity)) {
            Some(free) => free.push(segment).err(),
            None => Some(segment),
        };
        if let Some(segment) = refused {
            self.release(segment);
        }
        // Last, and with release, so that a get that finds room also finds this memory idle.
        self.lent.fetch_sub(capacity, Ordering::Release);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}: {} of {} B lent)", self.0.name, self.lent(), self.0.budget)
    }
}
