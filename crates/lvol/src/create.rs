//! Creates stores and volumes.

use std::sync::Arc;

use spindle_bdev::{Uuid, random_uuid};
use spindle_blob::{
    BlobError, BlobId, BlobOptions, Blobstore, BsType, ClearData, ClearMethod, InitOptions, LayoutOptions,
    MdPages,
};
use spindle_format::init::InitError;

use crate::identity::{self, NAME, UUID, uuid_bytes};
use crate::name::Name;
use crate::state::{LvolInner, StoreInner};
use crate::{Lvol, LvolError, LvolStore, Lvols};

/// The most clusters of a volume: the number that maps in memory can represent.
const MOST_CLUSTERS: u64 = (1 << 31) - 1;

/// Default bytes of a cluster.
const CLUSTER_SIZE: u32 = 4 << 20;

/// Parameters of a store.
#[derive(Clone, Debug, Default)]
pub struct StoreSpec {
    /// The bdev for it, by name, alias or UUID.
    pub bdev: String,
    /// Its name.
    pub name: String,
    /// Bytes of a cluster: a multiple of 4096; default, or if 0: 4 MiB.
    pub cluster_size: Option<u32>,
    /// How the data area is cleared; default: unmapped.
    pub clear: ClearData,
    /// Metadata pages for every hundred clusters; default, or if 0: 100.
    pub md_pages_per_hundred_clusters: Option<u32>,
    /// Bytes of a metadata page: a power of two from 4096 to 65536; default, or if 0: as the bdev requires.
    pub md_page_size: Option<u32>,
    /// Overwrites any known contents of the bdev.
    pub force: bool,
}

/// Parameters of a volume.
#[derive(Clone, Debug)]
pub struct LvolSpec {
    /// Its name in its store.
    pub name: String,
    /// Its size in bytes, rounded up to whole clusters; may be 0.
    pub bytes: u64,
    /// True if it takes space on first write instead of now.
    pub thin: bool,
    /// How clusters that it gives back are cleared.
    pub clear_method: ClearMethod,
}

impl LvolSpec {
    /// A thin volume.
    pub fn thin(name: impl Into<String>, bytes: u64) -> LvolSpec {
        LvolSpec { name: name.into(), bytes, thin: true, clear_method: ClearMethod::Default }
    }

    /// A thick volume.
    pub fn thick(name: impl Into<String>, bytes: u64) -> LvolSpec {
        LvolSpec { thin: false, ..LvolSpec::thin(name, bytes) }
    }
}

impl Lvols {
    /// Makes a store; on the app thread.
    pub(crate) async fn make_store(&self, spec: StoreSpec) -> Result<LvolStore, LvolError> {
        // The checks are in SPDK's order.
        let name = Name::new("lvolstore name", &spec.name)?;
        let md_page_size = md_page_size(&spec)?;
        let bdev = self.registry()?.get(&spec.bdev)?;
        // An examination under way may be loading the store that this would overwrite.
        bdev.examined().await;
        let (desc, _making) = self.claim_base(&bdev)?;
        let cluster_size = cluster_size(&spec, bdev.geometry().block_size())?;
        // No await follows until the claim shows that a store is being made here.
        self.check_name(name.as_str(), None)?;
        let md_pages = md_pages(&spec, bdev.geometry().bytes(), cluster_size)?;
        let (clear, bs_type) = (spec.clear, BsType::LVOLSTORE);
        let layout = LayoutOptions { cluster_size, md_pages, clear, bs_type, md_page_size };
        let what = || format!("lvolstore {:?} on bdev {:?}", name.as_str(), bdev.name());
        let options = InitOptions { layout, force: spec.force, store: self.store_options() };
        let made = Blobstore::init(desc.device(), options).await;
        let blobstore = made.map_err(named_as_parameters).map_err(LvolError::blob(what()))?;
        let uuid = random_uuid();
        let super_blob = match write_super_blob(&blobstore, &name, uuid).await {
            Ok(super_blob) => super_blob,
            Err(error) => {
                // The new store is not usable; if this fails, a later examination finds that it has no name.
                let _ = blobstore.destroy().await;
                return Err(LvolError::Blob { what: what(), source: error });
            }
        };
        desc.claimed_by(&format!("lvolstore {:?}", name.as_str()));
        let store = StoreInner::new(&self.0, (name, uuid), (blobstore, super_blob), desc);
        store.ready.set();
        self.add_store(store.clone());
        Ok(LvolStore(store))
    }
}

/// The error of a layout, with the names that SPDK's method has for its fields.
fn named_as_parameters(mut error: BlobError) -> BlobError {
    if let BlobError::Init { source: InitError::Option { option: option @ "cluster_size", .. }, .. } =
        &mut error
    {
        *option = "cluster_sz";
    }
    error
}

/// Bytes of a metadata page, or 0 for what the bdev requires.
fn md_page_size(spec: &StoreSpec) -> Result<u32, LvolError> {
    let size = spec.md_page_size.unwrap_or(0);
    if size == 0 || (size.is_power_of_two() && (4096..=65536).contains(&size)) {
        return Ok(size);
    }
    let why = format!("md_page_size is {size}; give a power of two from 4096 to 65536, or 0");
    Err(LvolError::Argument { what: format!("lvolstore {:?}", spec.name), why })
}

/// Bytes of a cluster on blocks of that size.
fn cluster_size(spec: &StoreSpec, block_size: u32) -> Result<u32, LvolError> {
    let cluster_size = spec.cluster_size.filter(|&size| size != 0).unwrap_or(CLUSTER_SIZE);
    if cluster_size >= block_size && cluster_size.is_multiple_of(block_size) {
        return Ok(cluster_size);
    }
    let why = format!("clusters of {cluster_size} bytes are not whole blocks of {block_size}");
    Err(LvolError::Argument { what: format!("lvolstore {:?}", spec.name), why })
}

/// The number of metadata pages of a store on a bdev of so many bytes.
fn md_pages(spec: &StoreSpec, bytes: u64, cluster_size: u32) -> Result<MdPages, LvolError> {
    let what = || format!("lvolstore {:?}", spec.name);
    let clusters = bytes / u64::from(cluster_size);
    if clusters == 0 {
        let why = format!("bdev {:?} has {bytes} bytes, less than a cluster of {cluster_size}", spec.bdev);
        return Err(LvolError::TooSmall { what: what(), why });
    }
    match spec.md_pages_per_hundred_clusters {
        None | Some(0) => Ok(MdPages::OnePerCluster),
        Some(ratio) if u64::from(ratio).saturating_mul(clusters) < 100 => {
            let why = format!(
                "{ratio} metadata pages for every 100 clusters are none for {clusters}; ask for more"
            );
            Err(LvolError::TooSmall { what: what(), why })
        }
        Some(ratio) => Ok(MdPages::PerHundredClusters(ratio)),
    }
}

/// Writes the blob with the store's identity, in SPDK's order of writes.
async fn write_super_blob(
    blobstore: &Blobstore,
    name: &Name,
    uuid: Uuid,
) -> Result<BlobId, spindle_blob::BlobError> {
    let id = blobstore.create_blob(BlobOptions::default()).await?;
    let blob = blobstore.open_blob(id).await?;
    blobstore.set_super_blob(Some(id)).await?;
    blob.set_xattr(UUID, uuid_bytes(uuid)).await?;
    blob.set_xattr(NAME, name.terminated()).await?;
    blob.close().await?;
    Ok(id)
}

impl StoreInner {
    /// Creates a volume.
    pub(crate) async fn create(self: &Arc<StoreInner>, spec: LvolSpec) -> Result<Lvol, LvolError> {
        let name = Name::new("volume name", &spec.name)?;
        let clusters = spec.bytes.div_ceil(self.cluster_size());
        self.make(name, false, async |store, xattrs| {
            let what = store.alias(&Name::new("volume name", &spec.name)?);
            check_clusters(&what, clusters, spec.thin)?;
            let (thin, clear_method) = (spec.thin, spec.clear_method);
            let options = BlobOptions { clusters, thin, clear_method, xattrs, ..BlobOptions::default() };
            store.blobstore.create_blob(options).await.map_err(LvolError::blob(what))
        })
        .await
    }

    /// Takes a snapshot of a volume.
    pub(crate) async fn snapshot(
        self: &Arc<StoreInner>,
        lvol: &Arc<LvolInner>,
        name: &str,
    ) -> Result<Lvol, LvolError> {
        // The checks are in SPDK's order: the name, what the volume is, another operation.
        let begun = lvol.begin();
        lvol.check_bdev()?;
        let name = Name::new("volume name", name)?;
        self.make(name.clone(), true, async |store, xattrs| {
            if lvol.blob_info(store).await?.read_only {
                return Err(LvolError::SnapshotOfReadOnly { lvol: lvol.shown() });
            }
            begun.as_ref().map_err(LvolError::clone)?;
            // The new bdev would be refused, too, but the snapshot would have to be undone then.
            store.check_alias(&store.alias(&name))?;
            let taken = store.blobstore.snapshot(lvol.id, xattrs).await;
            taken.map_err(LvolError::blob(lvol.shown()))
        })
        .await
    }

    /// Creates a clone of a volume.
    pub(crate) async fn clone_of(
        self: &Arc<StoreInner>,
        lvol: &Arc<LvolInner>,
        name: &str,
    ) -> Result<Lvol, LvolError> {
        let begun = lvol.begin();
        lvol.check_bdev()?;
        let name = Name::new("volume name", name)?;
        let made = self
            .make(name, false, async |store, xattrs| {
                if !lvol.blob_info(store).await?.read_only {
                    return Err(LvolError::NotReadOnly { lvol: lvol.shown() });
                }
                begun.as_ref().map_err(LvolError::clone)?;
                let made = store.blobstore.clone_blob(lvol.id, xattrs).await;
                made.map_err(LvolError::blob(lvol.shown()))
            })
            .await?;
        lvol.snapshot.store(true, std::sync::atomic::Ordering::Release);
        Ok(made)
    }

    /// Makes a volume and a bdev of a blob, with a name and a UUID; all or nothing.
    pub(crate) async fn make(
        self: &Arc<StoreInner>,
        name: Name,
        snapshot: bool,
        blob: impl AsyncFnOnce(&Arc<StoreInner>, Vec<(Vec<u8>, Vec<u8>)>) -> Result<BlobId, LvolError>,
    ) -> Result<Lvol, LvolError> {
        let _named = self.names_bdevs().await;
        if !self.volumes.take(&name) {
            return Err(LvolError::LvolExists { store: self.name().to_string(), name: name.to_string() });
        }
        let uuid = random_uuid();
        let made = match blob(self, identity::xattrs(&name, uuid)).await {
            Ok(id) => self.open_new(id, &name, uuid, snapshot).await,
            Err(error) => Err(error),
        };
        if made.is_err() {
            self.volumes.free(&name);
        }
        made.map(Lvol)
    }

    /// Opens a newly created blob; one that cannot become a volume is deleted again.
    async fn open_new(
        self: &Arc<StoreInner>,
        id: BlobId,
        name: &Name,
        uuid: Uuid,
        snapshot: bool,
    ) -> Result<Arc<LvolInner>, LvolError> {
        let lvol = self.open_as(id, name, Some(uuid), snapshot).await?;
        // Other operations can find it from here on; it is marked busy until it is a bdev.
        let _busy = lvol.begin()?;
        if let Err(error) = self.offer(&lvol).await {
            let _ = lvol.close(self).await;
            self.volumes.remove(&lvol);
            // If it cannot be deleted either, it stays in the store as a blob, and the next load finds it.
            let _ = self.blobstore.delete_blob(id).await;
            return Err(error);
        }
        Ok(lvol)
    }
}

/// Refuses sizes that no map in memory can hold.
pub(crate) fn check_clusters(what: &str, clusters: u64, thin: bool) -> Result<(), LvolError> {
    if clusters <= MOST_CLUSTERS {
        return Ok(());
    }
    let why = format!("{clusters} clusters are more than the {MOST_CLUSTERS} that a volume may have");
    let what = what.to_owned();
    // SPDK has no memory for such a map (thin), and no space for so many clusters (thick).
    Err(if thin { LvolError::TooMuch { what, why } } else { LvolError::NoSpace { what, why } })
}
