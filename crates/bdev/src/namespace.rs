//! The single namespace of a registry: names, aliases and UUIDs as text, each belonging to one bdev.
//!
//! Behind the registry's lock, which is held for a few instructions. Take it before a bdev's own lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use spindle_reactor::WaitList;

use crate::BdevError;
use crate::bdev::Inner;

/// Names of bdevs, aliases included.
#[derive(Default)]
pub(crate) struct Namespace {
    by_name: BTreeMap<String, Arc<Inner>>,
    /// In the order of registration.
    in_order: BTreeMap<u64, Arc<Inner>>,
    counters: BTreeMap<&'static str, u64>,
    /// Tasks that wait for a name to appear.
    appearing: Arc<WaitList>,
}

impl Namespace {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Inner>> {
        self.by_name.get(name)
    }

    /// All bdevs, in the order of registration.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Inner>> {
        self.in_order.values()
    }

    /// Adds a bdev under all of these names, or under none if one is taken.
    pub(crate) fn add(&mut self, names: &[String], bdev: &Arc<Inner>) -> Result<(), BdevError> {
        names.iter().try_for_each(|name| self.check_free(name))?;
        for name in names {
            self.by_name.insert(name.clone(), bdev.clone());
        }
        self.in_order.insert(bdev.number, bdev.clone());
        self.appearing.wake_all();
        Ok(())
    }

    /// The tasks that wait for a name to appear.
    pub(crate) fn appearing(&self) -> Arc<WaitList> {
        self.appearing.clone()
    }

    /// Adds a name of an existing bdev.
    pub(crate) fn add_alias(&mut self, alias: &str, bdev: &Arc<Inner>) -> Result<(), BdevError> {
        self.check_free(alias)?;
        self.by_name.insert(alias.to_owned(), bdev.clone());
        self.appearing.wake_all();
        Ok(())
    }

    /// Removes a name.
    pub(crate) fn remove_alias(&mut self, alias: &str) {
        self.by_name.remove(alias);
    }

    /// Removes a bdev and all its names.
    pub(crate) fn remove(&mut self, bdev: &Inner, names: &[String]) {
        names.iter().for_each(|name| drop(self.by_name.remove(name)));
        self.in_order.remove(&bdev.number);
    }

    /// The next free name of a series: "Malloc0", "Malloc1".
    pub(crate) fn next_name(&mut self, row: &'static str) -> String {
        let counter = self.counters.entry(row).or_default();
        loop {
            let name = format!("{row}{counter}");
            *counter += 1;
            if !self.by_name.contains_key(&name) {
                return name;
            }
        }
    }

    fn check_free(&self, name: &str) -> Result<(), BdevError> {
        if name.is_empty() {
            return Err(BdevError::argument("name of a bdev", "it is empty; give at least one character"));
        }
        match self.by_name.get(name) {
            Some(by) => Err(BdevError::Exists { name: name.to_owned(), by: by.name.clone() }),
            None => Ok(()),
        }
    }
}
