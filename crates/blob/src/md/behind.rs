//! What deletions leave for [`super::clear_behind`] to clear in the background.

use std::cell::{Cell, RefCell};

use spindle_format::PageIdx;

use crate::waiting::TaskLock;

/// Metadata pages of a deleted blob whose root is durably gone. They stay in use until they are cleared.
pub(super) struct LeftPages {
    /// The root, if only its last sector was cleared.
    pub(super) root: Option<PageIdx>,
    /// Copies of its pages, then the pages.
    pub(super) pages: Vec<PageIdx>,
}

/// The state of clearing after deletions.
#[derive(Default)]
pub(crate) struct Behind {
    /// True while a task does it.
    pub(super) runs: Cell<bool>,
    /// Held while pages are cleared.
    pub(super) lock: TaskLock,
    pub(super) pages: RefCell<Vec<LeftPages>>,
    /// Roots of which a part was left and is cleared now, each with the number of flushes that had begun by then. A
    /// page that is given out before a flush has covered that, and is torn then, would look like a damaged root.
    pub(super) roots: RefCell<Vec<(PageIdx, u64)>>,
    /// Number of pages in `pages` and `roots`, and of those that are being cleared.
    pub(super) count: Cell<u32>,
    /// The cluster at which the search for free clusters that the device still holds continues; `None` if no search
    /// runs.
    pub(super) search: Cell<Option<u32>>,
}

impl Behind {
    /// Takes over pages to be cleared.
    pub(super) fn leave(&self, left: LeftPages) {
        self.count.update(|count| count + left.pages.len() as u32 + u32::from(left.root.is_some()));
        self.pages.borrow_mut().push(left);
    }
}
