//! The channels to blobs that a thread keeps for the library's own requests, each until its blob is closed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use spindle_block::Channel;

use super::blob::BlobShared;
use crate::waiting::locked;

/// A thread's own channels to blobs; stored in the thread's extensions.
#[derive(Default)]
struct BlobChannels {
    open: RefCell<BTreeMap<usize, Rc<Channel>>>,
    /// The last one used, which is usually the next one used.
    last: RefCell<Option<(usize, Rc<Channel>)>>,
}

impl BlobChannels {
    #[inline]
    fn get(&self, key: usize) -> Option<Rc<Channel>> {
        if let Some((last, channel)) = &*self.last.borrow()
            && *last == key
        {
            return Some(channel.clone());
        }
        let found = self.open.borrow().get(&key).cloned()?;
        *self.last.borrow_mut() = Some((key, found.clone()));
        Some(found)
    }

    fn remove(&self, key: usize) {
        // Dropped while nothing is borrowed: the blob may go with it.
        let last = self.last.take();
        let open = self.open.borrow_mut().remove(&key);
        drop((last, open));
    }
}

fn key_of(blob: &Arc<BlobShared>) -> usize {
    Arc::as_ptr(blob) as usize
}

impl BlobShared {
    /// This thread's own channel to the blob, if it has one.
    #[inline]
    pub(crate) fn known_channel(self: &Arc<BlobShared>) -> Option<Rc<Channel>> {
        spindle_reactor::extension::<BlobChannels>().get(key_of(self))
    }

    /// Keeps this thread's own channel to the blob until the blob is closed, or the thread exits.
    pub(crate) fn keep_channel(self: &Arc<BlobShared>, channel: &Rc<Channel>) {
        let channels = spindle_reactor::extension::<BlobChannels>();
        channels.open.borrow_mut().insert(key_of(self), channel.clone());
    }

    /// Closes every thread's own channel to the blob. A later request opens it again.
    pub(crate) fn close_channels(self: &Arc<BlobShared>) {
        let threads = locked(&self.threads).clone();
        for thread in threads {
            let blob = self.clone();
            // A thread that is gone has closed its channels.
            let _ = thread.send_msg(move || {
                spindle_reactor::extension::<BlobChannels>().remove(key_of(&blob));
            });
        }
    }
}
