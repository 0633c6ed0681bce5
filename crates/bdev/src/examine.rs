//! Modules look at every bdev, in whatever order modules and bdevs come.
//!
//! A bdev is examined by one module after the other, and by each once; bdevs are examined at the same time. A module
//! that comes late finds the bdevs that are there. All on the app thread; a panic of a module ends its own look.

use std::sync::Arc;

use crate::bdev::Inner;
use crate::error::errno;
use crate::{Bdev, BdevError, Module, NotificationKind, Phase, Registry};

impl Registry {
    /// Adds a module; it examines the bdevs that are there and all that come. A module whose name is known already
    /// is not added.
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

    /// Has modules look at every bdev that comes (as at first), or only at those that were
    /// [named](Self::examine).
    pub fn set_auto_examine(&self, yes: bool) {
        self.0.rules().auto = yes;
    }

    /// Has modules look at the bdev of that name or alias, now or when it comes, where they do not look at all.
    ///
    /// # Errors
    /// They look at all, or it was named before.
    pub async fn examine(&self, name: &str) -> Result<(), BdevError> {
        let name = name.to_owned();
        self.on_app(async move |registry| {
            let mut rules = registry.0.rules();
            if rules.auto {
                return Err(BdevError::argument(
                    format!("bdev_examine of {name:?}"),
                    "every bdev is examined by itself; set bdev_auto_examine to false first",
                ));
            }
            if rules.allowed.contains(&name) {
                let what = format!("bdev_examine of {name:?}");
                return Err(BdevError::Module {
                    what,
                    why: "it was asked for already".into(),
                    errno: errno::EEXIST,
                });
            }
            rules.allowed.push(name.clone());
            drop(rules);
            if let Ok(bdev) = registry.get(&name) {
                registry.begin_examine(&bdev.0);
            }
            Ok(())
        })
        .await
    }

    /// Starts a task that has every module look at the bdev that has not yet; on the app thread.
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

    /// A module that is to look at the bdev and has not, which is noted down.
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

    fn examines(&self, bdev: &Inner) -> bool {
        let names = bdev.names();
        let rules = self.0.rules();
        rules.auto || names.iter().any(|name| rules.allowed.contains(name))
    }

    /// The last look at a new bdev puts it into the log; the caller's is still counted.
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
