//! Random operations on a store beside plain vectors of bytes: they agree after every operation, after an
//! unload, after a crash, and every crash between leaves a store in which nothing is wrong.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use spindle_blob::{Blob, BlobError, BlobId, BlobOptions, Blobstore, LoadOptions};
use spindle_engine::sim::{Crash, Disk, DiskOptions, State};
use spindle_mem::IoBuf;
use support::{CLUSTER, check, check_image, read, run_on, slow_device, small};

const UNIT: u64 = 4096;

struct Model {
    disk: Disk,
    seed: u64,
    store: Blobstore,
    blobs: BTreeMap<BlobId, Vec<u8>>,
    read_only: Vec<BlobId>,
    handles: BTreeMap<BlobId, Blob>,
    states: Arc<Mutex<Vec<State>>>,
}

fn below(n: u64) -> u64 {
    spindle_reactor::random() % n.max(1)
}

/// Whether an operation that may run out of something did what it should.
fn done<T>(result: Result<T, BlobError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(BlobError::OutOfSpace { .. } | BlobError::OutOfMetadata { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

impl Model {
    async fn new(seed: u64, atomic_unit: u32, md_page_size: u32) -> Model {
        let disk = Disk::new(DiskOptions { atomic_unit, seed, ..DiskOptions::new(8 << 20) });
        let mut options = small();
        options.layout.md_page_size = md_page_size;
        if md_page_size > 16384 {
            options.layout.md_pages = spindle_blob::MdPages::Count(64);
        }
        let store = Blobstore::init(slow_device(&disk, seed), options).await.unwrap();
        let states = Arc::new(Mutex::new(Vec::new()));
        let mut model = Model {
            disk,
            seed,
            store,
            blobs: BTreeMap::new(),
            read_only: Vec::new(),
            handles: BTreeMap::new(),
            states,
        };
        model.watch();
        model
    }

    fn watch(&mut self) {
        let states = self.states.clone();
        self.disk.observe(move |moment, state| {
            if moment.before {
                states.lock().unwrap().push(state.clone());
            }
        });
    }

    fn pick(&self) -> Option<BlobId> {
        self.blobs.keys().nth(below(self.blobs.len() as u64) as usize).copied()
    }

    async fn open(&mut self, id: BlobId) -> Blob {
        if let Some(blob) = self.handles.get(&id) {
            return blob.clone();
        }
        let blob = self.store.open_blob(id).await.unwrap();
        self.handles.insert(id, blob.clone());
        blob
    }

    async fn close(&mut self, id: BlobId) {
        if let Some(blob) = self.handles.remove(&id) {
            blob.close().await.unwrap();
        }
    }

    async fn step(&mut self) {
        let Some(id) = self.pick().filter(|_| below(12) > 0) else { return self.create().await };
        let writable = !self.read_only.contains(&id);
        match below(14) {
            0..5 if writable => self.write(id).await,
            5 if writable => self.erase(id, true).await,
            6 if writable => self.erase(id, false).await,
            7 if writable => self.resize(id).await,
            8 if writable => self.snapshot(id).await,
            9 if !writable => {
                let bytes = self.blobs[&id].clone();
                if let Some(clone) = done(self.store.clone_blob(id, Vec::new()).await) {
                    self.blobs.insert(clone, bytes);
                }
            }
            10 if writable => drop(done(self.store.inflate(id).await)),
            11 if writable => match self.store.decouple_parent(id).await {
                Err(BlobError::Refused { .. }) => {}
                other => drop(done(other)),
            },
            12 => self.delete(id).await,
            _ => {}
        }
    }

    async fn create(&mut self) {
        let clusters = below(12);
        let options =
            BlobOptions { thin: below(3) > 0, extent_table: below(3) > 0, ..BlobOptions::thick(clusters) };
        if let Some(id) = done(self.store.create_blob(options).await) {
            self.blobs.insert(id, vec![0; (clusters * CLUSTER) as usize]);
        }
    }

    /// A range of a blob in whole units.
    fn range(&self, id: BlobId) -> Option<(u64, u64)> {
        let units = self.blobs[&id].len() as u64 / UNIT;
        let start = below(units);
        let most = if below(4) == 0 { 40 } else { 3 };
        (units > 0).then(|| (start * UNIT, (1 + below(most)).min(units - start) * UNIT))
    }

    async fn write(&mut self, id: BlobId) {
        let Some((offset, len)) = self.range(id) else { return };
        let blob = self.open(id).await;
        let bytes = vec![1 + below(255) as u8; len as usize];
        let (result, _) = blob.write(offset, IoBuf::copy_from(&bytes)).await;
        if done(result).is_some() {
            self.blobs.get_mut(&id).unwrap()[offset as usize..(offset + len) as usize]
                .copy_from_slice(&bytes);
        } else {
            // Any part of it may have been written.
            let now = read(&blob, 0, blob.size()).await;
            self.blobs.insert(id, now);
        }
    }

    async fn erase(&mut self, id: BlobId, zeroes: bool) {
        let Some((offset, len)) = self.range(id) else { return };
        let blob = self.open(id).await;
        let result = match zeroes {
            true => blob.write_zeroes(offset, len).await,
            false => blob.unmap(offset, len).await,
        };
        let known = zeroes && done(result).is_some();
        let now = read(&blob, 0, blob.size()).await;
        let (from, to) = (offset as usize, (offset + len) as usize);
        let before = self.blobs.get_mut(&id).unwrap();
        assert_eq!((&before[..from], &before[to..]), (&now[..from], &now[to..]), "nothing else changes");
        assert!(!known || now[from..to].iter().all(|&byte| byte == 0));
        *before = now;
    }

    async fn resize(&mut self, id: BlobId) {
        let clusters = below(14);
        let blob = self.open(id).await;
        if done(blob.resize(clusters).await).is_some() {
            self.blobs.get_mut(&id).unwrap().resize((clusters * CLUSTER) as usize, 0);
        }
    }

    async fn snapshot(&mut self, id: BlobId) {
        if let Some(snapshot) = done(self.store.snapshot(id, Vec::new()).await) {
            let bytes = self.blobs[&id].clone();
            self.blobs.insert(snapshot, bytes);
            self.read_only.push(snapshot);
        }
    }

    async fn delete(&mut self, id: BlobId) {
        self.close(id).await;
        match self.store.delete_blob(id).await {
            Err(BlobError::Busy { .. }) => {}
            other => {
                if done(other).is_some() {
                    self.blobs.remove(&id);
                    self.read_only.retain(|&one| one != id);
                }
            }
        }
    }

    async fn agrees(&mut self, when: &str) {
        let ids: Vec<BlobId> = self.blobs.keys().copied().collect();
        assert_eq!(self.store.blobs().await.unwrap(), ids, "{when}");
        for id in ids {
            let blob = self.open(id).await;
            assert_eq!(blob.size(), self.blobs[&id].len() as u64, "{when}: size of {id}");
            let bytes = read(&blob, 0, blob.size()).await;
            let at = bytes.iter().zip(&self.blobs[&id]).position(|(one, other)| one != other);
            assert_eq!(at, None, "{when}: first byte of {id} that differs");
        }
    }

    /// Every crash between two writes of what was done since the last time leaves a store in order.
    fn crashes_leave_order(&self) {
        for state in std::mem::take(&mut *self.states.lock().unwrap()) {
            for _ in 0..2 {
                check_image(&state.crash(Crash::Random, &mut |n| below(n as u64) as usize));
            }
        }
    }

    async fn unload_and_load(&mut self) {
        for id in self.handles.keys().copied().collect::<Vec<_>>() {
            self.close(id).await;
        }
        self.store.unload().await.unwrap();
        check(&self.disk);
        self.store =
            Blobstore::load(slow_device(&self.disk, self.seed), LoadOptions::default()).await.unwrap();
    }

    /// Everything that was acknowledged before a flush is there after a crash.
    async fn flush_and_crash(&mut self) {
        if let Some(blob) = self.handles.values().next() {
            blob.flush().await.unwrap();
        } else {
            self.disk.flush().unwrap();
        }
        let image = self.disk.crash(Crash::Random, &mut |n| below(n as u64) as usize);
        self.disk = Disk::from_image(image, self.disk.options());
        self.watch();
        self.handles.clear();
        self.store =
            Blobstore::load(slow_device(&self.disk, self.seed), LoadOptions::default()).await.unwrap();
    }
}

fn store_agrees_with_model(seed: u64, atomic_unit: u32, md_page_size: u32, steps: u32) {
    run_on(&format!("sim:{seed}"), async move || {
        let mut model = Model::new(seed, atomic_unit, md_page_size).await;
        for step in 0..steps {
            model.step().await;
            if below(8) == 0 {
                model.agrees(&format!("seed {seed}, step {step}")).await;
            }
            match below(25) {
                0 => model.unload_and_load().await,
                1 => model.flush_and_crash().await,
                _ => continue,
            }
            model.agrees(&format!("seed {seed}, loaded after step {step}")).await;
            model.crashes_leave_order();
        }
        model.agrees(&format!("seed {seed}, at the end")).await;
        model.crashes_leave_order();
        // What is in use in memory is what the metadata names: nothing leaked.
        let free = model.store.info().await.unwrap().free_clusters;
        model.unload_and_load().await;
        assert_eq!(model.store.info().await.unwrap().free_clusters, free);
    });
}

#[test]
fn a_store_agrees_with_a_model_on_disks_that_tear_pages() {
    for seed in 0..std::env::var("SEEDS").map_or(6, |n| n.parse().unwrap()) {
        store_agrees_with_model(seed, 512, 0, 120);
    }
}

#[test]
fn a_store_agrees_with_a_model_on_disks_that_write_pages_whole() {
    for seed in 1000..1000 + std::env::var("SEEDS").map_or(6, |n| n.parse().unwrap()) {
        store_agrees_with_model(seed, 4096, 0, 120);
    }
}

#[test]
fn a_store_with_larger_metadata_pages_agrees_with_a_model() {
    for (at, page) in [8192, 16384, 65536].into_iter().enumerate() {
        store_agrees_with_model(2000 + at as u64, 512, page, 100);
        store_agrees_with_model(3000 + at as u64, 4096, page, 100);
    }
}
