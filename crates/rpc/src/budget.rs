//! Bytes that all connections of a server may hold together.

use std::cell::Cell;
use std::rc::Rc;

/// What may be held in all, and what is. A handle.
#[derive(Clone)]
pub(crate) struct Budget(Rc<Account>);

struct Account {
    most: usize,
    held: Cell<usize>,
}

/// What one holder has of a budget; given back when dropped.
pub(crate) struct Share {
    budget: Budget,
    held: Cell<usize>,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Budget {
        Budget(Rc::new(Account { most, held: Cell::new(0) }))
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), held: Cell::new(0) }
    }
}

impl Share {
    /// What may be held in all.
    pub(crate) fn most(&self) -> usize {
        self.budget.0.most
    }

    /// Holds `bytes` from now on; false if that is more than there is. It is counted all the same.
    pub(crate) fn set(&self, bytes: usize) -> bool {
        let account = &self.budget.0;
        account.held.set(account.held.get() - self.held.replace(bytes) + bytes);
        account.held.get() <= account.most
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
