//! Checks how devices lie on each other, when a device is made or gets a new base, rather than when a thread
//! first opens a lane.

use std::sync::Arc;

use crate::{Device, MAX_DEPTH, OpenError};

/// Checks that a device called `name` may lie on `lowers`.
///
/// # Errors
/// [`TooDeep`](OpenError::TooDeep) with the numbers.
pub fn check_stack(name: &str, lowers: &[Arc<dyn Device>]) -> Result<(), OpenError> {
    let depth = lowers.iter().map(|lower| depth_of(lower, MAX_DEPTH) + 1).max().unwrap_or(0);
    match depth > MAX_DEPTH {
        true => Err(OpenError::TooDeep { device: name.to_owned(), depth, max: MAX_DEPTH }),
        false => Ok(()),
    }
}

/// Checks that an existing device, with at most `above` devices on it, may lie on one more device.
///
/// # Errors
/// It would lie on itself, or be too deep with those above it.
pub fn check_base(device: &Arc<dyn Device>, above: usize, base: &Arc<dyn Device>) -> Result<(), OpenError> {
    if lies_on(base, device, MAX_DEPTH) {
        let reason = format!("it would lie on itself by {}; choose another base", base.name());
        return Err(OpenError::Other { device: device.name().to_owned(), reason });
    }
    let depth = depth_of(base, MAX_DEPTH) + 1 + above;
    match depth > MAX_DEPTH {
        true => Err(OpenError::TooDeep { device: device.name().to_owned(), depth, max: MAX_DEPTH }),
        false => Ok(()),
    }
}

/// Modules from a device downwards, without the lowest one; `most + 1` stands for any larger number.
fn depth_of(device: &Arc<dyn Device>, most: usize) -> usize {
    let (lowers, own) = (device.lowers(), usize::from(device.is_module()));
    match most.checked_sub(own) {
        Some(left) => lowers.iter().map(|lower| depth_of(lower, left) + own).max().unwrap_or(0),
        None => usize::from(!lowers.is_empty()),
    }
}

/// True if `from` is `to`, or lies on it.
fn lies_on(from: &Arc<dyn Device>, to: &Arc<dyn Device>, most: usize) -> bool {
    let same = std::ptr::addr_eq(Arc::as_ptr(from), Arc::as_ptr(to));
    same || (most > 0 && from.lowers().iter().any(|lower| lies_on(lower, to, most - 1)))
}
