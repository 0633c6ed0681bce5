//! A block device by name: its properties, its phase, its open descriptors.
//!
//! Shared by all threads. Mutable state is behind one lock of the bdev, held for a few instructions.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spindle_block::{Device, Geometry};
use uuid::Uuid;

use crate::claim::Claims;
use crate::counter::{Counter, Ending};
use crate::opened::Opened;
use crate::{BdevError, ClaimInfo, Disk, Event, IoType, IoTypes};

/// What a module registers.
pub struct BdevSpec {
    /// Its name; not empty, and no other bdev's name, alias or UUID.
    pub name: String,
    /// More names.
    pub aliases: Vec<String>,
    /// Its UUID, which as text is a name, too; `None` chooses one.
    pub uuid: Option<Uuid>,
    /// What kind of disk it is, for display.
    pub product_name: &'static str,
    /// The module that owns it.
    pub module: &'static str,
    /// The module's side of it.
    pub disk: Arc<dyn Disk>,
}

impl BdevSpec {
    /// A bdev without further names, whose UUID the registry chooses.
    pub fn new(
        name: impl Into<String>,
        product_name: &'static str,
        module: &'static str,
        disk: Arc<dyn Disk>,
    ) -> BdevSpec {
        BdevSpec { name: name.into(), aliases: Vec::new(), uuid: None, product_name, module, disk }
    }

    /// Sets its UUID, if one is given that is not nil.
    #[must_use]
    pub fn with_uuid(mut self, uuid: Option<Uuid>) -> BdevSpec {
        self.uuid = uuid.filter(|uuid| !uuid.is_nil()).or(self.uuid);
        self
    }
}

/// The phase of a bdev's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It can be opened.
    #[default]
    Ready,
    /// It is being removed: it cannot be opened any more.
    Removing,
    /// It was removed.
    Gone,
}

/// A registered bdev. A handle: it keeps nothing open, and still names a bdev that was removed.
#[derive(Clone)]
pub struct Bdev(pub(crate) Arc<Inner>);

/// What a bdev on another one holds until it is gone.
pub(crate) type Foundation = Arc<dyn Any + Send + Sync>;

pub(crate) struct Inner {
    /// In the order of registration.
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
    pub(crate) product_name: &'static str,
    pub(crate) module: &'static str,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) device: Arc<dyn Device>,
    /// The registry it is in.
    pub(crate) registry: Weak<dyn Any + Send + Sync>,
    /// Tasks that are examining it.
    pub(crate) examining: Counter,
    /// Set once its requests end as removed, and once it was removed.
    pub(crate) husk: Ending,
    pub(crate) gone: Ending,
    state: Mutex<State>,
    /// What holds its base, until it is gone.
    standing: Mutex<Option<Foundation>>,
}

/// The mutable state of a bdev.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// The UUID's text first, unless that is the name.
    pub(crate) aliases: Vec<String>,
    /// The open descriptors by their numbers.
    pub(crate) opened: BTreeMap<u64, Arc<Opened>>,
    next_desc: u64,
    pub(crate) claims: Claims,
    /// The modules that have examined it, or are about to.
    pub(crate) examined: BTreeSet<&'static str>,
    /// True once its registration is in the log.
    pub(crate) announced: bool,
}

/// Properties of a bdev, all of one moment; module-specific ones are in [`Bdev::details`].
#[derive(Clone, Debug)]
pub struct BdevInfo {
    /// Its name.
    pub name: String,
    /// Its other names, including its UUID's text unless that is its name.
    pub aliases: Vec<String>,
    /// Its UUID.
    pub uuid: Uuid,
    /// What kind of disk it is.
    pub product_name: &'static str,
    /// The module that owns it.
    pub module: &'static str,
    /// Its shape now.
    pub geometry: Geometry,
    /// How many blocks it has now; may be 0.
    pub num_blocks: u64,
    /// The requests it supports.
    pub io_types: IoTypes,
    /// A claim on it; several holders have claims of the same kind.
    pub claim: Option<ClaimInfo>,
    /// Descriptors that are open.
    pub descriptors: usize,
    /// Its phase.
    pub phase: Phase,
}

impl Inner {
    pub(crate) fn new(
        number: u64,
        spec: BdevSpec,
        uuid: Uuid,
        standing: Option<Foundation>,
        registry: Weak<dyn Any + Send + Sync>,
    ) -> Inner {
        let BdevSpec { name, aliases, product_name, module, disk, .. } = spec;
        let text = uuid.to_string();
        let aliases = if text == name { aliases } else { [vec![text], aliases].concat() };
        let device = disk.device();
        let state = Mutex::new(State { aliases, ..State::default() });
        let (examining, husk, gone) = (Counter::default(), Ending::default(), Ending::default());
        let standing = Mutex::new(standing);
        Inner {
            number,
            name,
            uuid,
            product_name,
            module,
            disk,
            device,
            registry,
            examining,
            husk,
            gone,
            state,
            standing,
        }
    }

    pub(crate) fn standing(&self) -> Option<Foundation> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn take_standing(&self) -> Option<Foundation> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All names, its own first.
    pub(crate) fn names(&self) -> Vec<String> {
        [vec![self.name.clone()], self.state().aliases.clone()].concat()
    }

    /// Sends an event to every open descriptor.
    pub(crate) fn tell(&self, event: impl Fn() -> Event) {
        let opened: Vec<Arc<Opened>> = self.state().opened.values().cloned().collect();
        opened.into_iter().for_each(|opened| opened.tell(event()));
    }
}

/// Holders for messages: each once, and some of many.
pub(crate) fn listed(mut holders: Vec<String>) -> String {
    const SHOWN: usize = 3;
    holders.sort();
    holders.dedup();
    let more = holders.len().saturating_sub(SHOWN);
    holders.truncate(SHOWN);
    let shown = holders.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

impl State {
    /// An error unless the bdev is ready.
    pub(crate) fn check_ready(&self, name: &str) -> Result<(), BdevError> {
        match self.phase {
            Phase::Ready => Ok(()),
            Phase::Removing => Err(BdevError::BeingRemoved { name: name.to_owned() }),
            Phase::Gone => Err(BdevError::Gone { name: name.to_owned() }),
        }
    }

    /// A number for a new descriptor.
    pub(crate) fn number_desc(&mut self) -> u64 {
        self.next_desc += 1;
        self.next_desc
    }

    /// The holders of descriptors open for writing without a claim, apart from descriptor `except`.
    pub(crate) fn writers(&self, except: u64) -> Vec<String> {
        let unclaimed = |(number, opened): &(&u64, &Arc<Opened>)| {
            **number != except && opened.is_writable() && !self.claims.has(**number)
        };
        self.opened.iter().filter(unclaimed).map(|(_, opened)| opened.holder.clone()).collect()
    }
}

impl Bdev {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    /// The module that owns it.
    pub fn module(&self) -> &'static str {
        self.0.module
    }

    /// The module's side of it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    /// Its shape now.
    pub fn geometry(&self) -> Geometry {
        self.0.device.geometry()
    }

    /// How many blocks it has now: 0 for an empty volume, whose device has one unreachable block.
    pub fn num_blocks(&self) -> u64 {
        self.0.disk.num_blocks()
    }

    /// Its names besides [`name`](Self::name), in the order in which they were given.
    pub fn aliases(&self) -> Vec<String> {
        self.0.state().aliases.clone()
    }

    /// Its phase.
    pub fn phase(&self) -> Phase {
        self.0.state().phase
    }

    /// The holders of its claims and of its other open descriptors, for messages, separated by commas.
    pub fn holders(&self) -> String {
        let state = self.0.state();
        let holder = |(number, opened): (&u64, &Arc<Opened>)| {
            state.claims.holder(*number).unwrap_or(&opened.holder).to_owned()
        };
        listed(state.opened.iter().map(holder).collect())
    }

    /// How many descriptors are open.
    pub fn descriptors(&self) -> usize {
        self.0.state().opened.len()
    }

    /// The requests it supports.
    pub fn io_types(&self) -> IoTypes {
        let types = self.0.disk.io_types();
        if self.geometry().writable() {
            return types;
        }
        let writing = [
            IoType::Write,
            IoType::Unmap,
            IoType::WriteZeroes,
            IoType::CompareAndWrite,
            IoType::Copy,
            IoType::ZoneAppend,
        ];
        writing.into_iter().fold(types, |types, io_type| types.with(io_type, false))
    }

    /// Its properties.
    pub fn info(&self) -> BdevInfo {
        let (geometry, num_blocks, io_types) = (self.geometry(), self.num_blocks(), self.io_types());
        let state = self.0.state();
        BdevInfo {
            name: self.0.name.clone(),
            aliases: state.aliases.clone(),
            uuid: self.0.uuid,
            product_name: self.0.product_name,
            module: self.0.module,
            geometry,
            num_blocks,
            io_types,
            claim: state.claims.first().cloned(),
            descriptors: state.opened.len(),
            phase: state.phase,
        }
    }

    /// Waits until every module has examined it.
    pub async fn examined(&self) {
        self.0.examining.none().await;
    }

    /// Waits until it was removed.
    pub async fn removed(&self) {
        self.0.gone.seen().await;
    }

    /// A weak reference: for the module's side of a bdev, which the bdev keeps.
    pub fn downgrade(&self) -> WeakBdev {
        WeakBdev(Arc::downgrade(&self.0))
    }
}

/// A weak reference to a bdev.
#[derive(Clone)]
pub struct WeakBdev(Weak<Inner>);

impl WeakBdev {
    /// The bdev, while it is registered or referenced elsewhere.
    pub fn upgrade(&self) -> Option<Bdev> {
        self.0.upgrade().map(Bdev)
    }
}

impl PartialEq for Bdev {
    fn eq(&self, other: &Bdev) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Bdev {}

impl std::fmt::Debug for Bdev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bdev({} of {})", self.0.name, self.0.module)
    }
}
