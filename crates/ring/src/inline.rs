//! 48 bytes that hold a value of any type that fits, or a box with a larger one.

use std::mem::{MaybeUninit, align_of, size_of};

/// Words of storage: with the vtable and the address of its thread, a message fills one cache line.
const WORDS: usize = 6;

/// Storage without a type. Its maker knows the type, and accesses the value by address only.
#[repr(transparent)]
pub(crate) struct Inline {
    _storage: MaybeUninit<[u64; WORDS]>,
}

/// True if `T` fits in the storage itself.
const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<[u64; WORDS]>() && align_of::<T>() <= align_of::<u64>()
}

impl Inline {
    /// Moves `value` in, boxed if it does not fit.
    pub(crate) fn new<T>(value: T) -> Inline {
        let mut storage = MaybeUninit::<[u64; WORDS]>::uninit();
        // SAFETY: the storage is large and aligned enough: for `T` where it fits, for a box elsewhere.
        unsafe {
            if const { fits::<T>() } {
                storage.as_mut_ptr().cast::<T>().write(value);
            } else {
                storage.as_mut_ptr().cast::<Box<T>>().write(Box::new(value));
            }
        }
        Inline { _storage: storage }
    }

    /// Moves the value out.
    ///
    /// # Safety
    /// It was made from a `T`, and is not taken or dropped again.
    pub(crate) unsafe fn take<T>(storage: *const Inline) -> T {
        // SAFETY: the caller's promise; `new` wrote the same way.
        unsafe {
            if const { fits::<T>() } { storage.cast::<T>().read() } else { *storage.cast::<Box<T>>().read() }
        }
    }
}
