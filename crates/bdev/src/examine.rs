//! Lets modules examine every bdev, independent of the order in which modules and bdevs come.
//!
//! Modules examine a bdev one after the other, each of them once; different bdevs are examined concurrently.
//! A module that is added later finds the existing bdevs. All on the app thread; a panic of a module ends only its own
//! examination.

use std::sync::Arc;

use crate::bdev::Inner;
use crate::error::errno;
use crate::registry::ExamineRules;
use crate::{Bdev, BdevError, Module, NotificationKind, Phase, Registry};

impl ExamineRules {
    /// Lets modules examine a bdev of that name, if they do not examine all.
    fn allow(&mut self, name: &str) -> Result<(), BdevError> {
        let what = || format!("bdev_examine of {name:?}");
        if self.auto {
            let why = "every bdev is examined by itself; set bdev_auto_examine to false first";
            return Err(BdevError::argument(what(), why));
        }
        if self.allowed.iter().any(|known| known == name) {
            let why = "it was asked for already".into();
            return Err(BdevError::Module { what: what(), why, errno: errno::EEXIST });
        }
        self.allowed.push(name.to_owned());
        Ok(())
    }
}

impl Registry {
    /// Adds a module; it examines all present and future bdevs. A module whose name is registered already is
    /// not added.
    ///
    /// # Errors
    /// The runtime stops.
    pub async fn add_module(&self, module: Arc<dyn Module>) -> Result<(), BdevError> {
        self.on_app(async move |registry| {
            let mut modules = registry.0.modules();
            if modules.iter().any(|known| known.name() == module.name()) {
                return Ok(());
            }
            modules.push(module);
            drop(modules);
            registry.bdevs().iter().for_each(|bdev| registry.begin_examine(&bdev.0));
            Ok(())
        })
        .await
    }

    /// Waits until no bdev is being examined.
    pub async fn wait_for_examine(&self) {
        self.0.examining.none().await;
    }

    /// Sets whether modules examine every new bdev (the default), or only those [named](Self::examine).
    pub fn set_auto_examine(&self, yes: bool) {
        self.0.rules().auto = yes;
    }

    /// Lets modules examine the bdev of that name or alias, now or when it comes, if they do not examine all
    /// of them.
    ///
    /// # Errors
    /// They examine all of them, or it was named before.
    pub async fn examine(&self, name: &str) -> Result<(), BdevError> {
        let name = name.to_owned();
        self.on_app(async move |registry| {
            registry.0.rules().allow(&name)?;
            if let Ok(bdev) = registry.get(&name) {
                registry.stand_on_new(&bdev).await;
                registry.begin_examine(&bdev.0);
            }
            Ok(())
        })
        .await
    }

    /// The names that were given to [`examine`](Self::examine), in their order.
    pub fn named_to_examine(&self) -> Vec<String> {
        self.0.rules().allowed.clone()
    }

    /// Starts a task in which every module examines the bdev that has not yet; on the app thread.
    pub(crate) fn begin_examine(&self, bdev: &Arc<Inner>) {
        let counted = (self.0.examining.begin(), bdev.examining.begin());
        let (registry, bdev) = (self.clone(), bdev.clone());
        drop(spindle_reactor::spawn_local(async move {
            while let Some(module) = registry.next_module(&bdev) {
                let bdev = Bdev(bdev.clone());
                // A panic was reported, with the place where this task was spawned.
                let _ = spindle_reactor::spawn_local(async move { module.examine(bdev).await }).await;
            }
            registry.announce(&bdev);
            drop(counted);
        }));
    }

    /// The next module that must examine the bdev; it is noted as having done so.
    fn next_module(&self, bdev: &Arc<Inner>) -> Option<Arc<dyn Module>> {
        let modules = self.0.modules().clone();
        let examines = self.examines(bdev);
        let mut state = bdev.state();
        let examines = examines && state.phase == Phase::Ready;
        let next = modules.into_iter().find(|module| {
            examines && !state.examined.contains(module.name()) && state.claims.lets_examine(module.name())
        })?;
        state.examined.insert(next.name());
        Some(next)
    }

    pub(crate) fn examines(&self, bdev: &Inner) -> bool {
        let names = bdev.names();
        let rules = self.0.rules();
        rules.auto || names.iter().any(|name| rules.allowed.contains(name))
    }

    /// The end of the last examination of a new bdev puts it into the log; the caller's own examination is still
    /// counted.
    fn announce(&self, bdev: &Inner) {
        let mut state = bdev.state();
        let announce = bdev.examining.count() == 1 && state.phase == Phase::Ready && !state.announced;
        state.announced |= announce;
        drop(state);
        if announce {
            self.0.log.add(NotificationKind::Register, &bdev.name);
        }
    }
}
