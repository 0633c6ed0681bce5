//! Where the answers to this thread's calls arrive.
//!
//! Owned by the calling thread's core. A waiting call has a place here; the answer comes as a message that
//! names the place and its generation, so a late answer to a dropped call has no effect. Nothing is allocated
//! once warm.

use std::task::{Context, Poll, Waker};

use slab::Slab;
use spindle_ring::Parcel;

use crate::error::RunError;

/// The answer: a value whose type the caller knows, or the reason why there is none.
pub(crate) type Answer = Result<Parcel, RunError>;

struct Place {
    generation: u32,
    waker: Option<Waker>,
    answer: Option<Answer>,
}

/// The places of one thread.
#[derive(Default)]
pub(crate) struct Replies {
    places: Slab<Place>,
    generation: u32,
}

impl Replies {
    /// Takes a place; its number identifies it until it is removed.
    pub(crate) fn insert(&mut self, waker: Waker) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.places.insert(Place { generation, waker: Some(waker), answer: None });
        u64::from(generation) << 32 | index as u64
    }

    fn place(&mut self, number: u64) -> Option<&mut Place> {
        let place = self.places.get_mut(number as u32 as usize)?;
        (place.generation == (number >> 32) as u32).then_some(place)
    }

    /// Stores an answer; returns the waker to call, and the answer itself if its call was dropped.
    pub(crate) fn deliver(&mut self, number: u64, answer: Answer) -> (Option<Waker>, Option<Answer>) {
        let Some(place) = self.place(number) else { return (None, Some(answer)) };
        (place.waker.take(), place.answer.replace(answer))
    }

    /// Returns the answer, which frees the place, or stores the waker.
    pub(crate) fn poll(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some(place) = self.place(number) else { return Poll::Ready(Err(RunError::Cancelled)) };
        if place.answer.is_none() {
            match &mut place.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let place = self.places.remove(number as u32 as usize);
        Poll::Ready(place.answer.unwrap_or(Err(RunError::Cancelled)))
    }

    /// Frees the place of a dropped call; returns its answer, if that has come, or `Some(None)` if not.
    /// `None` if the place is free already.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Option<Answer>> {
        self.place(number)?;
        Some(self.places.remove(number as u32 as usize).answer)
    }
}
