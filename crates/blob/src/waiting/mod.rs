//! How tasks wait for each other, and threads for a lock. Knows nothing of stores.

mod join;
mod mutex;
mod on_drop;
mod promise;
mod task_lock;

pub(crate) use join::{join, join_all};
pub(crate) use mutex::locked;
pub(crate) use on_drop::OnDrop;
pub(crate) use promise::{Resolver, promise};
pub(crate) use task_lock::{TaskGuard, TaskLock};
