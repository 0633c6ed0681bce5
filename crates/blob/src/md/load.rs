//! Creates and loads stores.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use spindle_block::Device;
use spindle_format::init::{ClearData, DeviceShape};
use spindle_format::repair::{Repair, RepairReason};
use spindle_format::store::AllocationBlocked;
use spindle_format::{
    Bitmap, BlobId, Geometry, LoadError, Loader, PAGE_SIZE, Store, SuperBlock, grow, init as layout, sharing,
};
use spindle_mem::IoBuf;
use spindle_reactor::{Thread, WaitList, yield_now};

use super::behind::Behind;
use super::blob_state::BlobState;
use super::flushes::Flushes;
use super::found::Found;
use super::grow::check_clusters;
use super::metadata::Md;
use super::read;
use super::turns::Turns;
use super::wanted::Wanted;
use super::zeroing::ZeroAhead;
use crate::error::BlobError;
use crate::options::{InitOptions, LoadOptions, LoadStep, StoreOptions};
use crate::ordering::Point;
use crate::shared::{Flushing, Member, StoreDevice, StoreLocal, StoreShared, Tied};
use crate::space::{Space, Watches};
use crate::waiting::TaskLock;

/// A store without handles yet. If it is dropped before it gets one, it releases its device.
pub(crate) struct Loaded(Option<Rc<Md>>);

/// A device, opened on the future metadata thread.
struct Opened {
    name: Arc<str>,
    device: Arc<StoreDevice>,
    local: Rc<StoreLocal>,
    thread: Thread,
}

async fn open(device: Arc<dyn Device>, read_only: bool, wanted: &Wanted) -> Result<Opened, BlobError> {
    Md::abandoned_are_gone(&device).await;
    let name: Arc<str> = device.name().into();
    let failed = |source| BlobError::Open { store: name.clone(), source: Arc::new(source) };
    let device = StoreDevice::new(device);
    if !read_only {
        device.claim().await.map_err(failed)?;
        wanted.has(&device);
    }
    let local = device.local(Arc::default(), None).map_err(failed)?;
    let not_here = spindle_block::OpenError::NotOnThread { device: name.to_string() };
    let thread = Thread::current().ok_or_else(|| failed(not_here))?;
    Ok(Opened { name: name.clone(), device, local, thread })
}

/// Creates a store; this thread becomes its metadata thread.
pub(crate) async fn init(
    device: Arc<dyn Device>,
    options: InitOptions,
    wanted: &Wanted,
) -> Result<Loaded, BlobError> {
    let opened = open(device, false, wanted).await?;
    let shape = opened.local.channel().geometry();
    let (block_size, size) = (shape.block_size(), shape.bytes());
    let device_shape = DeviceShape { size, block_size, physical_block_size: block_size };
    let plan = layout::plan(&device_shape, &options.layout)
        .map_err(|source| BlobError::Init { store: opened.name.clone(), source });
    let plan = plan.and_then(|plan| check_clusters(&opened.name, &plan.geometry).map(|()| plan));
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return close(opened, error).await,
    };
    if !options.force
        && let Err(error) = refuse_known(&opened).await
    {
        return close(opened, error).await;
    }
    let zero = match options.layout.clear {
        ClearData::WriteZeroes => true,
        ClearData::Unmap => shape.unmap_reads_zero(),
        ClearData::None => false,
    };
    let geometry = plan.geometry;
    let used = Used {
        clusters: {
            let mut clusters = Bitmap::new(geometry.total_clusters());
            (0..geometry.metadata_clusters()).for_each(|cluster| {
                clusters.set(cluster);
            });
            clusters
        },
        pages: Bitmap::new(geometry.md_pages()),
        blob_ids: Bitmap::new(geometry.md_pages()),
    };
    let md = assemble(&opened, geometry, plan.super_block, used, options.store, zero, false);
    match md.apply_all(&plan.changes, Point::ClearedBeforeSuper, Point::DurableBeforeAck).await {
        Ok(()) => {
            if md.local.refuses_unmap() && options.layout.clear == ClearData::Unmap {
                md.space.borrow_mut().forget_zero();
            }
            Ok(Loaded::new(md))
        }
        Err(error) => close(opened, error).await,
    }
}

/// Loads a store; this thread becomes its metadata thread.
pub(crate) async fn load(
    device: Arc<dyn Device>,
    options: LoadOptions,
    wanted: &Wanted,
) -> Result<Loaded, BlobError> {
    let read_only = options.read_only || !device.geometry().writable();
    let opened = open(device, read_only, wanted).await?;
    let store = match read_store(&opened, &options, read_only).await {
        Ok(store) => store,
        Err(error) => return close(opened, error).await,
    };
    let (md, repairs) = from_store(&opened, store.0, options.store.clone(), read_only).await;
    let finished = match read_only {
        true => Ok(()),
        false => finish(&md, repairs, store.1, &options).await,
    };
    match finished {
        Ok(()) => Ok(Loaded::new(md)),
        Err(error) => close(opened, error).await,
    }
}

impl Loaded {
    fn new(md: Md) -> Loaded {
        Loaded(Some(Rc::new(md)))
    }

    /// Registers the store, so that handles find it.
    pub(crate) fn keep(mut self) -> Arc<StoreShared> {
        let md = self.0.take().expect("taken here only");
        md.register();
        md.search_held();
        md.shared.clone()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(md) = self.0.take() {
            md.shared.device.abandon();
        }
    }
}

async fn close<T>(opened: Opened, error: BlobError) -> Result<T, BlobError> {
    let Opened { device, local, .. } = opened;
    drop(local);
    device.close_local().await;
    device.let_go();
    Err(error)
}

/// Refuses to overwrite anything known: another store, a partition table, a file system, a volume.
async fn refuse_known(opened: &Opened) -> Result<(), BlobError> {
    let bytes = (128 << 10).min(opened.local.channel().geometry().bytes());
    let (result, buffers) = opened.local.channel().read(0, IoBuf::zeroed(bytes as usize)).await;
    result?;
    let head = buffers.to_vec();
    // Offsets and bytes from the programs' own documentation.
    let known: [(usize, &[u8], &str); 10] = [
        (0, b"SPDKBLOB", "a Blobstore"),
        (512, b"EFI PART", "a partition table (GPT)"),
        (4096, b"EFI PART", "a partition table (GPT)"),
        (510, b"\x55\xAA", "a partition table or boot sector"),
        (1080, b"\x53\xEF", "an ext2, ext3 or ext4 file system"),
        (0, b"XFSB", "an XFS file system"),
        (65600, b"_BHRfS_M", "a btrfs file system"),
        (0, b"LUKS\xBA\xBE", "an encrypted volume (LUKS)"),
        (512, b"LABELONE", "a physical volume (LVM)"),
        (4086, b"SWAPSPACE2", "swap space"),
    ];
    let holds = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    match known.into_iter().find(|&(at, magic, _)| holds(at, magic)) {
        Some((_, _, found)) => Err(BlobError::InUse { store: opened.name.clone(), found }),
        None => Ok(()),
    }
}

/// Reads a store's metadata; also returns the size of the device. For reading only, a store of which the device has
/// lost the end is loaded too.
async fn read_store(
    opened: &Opened,
    options: &LoadOptions,
    read_only: bool,
) -> Result<(Store, u64), BlobError> {
    let bytes = opened.local.channel().geometry().bytes();
    let store = match read_as(opened, options, bytes).await {
        Err(error) => match error.cut_short(bytes).filter(|_| read_only) {
            Some(whole) => read_as(opened, options, whole).await,
            None => Err(error),
        },
        store => store,
    };
    let store = store.map_err(|source| BlobError::Load { store: opened.name.clone(), source })?;
    check_clusters(&opened.name, &store.geometry)?;
    Ok((store, bytes))
}

/// The same, as if the device had `bytes` bytes: reads after its end fail.
async fn read_as(opened: &Opened, options: &LoadOptions, bytes: u64) -> Result<Store, LoadError> {
    let channel = opened.local.channel();
    let wanted = spindle_format::LoadOptions {
        block_size: channel.geometry().block_size(),
        bs_type: options.bs_type,
        force_recover: options.force_recover,
        max_read: read::LARGEST_READ,
        whole_pages: channel.geometry().atomic_unit() as usize >= PAGE_SIZE,
    };
    let mut loader = Loader::new(bytes, wanted);
    let step = |loader: &Loader| {
        let (bytes_read, bytes_total) = loader.progress();
        LoadStep { bytes_read, bytes_total, ..LoadStep::default() }
    };
    report(options, || step(&loader));
    read::read(&mut loader, channel, |loader| report(options, || step(loader))).await;
    let all = step(&loader);
    let mut assembly = loader.assemble();
    loop {
        if let Some(done) = assembly.step() {
            return done;
        }
        report(options, || LoadStep { assembled: assembly.progress(), ..all });
        yield_now().await;
    }
}

/// Reports the progress of a load, if the caller asked for it.
fn report(options: &LoadOptions, step: impl FnOnce() -> LoadStep) {
    if let Some(progress) = &options.progress {
        progress(step());
    }
}

struct Used {
    clusters: Bitmap,
    pages: Bitmap,
    blob_ids: Bitmap,
}

fn assemble(
    opened: &Opened,
    geometry: Geometry,
    super_block: SuperBlock,
    used: Used,
    options: StoreOptions,
    all_zero: bool,
    read_only: bool,
) -> Md {
    let shared = Arc::new(StoreShared {
        name: opened.name.clone(),
        device: opened.device.clone(),
        md: opened.thread.clone(),
        on_notice: Md::take_notice,
        cluster_size: geometry.cluster_size(),
        io_unit: opened.local.channel().geometry().block_size(),
        arena: Arc::default(),
        order: options.order,
        read_only,
        unloaded: AtomicBool::new(false),
        abandoned: AtomicBool::new(false),
        flushing: Flushing::default(),
        poison: OnceLock::new(),
        members: Mutex::new(vec![Member {
            thread: opened.thread.clone(),
            reserve: opened.local.reserve.clone(),
        }]),
    });
    Md {
        shared,
        options,
        local: opened.local.clone(),
        space: RefCell::new(Space::new(&geometry, used.clusters, used.pages, all_zero)),
        used_blob_ids: RefCell::new(used.blob_ids),
        clean_on_disk: Cell::new(super_block.clean),
        geometry: RefCell::new(geometry),
        super_block: RefCell::new(super_block),
        blobs: RefCell::default(),
        found: Found::default(),
        marking: TaskLock::default(),
        lock: TaskLock::default(),
        copies: RefCell::default(),
        clearing_copies: TaskLock::default(),
        rewriting: WaitList::default(),
        flushes: Flushes::default(),
        showing: TaskLock::default(),
        ahead: ZeroAhead::default(),
        behind: Behind::default(),
        watches: Watches::default(),
        left: WaitList::default(),
        open: Cell::new(0),
    }
}

/// The metadata of a loaded store, and the repairs that a writing load has to make first.
async fn from_store(
    opened: &Opened,
    mut store: Store,
    options: StoreOptions,
    read_only: bool,
) -> (Md, Vec<Repair>) {
    let sharing = sharing::blobs(&store);
    let used = Used { clusters: store.used_clusters, pages: store.used_pages, blob_ids: store.used_blob_ids };
    let mut super_block = store.super_block;
    let super_blob = super_block.super_blob;
    let repaired = |repair: &Repair| repair.reason == RepairReason::MarkDirty;
    super_block.clean &= !store.repairs.iter().any(repaired);
    let mut md = assemble(opened, store.geometry, super_block, used, options, false, read_only);
    md.found.recovered = store.recovered;
    md.found.blocked = store.allocation_blocked.map(|blocked| {
        let why = why_blocked(&blocked);
        md.found.unreadable = blocked.pages.into_iter().collect();
        why.into()
    });
    md.found.named_by_damaged =
        store.damaged.iter().flat_map(|damaged| damaged.named_blobs.clone()).collect();
    // The id of a damaged blob stays its own also if its page was another blob's and becomes free.
    let damaged = store.damaged.iter().map(|blob| blob.id);
    let damaged = damaged.chain(md.found.named_by_damaged.iter().copied());
    let super_blob = super_blob.filter(|id| !store.blobs.contains_key(id));
    let named = damaged.chain(store.half_done.iter().map(|half| half.other)).chain(super_blob);
    md.found.reserved_roots = named.filter_map(BlobId::root_page).collect();
    md.found.damaged = store
        .damaged
        .into_iter()
        .map(|blob| {
            (blob.id, blob.errors.first().map_or("unreadable".into(), |error| error.to_string().into()))
        })
        .collect();
    let left = store.repairs.iter().filter_map(Repair::leaves_marker);
    md.found.half_done = store.half_done.iter().map(|half| half.snapshot).chain(left).collect();
    let repairs = store.repairs;
    md.found.leaves_resize = repairs.iter().any(Repair::leaves_resize);
    let (mut blobs, mut turns) = (BTreeMap::new(), Turns::default());
    while let Some((id, blob)) = store.blobs.pop_first() {
        let missing = |named: &BlobId| !store.blobs.contains_key(named) && !blobs.contains_key(named);
        md.found.reserved_roots.extend(blob.named_blobs().filter(missing).filter_map(BlobId::root_page));
        let mut state = BlobState::new(id, blob.metadata, blob.chain);
        state.tied = sharing.get(&id).copied().map(Tied::Shares);
        let read_by = blob.clones.first().copied().filter(|_| !state.flags().data_locked());
        state.tied = state.tied.or(read_by.map(Tied::ReadBy));
        *state.clones.borrow_mut() = blob.clones;
        blobs.insert(id, Rc::new(state));
        turns.spend(2).await;
    }
    md.blobs = RefCell::new(blobs);
    (md, repairs)
}

/// The reason in words why nothing may be allocated or freed.
fn why_blocked(blocked: &AllocationBlocked) -> String {
    let AllocationBlocked { blobs, pages, clusters, extent_pages, unlisted, marked } = blocked;
    let parts = [
        (blobs.len(), "blob cannot be read", "blobs cannot be read"),
        (pages.len(), "metadata page cannot be read", "metadata pages cannot be read"),
        (clusters.len(), "cluster has two owners", "clusters have two owners"),
        (extent_pages.len(), "extent page has two owners", "extent pages have two owners"),
        (
            unlisted.len(),
            "blob is missing in the mask of blob ids",
            "blobs are missing in the mask of blob ids",
        ),
        (
            marked.len(),
            "blob is missing that an unfinished snapshot operation names",
            "blobs are missing that unfinished snapshot operations name",
        ),
    ];
    let parts = parts.iter().filter(|(count, ..)| *count > 0);
    let parts = parts.map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }));
    parts.collect::<Vec<_>>().join(", ")
}

/// The work of a writing load before the store is used: repairs, then growth.
async fn finish(
    md: &Md,
    repairs: Vec<Repair>,
    device_bytes: u64,
    options: &LoadOptions,
) -> Result<(), BlobError> {
    let bytes = md.geometry.borrow().metadata().len as u64 * u64::from(md.geometry.borrow().md_page_size());
    if !md.clean_on_disk.get() || !repairs.is_empty() {
        // Data of a program that died can be read although it may not be durable yet.
        md.flush_for(&[Point::FoundBeforeChange]).await?;
    }
    for (done, repair) in repairs.iter().enumerate() {
        let repairs = (done, repairs.len());
        report(options, || LoadStep {
            bytes_read: bytes,
            bytes_total: bytes,
            repairs,
            ..LoadStep::default()
        });
        md.apply_all(&repair.changes, Point::RepairStep, Point::RepairStep).await?;
    }
    if !repairs.is_empty() {
        md.flush_for(&[Point::RepairStep]).await?;
    }
    if options.grow && md.found.blocked.is_none() {
        match md.grow_to(device_bytes).await {
            // As SPDK: a store whose masks cannot grow is loaded as it is.
            Err(BlobError::Grow { source: grow::GrowError::NoRoom { .. }, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

const _: () = assert!(PAGE_SIZE == 4096, "copies of pages are made where the atomic unit is smaller");
