//! Accepted connections that wait for the turn of their origins. They hold a socket each, so there is a most of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connections that wait.
pub(crate) struct Waiting {
    most: usize,
    count: Arc<AtomicUsize>,
}

/// A place among them, until dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Waiting {
    pub(crate) fn new(most: usize) -> Waiting {
        Waiting { most, count: Arc::default() }
    }

    /// One more place; none if all are taken.
    pub(crate) fn enter(&self) -> Option<Place> {
        let one_more = |count| (count < self.most).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(self.count.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let waiting = Waiting::new(2);
        let first = waiting.enter();
        let second = waiting.enter();
        assert!(first.is_some() && second.is_some() && waiting.enter().is_none());
        drop(first);
        assert!(waiting.enter().is_some());
        assert!(Waiting::new(0).enter().is_none());
    }
}
