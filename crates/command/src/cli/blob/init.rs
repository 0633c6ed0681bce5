//! `spindle blob init`: a new store on an image file or block device.

use super::foreground::{self, Stop};
use super::image::ImageFile;
use super::info::print_report;
use super::limit::refuse_limited;
use super::mending::write_zeroes;
use super::naming::check_name;
use super::{in_use, lvol, signature};
use crate::cli::failure::{Failure, shown};
use crate::cli::output::note;
use crate::cli::size;
use crate::cli::text;
use clap::ValueEnum;
use rustix::fs::FallocateFlags;
use spindle_blob::{BlobOptions, Blobstore, BsType, ClearData, InitOptions, LayoutOptions, MdPages};
use spindle_block::{Channel, Device, File, FileOptions, IoErrorKind};
use spindle_format::init::{DeviceShape, InitError, InitPlan, plan, too_small};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blocks of a store on a regular file: the smallest that every program can read it by.
const FILE_BLOCK: u32 = 4096;

/// Bytes that are zeroed between two looks for a stop.
const CLEARED: u64 = 16 << 20;

/// Above this many bytes of metadata, a note is printed.
const MUCH_METADATA: u64 = 256 << 20;

/// Arguments of `init`.
#[derive(clap::Args, Clone)]
pub(crate) struct Init {
    /// Image file or block device for the store; its contents are lost
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Create IMAGE, which must not exist, as a sparse file of this size
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// Bytes of a cluster, the unit of allocation
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "4M")]
    cluster_size: u64,
    /// Metadata pages of the store; each blob takes at least one. By default one for every cluster
    #[arg(long, value_name = "N", conflicts_with = "md_ratio")]
    md_pages: Option<u32>,
    /// Metadata pages for every hundred clusters
    #[arg(long, value_name = "N")]
    md_ratio: Option<u32>,
    /// Bytes of a metadata page, a multiple of 4096; at least the physical block size of a device. SPDK works with
    /// a store only where it is that, or 4096 on a device of smaller blocks
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    md_page_size: Option<u64>,
    /// Bytes of the smallest I/O; by default the logical block of a device, 4096 on a file
    #[arg(long, value_name = "SIZE", value_parser = size::block)]
    block_size: Option<u64>,
    /// Make it an lvolstore of this name, which SPDK's logical volume module opens
    #[arg(long, value_name = "NAME", conflicts_with = "bstype")]
    lvolstore: Option<OsString>,
    /// The type of the store: up to 16 bytes that programs check before they open it
    #[arg(long, value_name = "TYPE")]
    bstype: Option<OsString>,
    /// How the data area is cleared
    #[arg(long, value_enum, default_value = "unmap")]
    clear: Clear,
    /// Overwrite another store, a file system, or other known contents, unless they are in use
    #[arg(long)]
    force: bool,
    /// Print the store as JSON, as in info
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Clear {
    /// Unmapped: released to the device or file system
    Unmap,
    /// Zeroed
    Zeroes,
    /// Not cleared
    None,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        let layout = self.layout()?;
        let lvolstore = self.lvolstore.as_ref().map(|name| lvol::name(name.as_bytes())).transpose();
        // No image makes it right.
        let lvolstore = lvolstore.map_err(|error| Failure::Usage(error.to_string()))?;
        lvolstore.iter().try_for_each(|name| check_name(name)).map_err(Failure::Usage)?;
        if self.size == Some(0) {
            self.refuse_nothing(&layout)?;
        }
        let made = self.size.map(|size| self.make_file(size, &layout)).transpose()?;
        let init = self.clone();
        foreground::run(async move |stop| init.make_store(layout, lvolstore, &stop).await)?;
        made.into_iter().for_each(NewFile::keep);
        print_report("made a store on", &self.image, self.json)
    }

    /// An error with the size that a store of this layout needs.
    fn refuse_nothing(&self, layout: &LayoutOptions) -> Result<(), Failure> {
        let shape = DeviceShape { size: 0, block_size: FILE_BLOCK, physical_block_size: FILE_BLOCK };
        match self.plan(&shape, layout) {
            Err(Failure::Refused(why)) => Err(Failure::Usage(format!("--size is 0: {why}"))),
            planned => planned.map(drop),
        }
    }

    /// Creates a file large enough for a store.
    fn make_file(&self, size: u64, layout: &LayoutOptions) -> Result<NewFile, Failure> {
        let made = NewFile::make(&self.image, size)?;
        let block_size = self.block_size.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(FILE_BLOCK);
        if size < u64::from(block_size) {
            // Smaller than any device: the error reports the required size.
            self.plan(&DeviceShape { size, block_size, physical_block_size: block_size }, layout)?;
        }
        Ok(made)
    }

    /// The layout; also an error if it has no room for data, which SPDK allows.
    fn plan(&self, shape: &DeviceShape, layout: &LayoutOptions) -> Result<InitPlan, Failure> {
        let planned = match plan(shape, layout) {
            Ok(plan) if plan.geometry.data_clusters() == 0 => Err(too_small(shape, layout)),
            planned => planned,
        };
        planned.map_err(|error| {
            let why = format!("{}: {}", shown(&self.image), by_options(&error.to_string()));
            match error {
                InitError::Option { .. } => Failure::Usage(why),
                _ => Failure::Refused(why),
            }
        })
    }

    fn layout(&self) -> Result<LayoutOptions, Failure> {
        let small = |option: &str, bytes: u64| {
            u32::try_from(bytes).map_err(|_| {
                Failure::Usage(format!("{option} {} is too much: at most 2 GiB", text::size(bytes)))
            })
        };
        Ok(LayoutOptions {
            cluster_size: small("--cluster-size", self.cluster_size)?,
            md_pages: match (self.md_pages, self.md_ratio) {
                (Some(pages), _) => MdPages::Count(pages),
                (None, Some(ratio)) => MdPages::PerHundredClusters(ratio),
                (None, None) => MdPages::OnePerCluster,
            },
            clear: match self.clear {
                Clear::Unmap => ClearData::Unmap,
                Clear::Zeroes => ClearData::WriteZeroes,
                Clear::None => ClearData::None,
            },
            bs_type: self.bs_type()?,
            md_page_size: small("--md-page-size", self.md_page_size.unwrap_or(0))?,
        })
    }

    fn bs_type(&self) -> Result<BsType, Failure> {
        if self.lvolstore.is_some() {
            return Ok(BsType::LVOLSTORE);
        }
        let typed = self.bstype.as_ref().map_or(&b""[..], |bstype| bstype.as_bytes());
        let mut bytes = [0; 16];
        match bytes.get_mut(..typed.len()) {
            Some(start) => start.copy_from_slice(typed),
            None => return Err(Failure::Usage("--bstype has at most 16 bytes: give a shorter one".into())),
        }
        if BsType(bytes) == BsType::LVOLSTORE {
            let why = "an lvolstore has a name and a UUID, without which SPDK opens none: --lvolstore NAME makes one";
            return Err(Failure::Usage(why.into()));
        }
        Ok(BsType(bytes))
    }

    /// Checks what is there, then creates the store and unloads it.
    async fn make_store(
        self,
        layout: LayoutOptions,
        lvolstore: Option<Vec<u8>>,
        stop: &Stop,
    ) -> Result<(), Failure> {
        if matches!(self.image.try_exists(), Ok(false)) {
            let why = format!("{} is not there: --size makes a file of that size", shown(&self.image));
            return Err(Failure::Refused(why));
        }
        let image = ImageFile::open(&self.image)?;
        in_use::refuse_used(&image)?;
        let device = self.open(&image).await?;
        if image.is_file() {
            refuse_limited(&self.image, image.size())?;
        }
        if !self.force {
            signature::refuse_known(&image)?;
        }
        self.allocate_metadata(&device, &layout)?;
        let layout = match layout.clear {
            ClearData::WriteZeroes => {
                let channel = Channel::open(device.clone())?;
                clear(&channel, &shown(&self.image), stop).await?;
                LayoutOptions { clear: ClearData::None, ..layout }
            }
            _ => layout,
        };
        let options = InitOptions { layout, force: true, ..InitOptions::default() };
        let store = Blobstore::init(device, options).await?;
        let done = match lvolstore {
            Some(name) => make_lvolstore(&store, name).await,
            None => Ok(()),
        };
        let unloaded = store.unload().await;
        done?;
        Ok(unloaded?)
    }

    async fn open(&self, image: &ImageFile) -> Result<Arc<File>, Failure> {
        let options = FileOptions::new(&self.image).writable(true).name(shown(&self.image));
        let options = match self.block_size {
            Some(bytes) => options.block_size(u32::try_from(bytes).unwrap_or(u32::MAX)),
            None if image.is_file() => options.block_size(FILE_BLOCK),
            None => options,
        };
        Ok(File::open(options).await?)
    }

    /// Allocates blocks of the file system for all metadata: a store that cannot write its metadata because
    /// the disk below is full cannot even delete.
    fn allocate_metadata(&self, device: &File, layout: &LayoutOptions) -> Result<(), Failure> {
        let (shape, info) = (device.geometry(), device.info());
        let block_size = shape.block_size();
        let shape = DeviceShape { size: shape.bytes(), block_size, physical_block_size: block_size };
        let plan = self.plan(&shape, layout)?;
        say_what_metadata_takes(&plan);
        if info.block_device {
            return Ok(());
        }
        let end = metadata_bytes(&plan);
        let file = std::fs::File::options().write(true).open(&self.image);
        let file = file.map_err(|error| Failure::file(&self.image, "opened for writing", error))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, end) {
            // If the file system has no such call, zeroes are written, which allocates blocks as well.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => {
                let action = format!("given {} for metadata", text::size(end));
                Err(Failure::file(&self.image, action, error.into()))
            }
        }
    }
}

/// Overwrites everything with zeroes, from the start on: if that is stopped, nothing is left that looks like a store.
async fn clear(channel: &Channel, name: &str, stop: &Stop) -> Result<(), Failure> {
    let end = channel.geometry().bytes();
    let mut at = 0;
    while at < end {
        if let Err(stopped) = stop.check() {
            if at > 0 {
                note(&format!("{name} holds no store, and its first {} are zeroes", text::size(at)));
            }
            return Err(stopped);
        }
        let len = CLEARED.min(end - at);
        match channel.write_zeroes(at, len).await {
            Err(error) if error.kind == IoErrorKind::Unsupported => write_zeroes(channel, at, len).await?,
            written => written?,
        }
        at += len;
    }
    Ok(())
}

fn metadata_bytes(plan: &InitPlan) -> u64 {
    plan.super_block.metadata.end() * u64::from(plan.geometry.md_page_size())
}

/// Prints a note if the metadata takes long to write and much space.
fn say_what_metadata_takes(plan: &InitPlan) {
    let bytes = metadata_bytes(plan);
    if bytes >= MUCH_METADATA {
        let pages = text::count(plan.geometry.md_pages(), "page");
        note(&format!(
            "metadata takes {} ({pages}): fewer with --md-pages, --md-ratio or a larger --cluster-size",
            text::size(bytes)
        ));
    }
}

/// An error of the layout, with the names of command line options instead of fields.
fn by_options(error: &str) -> String {
    let options = [
        ("num_md_pages_per_cluster_ratio", "--md-ratio"),
        ("physical_block_size", "the physical block size"),
        ("num_md_pages", "--md-pages"),
        ("md_page_size", "--md-page-size"),
        ("cluster_size", "--cluster-size"),
        ("block_size", "--block-size"),
    ];
    options.iter().fold(error.to_owned(), |text, (field, option)| text.replace(field, option))
}

/// Makes a Blobstore an lvolstore: adds a super blob with its name and identity.
async fn make_lvolstore(store: &Blobstore, name: Vec<u8>) -> Result<(), Failure> {
    let options = BlobOptions::thick(0).xattr("uuid", lvol::new_uuid()?).xattr("name", name);
    let id = store.create_blob(options).await?;
    Ok(store.set_super_blob(Some(id)).await?)
}

/// A file made for a store, removed again unless the store is created.
struct NewFile(Option<PathBuf>);

impl NewFile {
    fn make(path: &Path, size: u64) -> Result<NewFile, Failure> {
        let file = std::fs::File::create_new(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::Refused(format!(
                "{} is there already: leave --size out to use it as it is, or choose another name",
                shown(path)
            )),
            _ => Failure::file(path, "created", error),
        })?;
        let new = NewFile(Some(path.to_owned()));
        file.set_len(size).map_err(|error| Failure::file(path, "made so large", error))?;
        Ok(new)
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // If this fails, an empty file remains.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_block::Malloc;
    use spindle_mem::IoBuf;

    #[test]
    fn a_device_is_cleared_wholly_unless_a_stop_is_asked_for() {
        let read = foreground::run_simulated(async || {
            const BYTES: u64 = 2 * CLEARED + 4096;
            let channel = Channel::open(Malloc::of_bytes("memory", BYTES).unwrap()).unwrap();
            let last = BYTES - 4096;
            channel.write(last, IoBuf::copy_from(&[7; 4096])).await.0.unwrap();
            let stopped = clear(&channel, "memory", &Stop::asked(130)).await;
            assert!(matches!(stopped, Err(Failure::Interrupted { code: 130 })));
            clear(&channel, "memory", &Stop::default()).await.unwrap();
            channel.read(last, IoBuf::zeroed(4096)).await.1.to_vec()
        });
        assert_eq!(read, [0; 4096]);
    }
}
