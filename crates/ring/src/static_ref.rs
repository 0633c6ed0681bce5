//! A reference to a static value, written by one OS thread and read by any.

use std::fmt;
use std::ptr;

use crate::primitive::{AtomicPtr, Ordering};

/// Holds a `&'static T`, or none. Makes no promise about the order of other memory accesses.
pub struct StaticRef<T: 'static>(AtomicPtr<T>);

impl<T: Sync + 'static> StaticRef<T> {
    /// None.
    pub fn new() -> StaticRef<T> {
        StaticRef(AtomicPtr::new(ptr::null_mut()))
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: Option<&'static T>) {
        let pointer = value.map_or(ptr::null(), ptr::from_ref);
        // Release: readers see a value made just before this call whole.
        self.0.store(pointer.cast_mut(), Ordering::Release);
    }

    /// The present value.
    #[inline]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: only null and addresses of `&'static T` are ever stored; `T: Sync` lets any OS thread read.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}

impl<T: Sync + 'static> Default for StaticRef<T> {
    fn default() -> StaticRef<T> {
        StaticRef::new()
    }
}

impl<T: Sync + fmt::Debug + 'static> fmt::Debug for StaticRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaticRef").field(&self.get()).finish()
    }
}
