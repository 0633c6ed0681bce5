//! A budget of bytes for all connections of a server together.

use std::cell::Cell;
use std::rc::Rc;

/// The limit and the present use. A handle.
#[derive(Clone)]
pub(crate) struct Budget(Rc<Account>);

struct Account {
    most: usize,
    held: Cell<usize>,
}

/// A holder's share of a budget; returned when dropped.
pub(crate) struct Share {
    budget: Budget,
    held: Cell<usize>,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Budget {
        Budget(Rc::new(Account { most, held: Cell::new(0) }))
    }

    /// An empty share.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), held: Cell::new(0) }
    }
}

impl Share {
    /// Changes this share to `bytes`; false if that exceeds the budget. It is counted all the same.
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
