//! The operations of the engine that are under way for the threads of one reactor.
//!
//! Owned by the reactor whose driver works on them; a completion is handled on the thread that submitted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;
use spindle_engine::{Completion, Op, Token};

use crate::local::thread_core::ThreadCore;

/// Identifies an operation in flight. A stale id has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(pub(crate) Token);

/// Receives completions for which no future waits. Called on the thread that submitted, outside of any task;
/// may submit again. An error is the engine's: [`Op::named`] adds its object.
pub trait OpSink {
    /// Takes the completion of the operation that was submitted with `key`; of one that goes on
    /// ([`Completion::more`]), one of several, in order.
    fn complete(&self, key: u64, completion: Completion);
}

/// An operation under way, and the sink of its completions.
#[derive(Clone)]
pub(crate) struct Entry {
    generation: u32,
    /// True if only cancelling ends it on this side.
    waits_for_peer: bool,
    /// True if the thread's exit waits for it.
    pub(crate) counted: bool,
    pub(crate) core: Rc<ThreadCore>,
    pub(crate) sink: Rc<dyn OpSink>,
    pub(crate) key: u64,
}

/// The operations in flight of one reactor.
#[derive(Default)]
pub(crate) struct Ops {
    entries: RefCell<Slab<Entry>>,
    generation: Cell<u32>,
}

impl Ops {
    pub(crate) fn insert(&self, core: Rc<ThreadCore>, op: &Op, sink: Rc<dyn OpSink>, key: u64) -> Token {
        let waits_for_peer = op.waits_for_peer();
        core.ops.set(core.ops.get() + usize::from(!waits_for_peer));
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let index = self.entries.borrow_mut().insert(Entry {
            generation,
            waits_for_peer,
            counted: !waits_for_peer,
            core,
            sink,
            key,
        });
        Token(u64::from(generation) << 32 | index as u64)
    }

    pub(crate) fn is_live(&self, OpId(token): OpId) -> bool {
        let entries = self.entries.borrow();
        entries.get(token.0 as u32 as usize).is_some_and(|entry| entry.generation == (token.0 >> 32) as u32)
    }

    /// The id of the thread that a completion is for.
    pub(crate) fn thread_of(&self, completion: &Completion) -> u64 {
        self.entries.borrow()[completion.token.0 as u32 as usize].core.shared.id
    }

    /// Operations whose completions have not been handed to their sinks.
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// The operation of a completion; removed, if that is its last.
    pub(crate) fn entry(&self, completion: &Completion) -> Entry {
        let (mut entries, place) = (self.entries.borrow_mut(), completion.token.0 as u32 as usize);
        if completion.more { entries[place].clone() } else { entries.remove(place) }
    }

    /// Takes the operations that only a cancellation ends, also those of threads that have exited.
    pub(crate) fn take_endless(&self) -> Vec<Token> {
        let mut entries = self.entries.borrow_mut();
        let once = |(index, entry): (usize, &mut Entry)| {
            let endless = std::mem::take(&mut entry.waits_for_peer);
            endless.then(|| Token(u64::from(entry.generation) << 32 | index as u64))
        };
        entries.iter_mut().filter_map(once).collect()
    }

    /// Number of operations of a thread in flight.
    pub(crate) fn of(&self, core: &Rc<ThreadCore>) -> usize {
        self.entries.borrow().iter().filter(|(_, entry)| Rc::ptr_eq(&entry.core, core)).count()
    }
}
