//! Descriptors: one opening of a bdev.
//!
//! A [`Desc`] belongs to the thread that opened it, where its events are delivered; it may be used and dropped on any
//! thread. Dropping it closes it, without waiting.

use std::sync::Arc;

use spindle_block::{Channel, Device, Geometry, QueuePair};
use spindle_reactor::Thread;

use crate::bdev::Inner;
use crate::event::OnEvent;
use crate::opened::Opened;
use crate::read_only::ReadOnly;
use crate::{Bdev, BdevError, ClaimInfo, ClaimType, Counted, Counter, Event};

/// How a bdev is opened. Default: for reading, without events.
#[derive(Clone, Default)]
pub struct DescOptions {
    write: bool,
    holder: Option<String>,
    on_event: Option<OnEvent>,
    counter: Option<Counter>,
}

impl DescOptions {
    /// For reading.
    pub fn new() -> DescOptions {
        DescOptions::default()
    }

    /// For writing, too.
    #[must_use]
    pub fn write(mut self, yes: bool) -> DescOptions {
        self.write = yes;
        self
    }

    /// Names the holder: errors of openings and claims that this one prevents show it. By default the thread's name.
    #[must_use]
    pub fn holder(mut self, holder: impl Into<String>) -> DescOptions {
        self.holder = Some(holder.into());
        self
    }

    /// Calls `on_event` with the bdev's events, on the thread that opens it.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(Event) + Send + Sync + 'static) -> DescOptions {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// Counts the descriptor while it is open: for a module whose devices hold descriptors, and which must
    /// wait for their end.
    #[must_use]
    pub fn counted(mut self, counter: &Counter) -> DescOptions {
        self.counter = Some(counter.clone());
        self
    }
}

/// An open bdev. Dropping it closes it.
pub struct Desc {
    bdev: Arc<Inner>,
    opened: Arc<Opened>,
    number: u64,
    /// Declared last, so that everything else is dropped before the count.
    #[expect(dead_code, reason = "counted while it lives")]
    counted: Option<Counted>,
}

impl Bdev {
    /// Opens it with options. The descriptor belongs to the calling thread.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for names.
    pub fn descriptor(&self, options: DescOptions) -> Result<Desc, BdevError> {
        Desc::open(self, options)
    }
}

impl Bdev {
    /// Whether a descriptor for reading could make such a claim now.
    ///
    /// # Errors
    /// As [`Desc::claim`].
    pub fn check_claim(&self, kind: ClaimType) -> Result<(), BdevError> {
        let state = self.0.state();
        state.check_ready(self.name())?;
        state.claims.check(self.name(), kind, &state.writers(0))
    }
}

impl Desc {
    pub(crate) fn open(bdev: &Bdev, options: DescOptions) -> Result<Desc, BdevError> {
        let inner = &bdev.0;
        let Some(thread) = Thread::current() else {
            return Err(BdevError::NotOnThread { name: inner.name.clone() });
        };
        let mut state = inner.state();
        state.check_ready(&inner.name)?;
        if options.write
            && let Some(refusal) = state.claims.refusal(&inner.name)
        {
            return Err(refusal);
        }
        let opened = Arc::new(Opened::new(thread, options.holder, options.on_event, options.write));
        let number = state.number_desc();
        state.opened.insert(number, opened.clone());
        let counted = options.counter.map(|counter| counter.begin());
        Ok(Desc { bdev: inner.clone(), opened, number, counted })
    }

    /// The bdev.
    pub fn bdev(&self) -> Bdev {
        Bdev(self.bdev.clone())
    }

    /// Its shape now; not writable if the descriptor is open for reading only.
    pub fn geometry(&self) -> Geometry {
        let geometry = self.bdev.device.geometry();
        geometry.with_writable(geometry.writable() && self.is_writable())
    }

    /// True if it was opened for writing, or has a claim that writes.
    pub fn is_writable(&self) -> bool {
        self.opened.is_writable()
    }

    /// Gives the holder of its claim another name, as once it is known.
    pub fn claimed_by(&self, holder: &str) {
        self.bdev.state().claims.rename(self.number, holder);
    }

    /// Claims the bdev for this descriptor, until it is closed. With a claim that writes, the descriptor may
    /// write. `holder` is the name that others see; `module` is the name of the caller's module, or empty.
    ///
    /// # Errors
    /// Another claim, or a writer, is in the way; a claim without writers on a descriptor that may write; the
    /// bdev is being removed, or is gone.
    pub fn claim(&self, kind: ClaimType, holder: &str, module: &'static str) -> Result<(), BdevError> {
        let name = &self.bdev.name;
        let mut state = self.bdev.state();
        state.check_ready(name)?;
        if !kind.writes() && self.is_writable() {
            let what = format!("claim ({}) on bdev {name:?}", kind.name());
            return Err(BdevError::argument(what, "the descriptor may write; open it for reading"));
        }
        let writers = state.writers(self.number);
        let claim = ClaimInfo { kind, holder: holder.to_owned(), module };
        state.claims.check(name, kind, &writers)?;
        state.claims.add(self.number, claim);
        if kind.writes() {
            self.opened.let_write();
        }
        Ok(())
    }

    /// The device, for layers on top of it. If the descriptor is open for reading only, the device refuses
    /// writes.
    pub fn device(&self) -> Arc<dyn Device> {
        let device = self.bdev.device.clone();
        if self.is_writable() || !device.geometry().writable() { device } else { ReadOnly::over(device) }
    }

    /// A channel to the bdev for the current thread, which may be any.
    ///
    /// # Errors
    /// The caller is not on a Spindle thread, or the device cannot be opened on this one.
    pub fn channel(&self) -> Result<Channel, BdevError> {
        let channel = Channel::open(self.bdev.device.clone())?;
        channel.set_user(self.user());
        if !self.is_writable() {
            channel.set_read_only();
        }
        Ok(channel)
    }

    /// A queue pair for the current thread, which may be any.
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub fn queue_pair(&self) -> Result<QueuePair, BdevError> {
        let mut pair = QueuePair::open(&self.bdev.device)?;
        pair.set_user(self.user());
        if !self.is_writable() {
            pair.set_read_only();
        }
        Ok(pair)
    }

    /// All that uses this descriptor on a thread has one user's part of a limit.
    fn user(&self) -> u32 {
        // Of the bdev too: descriptors of several bdevs may meet at a base that they share.
        self.bdev.uuid.as_u128() as u32 ^ self.number as u32
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        self.opened.close();
        let mut state = self.bdev.state();
        state.claims.remove(self.number);
        let opened = state.opened.remove(&self.number);
        drop(state);
        // Dropped outside the lock: the callback may hold anything.
        drop(opened);
        if let Ok(registry) = self.bdev().registry() {
            registry.look_again();
        }
    }
}

impl std::fmt::Debug for Desc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.is_writable() { "read, write" } else { "read" };
        write!(f, "Desc({} of {}: {mode})", self.number, self.bdev.name)
    }
}
