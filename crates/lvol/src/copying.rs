//! Work that copies a volume's clusters, for as long as there are many: inflates, decouples and shallow copies.
//!
//! It ends early when its store is being left, or the whole runtime ends. A store is not deleted while it is under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_bdev::Counted;

use crate::state::{StoreInner, locked};
use crate::{LvolError, Lvols};

/// Such work under way, until dropped.
pub(crate) struct Copying {
    store: Arc<StoreInner>,
    what: Arc<str>,
    _counted: Option<Counted>,
}

impl Copying {
    /// What it is, for messages.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Whether it is to go on, asked as often as it likes.
    pub(crate) fn goes_on(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let store = self.store.clone();
        move || !store.ends_copying()
    }

    /// The error of work that ended early.
    pub(crate) fn stopped(&self, remedy: &'static str) -> LvolError {
        LvolError::Stopped { what: self.what.to_string(), remedy }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        locked(&self.store.copying).retain(|what| !Arc::ptr_eq(what, &self.what));
    }
}

impl StoreInner {
    /// Begins such work.
    pub(crate) fn begin_copying(self: &Arc<StoreInner>, what: String) -> Copying {
        let (what, counted) = (Arc::from(what), self.lvols.upgrade().map(|shared| shared.copying.begin()));
        locked(&self.copying).push(Arc::clone(&what));
        Copying { store: self.clone(), what, _counted: counted }
    }

    /// An error if such work is under way.
    pub(crate) fn check_copying(&self) -> Result<(), LvolError> {
        match locked(&self.copying).first() {
            Some(what) => Err(LvolError::Copying { store: self.name().to_string(), what: what.to_string() }),
            None => Ok(()),
        }
    }

    fn ends_copying(&self) -> bool {
        let all_end =
            || self.lvols.upgrade().is_none_or(|shared| shared.ends_copying.load(Ordering::Acquire));
        self.closing.load(Ordering::Acquire) || all_end()
    }
}

impl Lvols {
    /// Has inflates, decouples and shallow copies end early, those under way and later ones, and waits for the former: so
    /// that their callers can be told before a stop. Each fails with [`LvolError::Stopped`].
    pub async fn end_copying(&self) {
        self.0.ends_copying.store(true, Ordering::Release);
        self.0.copying.none().await;
    }
}
