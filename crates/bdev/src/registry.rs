//! The registry of one runtime: the names of bdevs, and the thread on which they are registered and removed.
//!
//! Stored in the runtime, and dropped with it. Its locks are held for a few instructions, on the calling
//! thread.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spindle_reactor::{Handle, Thread, WaitList};
use uuid::Uuid;

use crate::bdev::{Foundation, Inner};
use crate::counter::Counter;
use crate::error::errno;
use crate::namespace::Namespace;
use crate::notify::Notifications;
use crate::report;
use crate::virtual_bdev::Entry;
use crate::{Bdev, BdevError, BdevSpec, Desc, DescOptions, Module, Notification};

/// The bdevs of a runtime. A handle: clones are the same registry, for any thread.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    /// On which bdevs are registered and removed.
    app: Thread,
    names: Mutex<Namespace>,
    next_number: AtomicU64,
    modules: Mutex<Vec<Arc<dyn Module>>>,
    virtuals: Mutex<Vec<Arc<Entry>>>,
    pub(crate) log: Notifications,
    /// Examinations under way.
    pub(crate) examining: Counter,
    pub(crate) rules: Mutex<ExamineRules>,
    /// Tasks that wait for a name or a bdev to be released.
    pub(crate) released: Arc<WaitList>,
    stopping: AtomicBool,
}

/// Which bdevs modules look at.
pub(crate) struct ExamineRules {
    /// All.
    pub(crate) auto: bool,
    /// Names and aliases of the bdevs to examine, if not all.
    pub(crate) allowed: Vec<String>,
}

impl Shared {
    pub(crate) fn names(&self) -> MutexGuard<'_, Namespace> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn modules(&self) -> MutexGuard<'_, Vec<Arc<dyn Module>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn virtuals(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.virtuals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rules(&self) -> MutexGuard<'_, ExamineRules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Makes the current runtime's registry. The calling thread becomes the one on which bdevs are registered
    /// and removed: call this on the app thread if the runtime runs a main. Returns an existing registry
    /// instead, if there is one.
    ///
    /// # Errors
    /// The caller is not on a Spindle thread.
    pub fn start() -> Result<Registry, BdevError> {
        let (Some(app), Some(runtime)) = (Thread::current(), Handle::current()) else {
            return Err(BdevError::NotOnThread { name: "registry".to_owned() });
        };
        let shared = Arc::new(Shared {
            app,
            names: Mutex::default(),
            next_number: AtomicU64::new(0),
            modules: Mutex::default(),
            virtuals: Mutex::default(),
            log: Notifications::default(),
            examining: Counter::default(),
            rules: Mutex::new(ExamineRules { auto: true, allowed: Vec::new() }),
            released: Arc::default(),
            stopping: AtomicBool::new(false),
        });
        runtime.set_extension(shared);
        Registry::of(&runtime)
    }

    /// The registry of a runtime.
    ///
    /// # Errors
    /// It has none.
    pub fn of(runtime: &Handle) -> Result<Registry, BdevError> {
        runtime.extension::<Shared>().map(Registry).ok_or(BdevError::NoRegistry)
    }

    /// The registry of the current runtime.
    ///
    /// # Errors
    /// It has none, or the caller is not on a Spindle thread.
    pub fn current() -> Result<Registry, BdevError> {
        Registry::current_for("registry")
    }

    pub(crate) fn current_for(name: &str) -> Result<Registry, BdevError> {
        match Handle::current() {
            Some(runtime) => Registry::of(&runtime),
            None => Err(BdevError::NotOnThread { name: name.to_owned() }),
        }
    }

    /// A weak reference.
    pub fn downgrade(&self) -> WeakRegistry {
        WeakRegistry(Arc::downgrade(&self.0))
    }

    /// The thread on which bdevs are registered and removed.
    pub fn app_thread(&self) -> &Thread {
        &self.0.app
    }

    /// The bdev of that name, alias or UUID (in lower case).
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<Bdev, BdevError> {
        let found = self.0.names().get(name).cloned();
        found.map(Bdev).ok_or_else(|| BdevError::NoSuchBdev { name: name.to_owned() })
    }

    /// Waits until there is a bdev of that name, alias or UUID.
    pub async fn appears(&self, name: &str) -> Bdev {
        let appearing = self.0.names().appearing();
        appearing.until(|| self.get(name).ok()).await
    }

    /// Waits until `ready` returns a value. It is called at once, and again when a name has become free, when a
    /// descriptor was closed, and after [`look_again`](Self::look_again). The future does not keep the registry.
    pub fn released<T, F: FnMut() -> Option<T>>(&self, ready: F) -> impl Future<Output = T> + use<T, F> {
        let released = self.0.released.clone();
        async move { released.until(ready).await }
    }

    /// Has all that wait in [`released`](Self::released) look again, as they may wait for other names now.
    pub fn look_again(&self) {
        self.0.released.wake_all();
    }

    /// All bdevs, in the order of registration.
    pub fn bdevs(&self) -> Vec<Bdev> {
        self.0.names().all().cloned().map(Bdev).collect()
    }

    /// Opens the bdev of that name, alias or UUID. The descriptor belongs to the calling thread.
    ///
    /// # Errors
    /// As [`Bdev::open`].
    pub fn open(&self, name: &str, options: DescOptions) -> Result<Desc, BdevError> {
        Desc::open(&self.get(name)?, options)
    }

    /// Registers a bdev on the app thread. When this returns it can be opened, and the bdevs on top of it
    /// ([`Virtual`](crate::Virtual)) exist. Modules examine it in the background
    /// ([`wait_for_examine`](Self::wait_for_examine)); then it enters the notification log. Dropping the
    /// future does not stop it.
    ///
    /// # Errors
    /// The name is empty, or it or an alias or the UUID is taken; the registry is shutting down.
    pub async fn register(&self, spec: BdevSpec) -> Result<Bdev, BdevError> {
        self.on_app(async move |registry| registry.register_here(spec, None).await).await
    }

    /// As [`register`](Self::register), on the app thread.
    pub(crate) async fn register_here(
        &self,
        spec: BdevSpec,
        standing: Option<Foundation>,
    ) -> Result<Bdev, BdevError> {
        if self.0.stopping.load(Ordering::Acquire) {
            return Err(BdevError::Stopping);
        }
        let uuid = spec.uuid.filter(|uuid| !uuid.is_nil()).unwrap_or_else(random_uuid);
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let weak: Weak<dyn Any + Send + Sync> = Arc::<Shared>::downgrade(&self.0);
        let inner = Arc::new(Inner::new(number, spec, uuid, standing, weak));
        self.0.names().add(&inner.names(), &inner)?;
        if let Some(state) = inner.device.state() {
            // Open lanes begin to count when they get the message.
            drop(state.keep_statistics(true));
        }
        let (bdev, counted) = (Bdev(inner), self.0.examining.begin());
        let own = bdev.0.examining.begin();
        if self.examines(&bdev.0) {
            self.stand_on_new(&bdev).await;
        }
        self.begin_examine(&bdev.0);
        report::event(&bdev, "is there");
        drop((counted, own));
        Ok(bdev)
    }

    /// The next free name of a series, for a module whose user gave none: "Malloc0", "Malloc1".
    pub fn next_name(&self, row: &'static str) -> String {
        self.0.names().next_name(row)
    }

    /// The log from number `id` on, at most `max` entries.
    pub fn notifications(&self, id: u64, max: u64) -> Vec<Notification> {
        self.0.log.from(id, max)
    }

    /// Runs an operation on the app thread, to its end even if this future is dropped.
    ///
    /// # Errors
    /// Those of the operation; it panicked; the runtime stops.
    pub async fn on_app<R, E, F>(&self, operation: F) -> Result<R, E>
    where
        F: AsyncFnOnce(Registry) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<BdevError> + Send + 'static,
    {
        let registry = self.clone();
        let there = async move || {
            let task = spindle_reactor::spawn_local(async move { operation(registry).await });
            task.await.unwrap_or_else(|error| {
                let what = "an operation on bdevs".to_owned();
                Err(BdevError::Module { what, why: error.to_string(), errno: errno::EIO }.into())
            })
        };
        self.0.app.run(there).await.unwrap_or_else(|_| Err(BdevError::Stopping.into()))
    }

    /// Shuts everything down, on the app thread: no bdev is registered any more, modules close their
    /// descriptors (stores are unloaded), the latest module first, and bdevs are unregistered, the latest
    /// first, but a bdev with others on it after those. Dropping the future does not stop it.
    ///
    /// # Errors
    /// The runtime stops.
    pub async fn shutdown(&self) -> Result<(), BdevError> {
        self.on_app(async |registry| {
            registry.0.stopping.store(true, Ordering::Release);
            registry.wait_for_examine().await;
            let modules = registry.0.modules().clone();
            for module in modules.into_iter().rev() {
                module.shutdown().await;
            }
            while let Some(bdev) = registry.topmost() {
                // Refused only if another call removes it, for which this waits.
                if registry.unregister_here(&bdev).await.is_err() {
                    bdev.removed().await;
                }
            }
            Ok(())
        })
        .await
    }

    /// The latest bdev on which nothing stands; if there is none, the latest of all.
    fn topmost(&self) -> Option<Bdev> {
        let names = self.0.names();
        let free = names.all().rev().find(|bdev| bdev.state().claims.first().is_none());
        free.or_else(|| names.all().next_back()).cloned().map(Bdev)
    }
}

/// A weak reference to a registry: for modules, which the registry keeps.
#[derive(Clone)]
pub struct WeakRegistry(Weak<Shared>);

impl WeakRegistry {
    /// The registry.
    ///
    /// # Errors
    /// The runtime has ended.
    pub fn get(&self) -> Result<Registry, BdevError> {
        self.0.upgrade().map(Registry).ok_or(BdevError::Stopping)
    }
}

/// A UUID of version 4, from the engine's randomness: the seed's in simulation.
///
/// # Panics
/// If the caller is not on a Spindle thread.
pub fn random_uuid() -> Uuid {
    let bits = u128::from(spindle_reactor::random()) << 64 | u128::from(spindle_reactor::random());
    uuid::Builder::from_random_bytes(bits.to_ne_bytes()).into_uuid()
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.bdevs().iter().map(|bdev| bdev.name().to_owned()).collect();
        write!(f, "Registry({})", names.join(", "))
    }
}
