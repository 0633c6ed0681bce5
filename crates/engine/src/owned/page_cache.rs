//! The pages that the kernel keeps of block devices. Each device has its own: those of a loop device stay as they were
//! when its file, or another loop device over that, is written to.
//!
//! `BLKFLSBUF` would need a privilege, and older kernels give up the contents of a RAM disk on it. Not promised: pages
//! that a program has mapped into memory stay, as do those of devices below whose nodes cannot be opened.

use std::fs;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Advice, Stat};

use super::layers::{self, Kind, Part};
use super::lock::open_layer;
use super::overlap;

/// Where sysfs and the device nodes are.
const ROOT: &str = "/";

/// Pages are dropped whole: the parts that are dropped begin and end at multiples of this, the largest page there is.
const PAGE: u64 = 64 << 10;

/// Writes out and drops the pages that the kernel keeps of a block device and of the devices it lies on, so that
/// what is read next is what lies there now. Does nothing for a regular file, which has one set of pages.
pub fn drop_pages(file: &fs::File) {
    if let Ok(stat) = rustix::fs::fstat(file) {
        drop_pages_of(file.as_fd(), &stat);
    }
}

/// The same for a descriptor.
pub(crate) fn drop_pages_of(fd: BorrowedFd<'_>, stat: &Stat) {
    let Some(device) = layers::number_of(stat) else { return };
    let beneath = layers::beneath(Path::new(ROOT), device);
    let others = beneath.iter().filter(|layer| !matches!(layer.kind, Kind::File));
    let others = others.filter(|layer| layer.kind != Kind::Device(device));
    let opened: Vec<_> = others.filter_map(|layer| Some((open_layer(layer, false)?.0, layer.part))).collect();
    let from_above = || {
        let below = opened.iter().map(|(fd, part)| (fd.as_fd(), *part));
        std::iter::once((fd, Part::WHOLE)).chain(below)
    };
    // What is written out of a device arrives in the pages of the one below.
    from_above().for_each(|(fd, _)| write_out(fd));
    // What a device reads anew comes from the pages of the one below.
    from_above().collect::<Vec<_>>().into_iter().rev().for_each(|(fd, part)| forget(fd, part));
}

/// Writes out the pages of the block devices that lie on a file or device about to be written: those that a killed
/// writer left behind would go over newer bytes later.
pub(crate) fn write_out_above(stat: &Stat) {
    for layer in overlap::devices_with_bytes_of(stat) {
        if let Some((fd, _)) = open_layer(&layer, false) {
            write_out(fd.as_fd());
        }
    }
}

/// Errors are left to the reads and writes that follow.
fn write_out(fd: BorrowedFd<'_>) {
    let _ = rustix::io::retry_on_intr(|| rustix::fs::fsync(fd));
}

fn forget(fd: BorrowedFd<'_>, part: Part) {
    let start = part.start - part.start % PAGE;
    let end = part.start.checked_add(part.length).and_then(|end| end.checked_next_multiple_of(PAGE));
    let length = if part.length == 0 { None } else { end.and_then(|end| NonZeroU64::new(end - start)) };
    let _ = rustix::fs::fadvise(fd, start, length, Advice::DontNeed);
}
