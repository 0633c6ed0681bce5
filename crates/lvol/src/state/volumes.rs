//! The volumes of one store, by blob and by name; includes names reserved for new volumes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spindle_bdev::Uuid;
use spindle_blob::BlobId;

use super::lvol::LvolInner;
use crate::name::Name;

/// Its lock is held for a few instructions.
#[derive(Default)]
pub(crate) struct Volumes(Mutex<Maps>);

#[derive(Default)]
struct Maps {
    by_id: BTreeMap<BlobId, Arc<LvolInner>>,
    /// `None` for a reserved name.
    by_name: BTreeMap<Name, Option<BlobId>>,
    /// Volumes that read through a bdev outside of the store, by its UUID.
    external: BTreeMap<Uuid, Vec<BlobId>>,
}

impl Volumes {
    pub(crate) fn get(&self, id: BlobId) -> Option<Arc<LvolInner>> {
        self.maps().by_id.get(&id).cloned()
    }

    /// All of them, in the order of their blobs.
    pub(crate) fn all(&self) -> Vec<Arc<LvolInner>> {
        self.maps().by_id.values().cloned().collect()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<LvolInner>> {
        let maps = self.maps();
        let id = maps.by_name.get(name).copied()??;
        maps.by_id.get(&id).cloned()
    }

    /// Notes that a volume reads through the bdev of that UUID; the entry may outlive the volume.
    pub(crate) fn reads_external(&self, external: Uuid, id: BlobId) {
        let mut maps = self.maps();
        let ids = maps.external.entry(external).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// The volumes that read, or have read, through the bdev of that UUID.
    pub(crate) fn reading(&self, external: Uuid) -> Vec<Arc<LvolInner>> {
        let maps = self.maps();
        let ids = maps.external.get(&external).into_iter().flatten();
        ids.filter_map(|id| maps.by_id.get(id).cloned()).collect()
    }

    /// Reserves a name, unless it is taken. It must be [used](Self::insert) or [freed](Self::free).
    pub(crate) fn take(&self, name: &Name) -> bool {
        let mut maps = self.maps();
        let is_free = !maps.by_name.contains_key(name);
        if is_free {
            maps.by_name.insert(name.clone(), None);
        }
        is_free
    }

    /// Frees a name.
    pub(crate) fn free(&self, name: &Name) {
        self.maps().by_name.remove(name);
    }

    /// Adds a volume under its name.
    pub(crate) fn insert(&self, lvol: &Arc<LvolInner>) {
        let name = lvol.name();
        let mut maps = self.maps();
        maps.by_name.insert(name, Some(lvol.id));
        maps.by_id.insert(lvol.id, lvol.clone());
    }

    /// Gives a volume its new name, which was reserved.
    pub(crate) fn renamed(&self, lvol: &LvolInner, from: &Name, to: &Name) {
        let mut maps = self.maps();
        maps.by_name.remove(from);
        maps.by_name.insert(to.clone(), Some(lvol.id));
    }

    /// Removes a volume and its name.
    pub(crate) fn remove(&self, lvol: &LvolInner) {
        let name = lvol.name();
        let mut maps = self.maps();
        maps.by_id.remove(&lvol.id);
        if maps.by_name.get(&name) == Some(&Some(lvol.id)) {
            maps.by_name.remove(&name);
        }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
