//! A closure that runs once, in 56 bytes.

use std::fmt;

use crate::inline::Inline;

/// A closure that may cross cores and runs once. Captures of up to 48 bytes (aligned to at most 8) are stored
/// inside; larger ones are boxed. Dropping it drops the captures without running it.
pub struct Call {
    captures: Inline,
    vtable: &'static Vtable,
}

/// Functions for captures of an erased type. Each of them consumes the captures.
struct Vtable {
    run: unsafe fn(*const Inline),
    drop: unsafe fn(*const Inline),
}

struct VtableOf<F>(F);

impl<F: FnOnce() + Send + 'static> VtableOf<F> {
    const VTABLE: Vtable = Vtable {
        // SAFETY: `Call` pairs this table with captures of type F, and takes them once.
        run: |captures| unsafe { Inline::take::<F>(captures) }(),
        // SAFETY: as above.
        drop: |captures| drop(unsafe { Inline::take::<F>(captures) }),
    };
}

/// The table of a call that was run in place: nothing is left to drop.
static SPENT: Vtable = Vtable { run: |_| (), drop: |_| () };

// SAFETY: only `Send` closures are put in, and they are only run or dropped.
unsafe impl Send for Call {}

impl Call {
    /// Takes a closure.
    #[inline]
    pub fn new<F: FnOnce() + Send + 'static>(f: F) -> Call {
        Call { captures: Inline::new(f), vtable: &VtableOf::<F>::VTABLE }
    }

    /// Runs it.
    #[inline]
    pub fn call(mut self) {
        self.call_in_place();
    }

    /// Runs it in place, which avoids moving 56 bytes; a second call has no effect.
    #[inline]
    pub fn call_in_place(&mut self) {
        let vtable = std::mem::replace(&mut self.vtable, &SPENT);
        // SAFETY: the captures are taken once, also when the closure panics: from here on the table is that
        // of a spent call, which touches none.
        unsafe { (vtable.run)(&raw const self.captures) }
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if !std::ptr::eq(self.vtable, &SPENT) {
            // SAFETY: it was not run, so the captures are still there.
            unsafe { (self.vtable.drop)(&raw const self.captures) }
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}
