//! Virtual bdevs (SPDK's vbdev): bdevs that stand on another bdev, their base, or on several.
//!
//! A module describes its bdevs in a [`Virtual`]; the registry does the rest, on the app thread. It opens and
//! claims the base, makes the bdevs now or when the base comes, tells them of a new size, and removes them
//! with the base; with several, when all are there, and with the first that goes. Requests do not pass through this
//! module.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spindle_block::{Device, Geometry, check_stack};
use uuid::Uuid;

use crate::bdev::{Foundation, Inner};
use crate::counter::Counter;
use crate::{Bdev, BdevError, BdevSpec, ClaimType, Desc, DescOptions, Event, Grace, Recipe, Registry};

/// Describes a module's bdevs on a base, or on several.
pub trait Virtual: Send + Sync + 'static {
    /// The module's name: the owner of its bdevs and of the claim on the base.
    fn module(&self) -> &'static str;

    /// Identifies it within the module, as a rule by the name of its bdev. Unique in the module.
    fn key(&self) -> &str;

    /// The base's name, alias or UUID. A base that does not exist yet is waited for by its name.
    fn base(&self) -> &str;

    /// The bases besides [`base`](Self::base), named in the same way: for a module whose bdevs stand on several, such as
    /// a mirror. Its bdevs are made once all are there, and removed with the first that goes: they take no request any
    /// more, then what they have in each base ends, and only then the base goes.
    fn other_bases(&self) -> Vec<&str> {
        Vec::new()
    }

    /// True if it is made again when its base goes and comes back. Otherwise the registry forgets it with the
    /// last of its bdevs.
    fn comes_back(&self) -> bool {
        true
    }

    /// Whether its bdev has that name, or will have, for a deletion by name. By default that is its key.
    fn is_named(&self, name: &str) -> bool {
        self.key() == name
    }

    /// The holder named in the claim on the base.
    fn holder(&self) -> String {
        format!("{} bdev {:?}", self.module(), self.key())
    }

    /// The method of the control plane that asks for it, while it waits for its base; `None` only if no method does,
    /// because its module finds it by itself. Once its bdevs exist, [`Disk::recipe`](crate::Disk::recipe) counts.
    fn recipe(&self) -> Option<Recipe>;

    /// Makes the bdevs for the base; [`Base::others`] are there too. The registry registers all of them or none. Called
    /// on the app thread.
    ///
    /// # Errors
    /// The module cannot use these bases. The registry then closes them.
    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError>;
}

/// A base that is open for writing, and claimed.
pub struct Base {
    bdev: Bdev,
    device: Arc<dyn Device>,
    others: Vec<Base>,
}

impl Base {
    /// The first of several, with the others.
    fn of(descs: &[Desc]) -> Base {
        let mut all =
            descs.iter().map(|desc| Base { bdev: desc.bdev(), device: desc.device(), others: Vec::new() });
        let first = all.next().expect("a Virtual names at least one base");
        Base { others: all.collect(), ..first }
    }

    /// The bdev.
    pub fn bdev(&self) -> &Bdev {
        &self.bdev
    }

    /// The bdev's own name, even if it was found by an alias or UUID.
    pub fn name(&self) -> &str {
        self.bdev.name()
    }

    /// The [other bases](Virtual::other_bases), in their order.
    pub fn others(&self) -> &[Base] {
        &self.others
    }

    /// Its device, for the devices on top.
    pub fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    /// Its current shape.
    pub fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    /// Returns the UUID for a bdev that covers this base entirely: derived from the module's namespace and
    /// the base's UUID, so always the same.
    pub fn derive_uuid(&self, namespace: Uuid) -> Uuid {
        Uuid::new_v5(&namespace, self.bdev.uuid().as_bytes())
    }

    /// The UUID that was given, or the [derived](Self::derive_uuid) one if none was, or the nil one.
    pub(crate) fn uuid_or_derived(&self, given: Option<Uuid>, namespace: Uuid) -> Uuid {
        given.filter(|uuid| !uuid.is_nil()).unwrap_or_else(|| self.derive_uuid(namespace))
    }

    /// Returns the UUID for a bdev that is a part of this base: always the same, and the same as SPDK's.
    pub fn derive_part_uuid(&self, start: u64, blocks: u64) -> Uuid {
        let mut name = Vec::with_capacity(32);
        name.extend_from_slice(self.bdev.uuid().as_bytes());
        name.extend_from_slice(&start.to_le_bytes());
        name.extend_from_slice(&blocks.to_le_bytes());
        Uuid::new_v5(&PARTS, &name)
    }
}

/// SPDK's namespace for the UUIDs of parts (`BDEV_PART_NAMESPACE_UUID`).
const PARTS: Uuid = Uuid::from_u128(0x976b899e_3e1e_4d71_ab69_c2b08e9df8b8);

/// A [`Virtual`] that was requested, whether its bases exist or not.
pub(crate) struct Entry {
    wanted: Arc<dyn Virtual>,
    /// Its bdevs, if they exist now; the bdevs keep this alive.
    standing: Mutex<Weak<Standing>>,
}

/// The bdevs on one base or several, and the descriptors that hold these. Each of these bdevs keeps this until it is
/// gone, so the bases are closed with the last.
pub(crate) struct Standing {
    /// In the order in which the module names the bases.
    descs: Vec<Desc>,
    entry: Arc<Entry>,
    /// Counts registrations still in progress.
    making: Counter,
    /// The bdevs and the sizes that they reported last.
    bdevs: Mutex<Vec<(Weak<Inner>, u64)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn is(&self, module: &str, key: &str) -> bool {
        self.wanted.module() == module && self.wanted.key() == key
    }

    fn standing(&self) -> Option<Arc<Standing>> {
        locked(&self.standing).upgrade()
    }

    /// The names of its bases.
    fn bases(&self) -> Vec<&str> {
        [vec![self.wanted.base()], self.wanted.other_bases()].concat()
    }

    /// Why another one of its key is refused; `missing` are the bases for which it waits.
    fn refusal(&self, missing: &[&str]) -> BdevError {
        let (module, name) = (self.wanted.module(), self.wanted.key().to_owned());
        if self.standing().is_some() {
            let by = format!("{name} of module {module}");
            return BdevError::Exists { name, by };
        }
        let create = self.wanted.recipe().map(|recipe| recipe.method);
        let remedy = match create.and_then(|method| method.strip_suffix("_create")) {
            Some(stem) => format!("delete it with {stem}_delete first"),
            None => format!("have module {module} delete it first"),
        };
        BdevError::AskedFor {
            name: name.into(),
            module,
            base: missing.first().copied().unwrap_or(self.wanted.base()).into(),
            remedy: remedy.into(),
        }
    }

    /// The bdevs that exist now.
    fn bdevs(&self) -> Vec<Bdev> {
        self.standing().map(|standing| standing.bdevs()).unwrap_or_default()
    }

    /// Handles a new size of the base: bdevs whose size follows it tell their openers.
    fn base_resized(&self) {
        let Some(standing) = self.standing() else { return };
        let mut changed = Vec::new();
        for (bdev, said) in locked(&standing.bdevs).iter_mut() {
            let Some(bdev) = bdev.upgrade().map(Bdev) else { continue };
            let now = bdev.num_blocks();
            if std::mem::replace(said, now) != now {
                changed.push(bdev);
            }
        }
        changed.iter().for_each(Bdev::resized);
    }
}

impl Standing {
    fn of(foundation: Option<Foundation>) -> Option<Arc<Standing>> {
        foundation?.downcast().ok()
    }

    fn bdevs(&self) -> Vec<Bdev> {
        locked(&self.bdevs).iter().filter_map(|(bdev, _)| bdev.upgrade().map(Bdev)).collect()
    }

    fn bases(&self) -> Vec<Bdev> {
        self.descs.iter().map(Desc::bdev).collect()
    }
}

impl Bdev {
    /// Returns its base, if it is a [`Virtual`] bdev; of several the first.
    pub fn base(&self) -> Option<Bdev> {
        self.bases().into_iter().next()
    }

    /// Returns its bases, in the order in which its module names them; none if it is no [`Virtual`] bdev.
    pub fn bases(&self) -> Vec<Bdev> {
        Standing::of(self.0.standing()).map(|standing| standing.bases()).unwrap_or_default()
    }

    /// The memory node that it, or what it stands on, was made for; -1 for any, `None` if no module names one.
    pub fn numa_id(&self) -> Option<i32> {
        self.disk().numa_id().or_else(|| self.base()?.numa_id())
    }
}

impl Registry {
    /// Creates bdevs on a base, or on several. If these exist, all of them exist when this resolves; otherwise they are
    /// created when the last comes. Dropping the future does not stop it.
    ///
    /// # Errors
    /// The module already has one of that key (`EEXIST`); a base is claimed or open for writing (`EPERM`), or named
    /// twice (`EINVAL`); errors of [`Virtual::make`] and of [`register`](Self::register). Then nothing remains.
    pub async fn create_virtual(&self, wanted: impl Virtual) -> Result<Vec<Bdev>, BdevError> {
        let wanted: Arc<dyn Virtual> = Arc::new(wanted);
        self.on_app(async move |registry| registry.create_virtual_here(wanted).await).await
    }

    /// As [`create_virtual`](Self::create_virtual), for a module with one bdev on a base. Returns it if it was
    /// created now.
    ///
    /// # Errors
    /// As `create_virtual`.
    pub async fn create_one_virtual(&self, wanted: impl Virtual) -> Result<Option<Bdev>, BdevError> {
        Ok(self.create_virtual(wanted).await?.into_iter().next())
    }

    /// The methods that make all virtual bdevs again, in the order in which they were asked for: a configuration in
    /// this order keeps it, independent of which base comes first. Those whose base is not there are included; not those
    /// whose base another one took, as they would be refused.
    pub fn virtual_recipes(&self) -> Vec<Recipe> {
        let all = self.0.virtuals().clone();
        let recipes = all.iter().flat_map(|entry| match entry.standing() {
            Some(standing) => standing.bdevs().iter().filter_map(|bdev| bdev.disk().recipe(bdev)).collect(),
            None if self.missing_bases(entry).is_empty() => Vec::new(),
            None => Vec::from_iter(entry.wanted.recipe()),
        });
        recipes.collect()
    }

    async fn create_virtual_here(&self, wanted: Arc<dyn Virtual>) -> Result<Vec<Bdev>, BdevError> {
        let entry = self.add_virtual(wanted)?;
        match self.stand(&entry).await {
            // The same as a base that does not exist: it may come again.
            Err(BdevError::NoSuchBdev { .. } | BdevError::BeingRemoved { .. } | BdevError::Gone { .. }) => {
                Ok(Vec::new())
            }
            Err(error) => {
                self.forget_virtual(&entry);
                Err(error)
            }
            made => made,
        }
    }

    fn add_virtual(&self, wanted: Arc<dyn Virtual>) -> Result<Arc<Entry>, BdevError> {
        let mut all = self.0.virtuals();
        let (module, key) = (wanted.module(), wanted.key());
        if let Some(known) = all.iter().find(|entry| entry.is(module, key)).cloned() {
            drop(all);
            return Err(known.refusal(&self.missing_bases(&known)));
        }
        let entry = Arc::new(Entry { wanted, standing: Mutex::default() });
        all.push(entry.clone());
        Ok(entry)
    }

    /// The names of bases that do not exist.
    fn missing_bases<'a>(&self, entry: &'a Entry) -> Vec<&'a str> {
        entry.bases().into_iter().filter(|name| self.get(name).is_err()).collect()
    }

    fn forget_virtual(&self, entry: &Arc<Entry>) {
        self.0.virtuals().retain(|known| !Arc::ptr_eq(known, entry));
    }

    /// Deletes a virtual bdev of a module by name, alias or UUID, and forgets its [`Virtual`]. One that waits for its
    /// base is forgotten by name.
    ///
    /// # Errors
    /// There is none, or it belongs to another module (`ENODEV`); errors of [`unregister`](Self::unregister).
    pub async fn delete_virtual(&self, module: &str, name: &str) -> Result<(), BdevError> {
        let bdev = match self.of_module(module, name) {
            Ok(bdev) => bdev,
            Err(_) if self.forget_waiting(module, name) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(standing) = Standing::of(bdev.0.standing()) {
            self.forget_virtual(&standing.entry);
        }
        self.unregister(&bdev).await
    }

    /// Forgets a [`Virtual`] that has no bdevs; false if no such one has the name.
    fn forget_waiting(&self, module: &str, name: &str) -> bool {
        let mut all = self.0.virtuals();
        let waits = |entry: &Arc<Entry>| {
            entry.wanted.module() == module && entry.wanted.is_named(name) && entry.standing().is_none()
        };
        let found = all.iter().position(waits);
        found.map(|at| all.remove(at)).is_some()
    }

    /// Deletes all bdevs of a module's [`Virtual`] by its key, and forgets it, whether its base exists or
    /// not.
    ///
    /// # Errors
    /// The module has none of that key (`ENOENT`).
    pub async fn delete_virtual_of_key(&self, module: &'static str, key: &str) -> Result<(), BdevError> {
        let key = key.to_owned();
        self.on_app(async move |registry: Registry| {
            let found = registry.0.virtuals().iter().find(|entry| entry.is(module, &key)).cloned();
            let Some(entry) = found else {
                return Err(BdevError::NotOnBase { key, module });
            };
            registry.forget_virtual(&entry);
            registry.take_down(&entry, None).await;
            Ok(())
        })
        .await
    }

    /// Creates the bdevs that wait for a base of this name.
    pub(crate) async fn stand_on_new(&self, base: &Bdev) {
        let waits = |entry: &&Arc<Entry>| entry.bases().contains(&base.name()) && entry.standing().is_none();
        let waiting: Vec<Arc<Entry>> = self.0.virtuals().iter().filter(waits).cloned().collect();
        for entry in waiting {
            // There is no caller to return an error to. The bdevs are tried again when a base comes again.
            let _ = Box::pin(self.stand(&entry)).await;
        }
    }

    /// Opens and claims the bases, all or none.
    fn hold_bases(&self, entry: &Arc<Entry>) -> Result<Vec<Desc>, BdevError> {
        let (module, holder) = (entry.wanted.module(), entry.wanted.holder());
        let bases = entry.bases().into_iter().map(|name| self.get(name));
        let bases = bases.collect::<Result<Vec<Bdev>, BdevError>>()?;
        if let Some((_, twice)) = bases.iter().enumerate().find(|(at, base)| bases[..*at].contains(base)) {
            return Err(BdevError::argument(
                holder,
                format!("bdev {:?} is named twice; name another base", twice.name()),
            ));
        }
        let hold = |base: &Bdev| {
            let options = DescOptions::new().write(true).holder(&*holder);
            let desc = base.descriptor(options.on_event(self.follow_base(entry)))?;
            desc.claim(ClaimType::Exclusive, &holder, module)?;
            Ok(desc)
        };
        bases.iter().map(hold).collect()
    }

    /// Opens and claims the bases, and registers the bdevs: all or none.
    async fn stand(&self, entry: &Arc<Entry>) -> Result<Vec<Bdev>, BdevError> {
        let descs = self.hold_bases(entry)?;
        let specs = entry.wanted.make(&Base::of(&descs))?;
        let making = Counter::default();
        let made = making.begin();
        let standing = Arc::new(Standing { descs, entry: entry.clone(), making, bdevs: Mutex::default() });
        *locked(&entry.standing) = Arc::downgrade(&standing);
        let outcome = self.register_on(&standing, specs).await;
        drop(made);
        drop(standing);
        if outcome.is_err() {
            self.take_down(entry, None).await;
        }
        outcome
    }

    async fn register_on(
        &self,
        standing: &Arc<Standing>,
        specs: Vec<BdevSpec>,
    ) -> Result<Vec<Bdev>, BdevError> {
        let mut all = Vec::new();
        for spec in specs {
            check_stack(&spec.name, &spec.disk.device().lowers())?;
            let bdev = self.register_here(spec, Some(standing.clone())).await?;
            locked(&standing.bdevs).push((Arc::downgrade(&bdev.0), bdev.num_blocks()));
            all.push(bdev);
        }
        Ok(all)
    }

    /// Returns the handler of a base's events.
    fn follow_base(&self, entry: &Arc<Entry>) -> impl Fn(Event) + Send + Sync + 'static + use<> {
        let (registry, entry) = (self.downgrade(), Arc::downgrade(entry));
        move |event| {
            let (Ok(registry), Some(entry)) = (registry.get(), entry.upgrade()) else { return };
            match event {
                Event::Resize => entry.base_resized(),
                Event::Remove(grace) => {
                    drop(spindle_reactor::spawn_local(async move {
                        registry.take_down(&entry, Some(grace)).await;
                    }));
                }
            }
        }
    }

    /// Removes the bdevs, latest first, and waits until they are gone. Once they take no request any more, it gives up
    /// the grace of their base: what they have in the base ends with it.
    async fn take_down(&self, entry: &Arc<Entry>, grace: Option<Grace>) {
        if let Some(making) = entry.standing().map(|standing| standing.making.clone()) {
            making.none().await;
        }
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for bdev in entry.bdevs().into_iter().rev() {
            // This fails only if another call is removing it; wait for that one.
            match self.begin_to_unregister(&bdev).await {
                Ok(removal) => ours.push(removal),
                Err(_) => {
                    bdev.0.husk.seen().await;
                    others.push(bdev);
                }
            }
        }
        let stay = grace.map(Grace::into_stay);
        for removal in ours {
            // A module that failed to release something has been reported by the removal.
            let _ = self.end_unregistering(removal).await;
        }
        for bdev in others {
            bdev.removed().await;
        }
        drop(stay);
    }

    /// Handles the end of a bdev: the last one on a base closes the base.
    pub(crate) fn leave_base(&self, bdev: &Bdev) {
        let Some(standing) = Standing::of(bdev.0.take_standing()) else { return };
        let entry = standing.entry.clone();
        drop(standing);
        if entry.standing().is_none() && !entry.wanted.comes_back() {
            self.forget_virtual(&entry);
        }
    }
}
