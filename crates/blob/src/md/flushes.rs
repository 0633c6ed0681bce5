//! The flushes that metadata waits for: one at a time; callers that come meanwhile share the next.

use std::cell::{Cell, RefCell};

use crate::error::BlobError;
use crate::shared::{StoreLocal, StoreShared};
use crate::waiting::{Resolver, TaskLock, promise};

/// The flushes of a metadata thread: how many have begun, and the latest that succeeded.
#[derive(Default)]
pub(crate) struct Flushes {
    begun: Cell<u64>,
    good: Cell<u64>,
    /// Held while one is under way.
    turn: TaskLock,
    /// Callers that share the next one.
    waiting: RefCell<Vec<Resolver<Result<(), BlobError>>>>,
}

impl Flushes {
    /// How many have begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// True if everything written before the flush with this number began is durable.
    pub(crate) fn covers(&self, begun: u64) -> bool {
        self.good.get() > begun
    }

    /// Makes everything written before durable. A failure poisons the store.
    pub(crate) async fn flush(&self, local: &StoreLocal, store: &StoreShared) -> Result<(), BlobError> {
        let (done, shared) = promise();
        let first = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.push(done);
            waiting.len() == 1
        };
        if !first {
            return shared.await.unwrap_or_else(|| Err(store.gone()));
        }
        let _turn = self.turn.lock().await;
        let group = self.waiting.take();
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let result = store.flush(local).await;
        if result.is_ok() {
            self.good.set(number);
        }
        group.into_iter().for_each(|one| one.resolve(result.clone()));
        result
    }
}
