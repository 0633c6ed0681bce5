//! A value of any type, in 56 bytes.

use std::any::TypeId;
use std::fmt;
use std::mem::ManuallyDrop;

use crate::inline::Inline;

/// A value that may cross cores, of a type known to its sender and receiver. Up to 48 bytes (aligned to at
/// most 8) are stored inside; larger values are boxed.
pub struct Parcel {
    value: Inline,
    vtable: &'static Vtable,
}

struct Vtable {
    type_id: fn() -> TypeId,
    drop: unsafe fn(*const Inline),
}

struct VtableOf<T>(T);

impl<T: Send + 'static> VtableOf<T> {
    const VTABLE: Vtable = Vtable {
        type_id: TypeId::of::<T>,
        // SAFETY: `Parcel` pairs this table with a value of type T, and takes it once.
        drop: |value| drop(unsafe { Inline::take::<T>(value) }),
    };
}

// SAFETY: only `Send` values are put in.
unsafe impl Send for Parcel {}

impl Parcel {
    /// Takes a value.
    #[inline]
    pub fn new<T: Send + 'static>(value: T) -> Parcel {
        Parcel { value: Inline::new(value), vtable: &VtableOf::<T>::VTABLE }
    }

    /// The value.
    ///
    /// # Errors
    /// The parcel is returned if it holds another type.
    #[inline]
    pub fn take<T: Send + 'static>(self) -> Result<T, Parcel> {
        if (self.vtable.type_id)() != TypeId::of::<T>() {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: the type was checked, and `this` is never dropped, so the value is taken once.
        Ok(unsafe { Inline::take::<T>(&raw const this.value) })
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        // SAFETY: `take` forgets the parcel, so the value is still there.
        unsafe { (self.vtable.drop)(&raw const self.value) }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parcel")
    }
}
