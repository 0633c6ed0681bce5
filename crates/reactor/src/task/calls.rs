//! The tasks that answer calls, by call, so that a cancel need not search all tasks.
//!
//! Owned by the tasks of one thread. A special table because calls come and go with every message: warm, it
//! allocates nothing, and it needs no seed.

/// Identifies a task from outside: the calling thread's id (0 outside Spindle threads) and the call's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId {
    pub(crate) thread: u64,
    pub(crate) number: u64,
}

/// The places of the tasks that answer calls. At most half full; an entry is at its hash, or in the first free
/// place after that.
#[derive(Default)]
pub(crate) struct Calls {
    /// Its length is a power of two, or 0.
    places: Vec<Option<(CallId, u32)>>,
    len: usize,
}

impl Calls {
    /// Notes that the task at `task` answers the call.
    pub(crate) fn insert(&mut self, call_id: CallId, task: u32) {
        if (self.len + 1) * 2 > self.places.len() {
            self.grow();
        }
        self.put(call_id, task);
        self.len += 1;
    }

    /// The place of the task that answers the call.
    pub(crate) fn find(&self, call_id: CallId) -> Option<u32> {
        self.position(call_id).and_then(|at| self.places[at]).map(|(_, task)| task)
    }

    /// Removes the call.
    pub(crate) fn remove(&mut self, call_id: CallId) {
        let Some(mut free) = self.position(call_id) else { return };
        self.len -= 1;
        // Entries after it that a search would now miss move up.
        let mut at = free;
        loop {
            self.places[free] = None;
            loop {
                at = self.next(at);
                let Some((other, _)) = self.places[at] else { return };
                let (behind_home, behind_free) = (self.behind(self.home(other), at), self.behind(free, at));
                if behind_home >= behind_free {
                    break;
                }
            }
            self.places[free] = self.places[at];
            free = at;
        }
    }

    fn position(&self, call_id: CallId) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.home(call_id);
        loop {
            match self.places[at] {
                Some((there, _)) if there == call_id => return Some(at),
                Some(_) => at = self.next(at),
                None => return None,
            }
        }
    }

    fn put(&mut self, call_id: CallId, task: u32) {
        let mut at = self.home(call_id);
        while self.places[at].is_some() {
            at = self.next(at);
        }
        self.places[at] = Some((call_id, task));
    }

    fn grow(&mut self) {
        let room = (self.places.len() * 2).max(8);
        let before = std::mem::replace(&mut self.places, vec![None; room]);
        before.into_iter().flatten().for_each(|(call_id, task)| self.put(call_id, task));
    }

    /// Where a search begins. The table must not be empty.
    fn home(&self, CallId { thread, number }: CallId) -> usize {
        let mixed = (number ^ thread.rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as usize & (self.places.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// Distance from `start` to `at`, around the end.
    fn behind(&self, start: usize, at: usize) -> usize {
        at.wrapping_sub(start) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_engine::sim::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn it_finds_what_is_there_and_nothing_else_whatever_comes_and_goes() {
        let mut rng = Rng::new(1);
        let (mut calls, mut model) = (Calls::default(), BTreeMap::new());
        for step in 0..20_000u32 {
            let (thread, number) = (rng.next_u64() % 3, rng.next_u64() % 64);
            // The numbers of calls from other threads begin with a generation.
            let number = if thread == 0 { number } else { number << 32 | number };
            let call_id = CallId { thread, number };
            match model.remove(&(thread, number)) {
                Some(task) => {
                    assert_eq!(calls.find(call_id), Some(task));
                    calls.remove(call_id);
                }
                None => {
                    model.insert((thread, number), step);
                    calls.insert(call_id, step);
                }
            }
            assert_eq!(calls.len, model.len());
            if step % 64 == 0 {
                for (thread, number) in (0..3).flat_map(|thread| (0..64).map(move |number| (thread, number)))
                {
                    let number = if thread == 0 { number } else { number << 32 | number };
                    let found = calls.find(CallId { thread, number });
                    assert_eq!(found, model.get(&(thread, number)).copied());
                }
            }
        }
        assert!(calls.places.len() <= 512, "it grows with what is there at once: {}", calls.places.len());
    }
}
