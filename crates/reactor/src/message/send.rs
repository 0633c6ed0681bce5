//! Sending: from the thread that runs here through its reactor's rings, from elsewhere through the inbox.

use std::sync::Arc;
use std::task::Wake;

use spindle_ring::Call;

use crate::error::ThreadGone;
use crate::local::current;
use crate::shared::thread::ThreadShared;
use crate::task::waker::TaskWaker;

impl ThreadShared {
    /// Sends a message. FIFO per sender.
    #[inline(always)]
    pub(crate) fn send(&self, f: impl FnOnce() + Send + 'static) -> Result<(), ThreadGone> {
        if self.is_gone() {
            return Err(self.gone());
        }
        current::with(|core| match core {
            Some(core) if std::ptr::eq(&*core.local.shared, &*self.runtime) => {
                core.local.send(self.reactor, self.address(), || Call::new(f));
                Ok(())
            }
            _ => self.send_foreign(Call::new(f)),
        })
    }

    #[cold]
    fn send_foreign(&self, call: Call) -> Result<(), ThreadGone> {
        let incoming = &self.runtime.ports[self.reactor].incoming;
        incoming.push(self.slot as usize, self.address().tag(), call).map_err(|_| self.gone())
    }

    /// Sends an answer to the thread that asked. The handle is dropped there, so that the cache line of its
    /// count stays on that core. If the thread is gone, the answer is dropped.
    #[inline]
    pub(crate) fn answer(self: Arc<Self>, f: impl FnOnce() + Send + 'static) {
        let (reactor, to, runtime) = (self.reactor, self.address(), Arc::as_ptr(&self.runtime));
        let here = current::with(|core| core.is_some_and(|core| Arc::as_ptr(&core.local.shared) == runtime));
        if !here {
            // Refused: no task waits for it.
            let _ = self.send(f);
            return;
        }
        let f = move || {
            f();
            drop(self);
        };
        current::with(|core| {
            if let Some(core) = core {
                core.local.send(reactor, to, || Call::new(f));
            }
        });
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.mark() {
            return;
        }
        let key = self.key;
        let is_here = current::with(|core| match core {
            Some(core) if Arc::ptr_eq(&core.shared, &self.thread) => {
                core.tasks.wake(key);
                true
            }
            _ => false,
        });
        if !is_here {
            // A thread that is gone has dropped the task.
            let _ = self.thread.send(move || {
                current::with(|core| core.into_iter().for_each(|core| core.tasks.wake(key)));
            });
        }
    }
}
