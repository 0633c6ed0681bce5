//! An export: a device under a name, for clients.

use std::any::Any;
use std::sync::Arc;

use spindle_bdev::{Bdev, Desc};
use spindle_block::Device;

use crate::codec::{BlockSizes, Contexts, MAX_PAYLOAD, MAX_STRING, Offer, TransmissionFlags, shortened};
use crate::{ExportError, Extents};

/// How a device is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Shown in lists of exports; may be empty.
    pub description: String,
    /// Clients may only read, even if the device is writable.
    pub read_only: bool,
}

/// A device under a name.
#[derive(Clone)]
pub struct Export {
    /// The name that clients use: UTF-8 without NUL, at most 4096 bytes.
    pub name: String,
    /// How it is exported.
    pub options: ExportOptions,
    /// The served device.
    pub device: Arc<dyn Device>,
    /// Extents for block status; without them everything is reported as data.
    pub extents: Option<Arc<dyn Extents>>,
    /// Dropped when the export is removed and its last connection has ended.
    pub held: Option<Arc<dyn Any + Send + Sync>>,
}

impl Export {
    /// A device under a name, writable if the device is.
    pub fn new(name: impl Into<String>, device: Arc<dyn Device>) -> Export {
        let (name, options) = (name.into(), ExportOptions::default());
        Export { name, options, device, extents: None, held: None }
    }

    /// The bdev of a descriptor, writable if the descriptor is; closed when the export is gone. The export is
    /// not removed with the bdev: [`Server::export_bdev`](crate::Server::export_bdev) does that too.
    pub fn of_desc(name: impl Into<String>, desc: Desc) -> Export {
        let extents = desc.bdev().disk().clone().extents();
        let device = desc.device();
        Export { extents, held: Some(Arc::new(desc)), ..Export::new(name, device) }
    }

    /// The bdev, if it is one.
    pub(crate) fn bdev(&self) -> Option<Bdev> {
        self.held.as_ref()?.downcast_ref::<Desc>().map(Desc::bdev)
    }

    /// Checks that the protocol can carry its texts.
    pub(crate) fn check(&self) -> Result<(), ExportError> {
        for (what, text) in [("name", &self.name), ("description", &self.options.description)] {
            let reason = if text.len() > MAX_STRING {
                "is longer than 4096 bytes"
            } else if text.contains('\0') {
                "contains a NUL"
            } else {
                continue;
            };
            return Err(ExportError::Text { name: shortened(&self.name), what, reason });
        }
        Ok(())
    }

    /// True if clients may only read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options.read_only || !self.device.geometry().writable()
    }

    /// What is announced about it.
    pub(crate) fn offer(&self) -> Offer {
        let geometry = self.device.geometry();
        let minimum = geometry.block_size();
        let flags =
            if self.is_read_only() { TransmissionFlags::READING } else { TransmissionFlags::WRITABLE };
        Offer {
            name: self.name.clone(),
            description: self.options.description.clone(),
            size: geometry.bytes(),
            flags,
            block_sizes: BlockSizes { minimum, preferred: minimum.max(4096), maximum: MAX_PAYLOAD },
            contexts: Contexts::ALL,
        }
    }
}
