//! Writes as data: what the owner of a device must do to it, in which order.

/// One change of the image. A list of them is carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Write these bytes.
    Write {
        /// Byte of the image where they begin.
        offset: u64,
        /// The bytes; a multiple of the device's block size.
        bytes: Vec<u8>,
    },
    /// Make a range read as zeroes.
    Zero {
        /// Byte of the image where it begins.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Tell the device that a range is no longer needed (contents undefined afterwards).
    Unmap {
        /// Byte of the image where it begins.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Everything before this is durable before anything after it begins.
    Flush,
}

impl Change {
    /// Applies the change to an image in memory (an unmap zeroes); bytes beyond its end are ignored.
    pub fn apply(&self, image: &mut [u8]) {
        let size = image.len();
        let clip = |offset: u64, len: u64| {
            let end = usize::try_from(offset.saturating_add(len)).unwrap_or(usize::MAX).min(size);
            usize::try_from(offset).unwrap_or(usize::MAX).min(end)..end
        };
        match self {
            Change::Write { offset, bytes } => {
                let range = clip(*offset, bytes.len() as u64);
                let len = range.len();
                image[range].copy_from_slice(&bytes[..len]);
            }
            Change::Zero { offset, len } | Change::Unmap { offset, len } => {
                image[clip(*offset, *len)].fill(0)
            }
            Change::Flush => {}
        }
    }
}
