//! What is done when a value that holds it is dropped.

/// Calls a closure when it is dropped.
pub(crate) struct OnDrop(Option<Box<dyn FnOnce()>>);

impl OnDrop {
    pub(crate) fn new(end: impl FnOnce() + 'static) -> OnDrop {
        OnDrop(Some(Box::new(end)))
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}
