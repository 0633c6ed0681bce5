//! The layers below a block device: the disk of a partition, the file behind a loop device, the devices of a
//! device-mapper or RAID device, and their own layers in turn. Read from sysfs.
//!
//! Not shown by sysfs, and so not found here: the file of a loop device that was made in another mount
//! namespace or whose file was deleted since, the part of a device that a device-mapper target uses, and the
//! storage of a network block device or of a virtual machine's disk.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

/// Bound on the number of layers. Real stacks have a handful; a circle cannot be made.
const MOST: usize = 64;

/// Bytes of a sector, in which sysfs counts.
const SECTOR: u64 = 512;

/// A device's number: major and minor.
pub(super) type Number = (u32, u32);

/// A file or device node on which a block device lies, and the part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) part: Part,
    /// Set if other devices may lie on the same part and be in use at the same time, like two volumes of one
    /// LVM group.
    pub(super) shared: bool,
    pub(super) kind: Kind,
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A node of this device.
    Device(Number),
    /// The file behind a loop device.
    File,
}

/// Bytes of a layer. A length of 0 means to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) length: u64,
}

impl Part {
    pub(super) const WHOLE: Part = Part { start: 0, length: 0 };

    /// Whether a byte is in both.
    pub(super) fn meets(self, other: Part) -> bool {
        let end =
            |part: Part| if part.length == 0 { u64::MAX } else { part.start.saturating_add(part.length) };
        self.start < end(other) && other.start < end(self)
    }

    /// The place of this part of a device that is itself a part of a lower one.
    fn within(self, outer: Part) -> Part {
        let start = outer.start.saturating_add(self.start);
        let rest = match outer.length {
            0 => 0,
            length => length.saturating_sub(self.start),
        };
        let length = match (self.length, rest) {
            (0, rest) => rest,
            (length, 0) => length,
            (length, rest) => length.min(rest),
        };
        Part { start, length }
    }
}

/// All layers below a block device, and its own node, according to the sysfs below `root`.
pub(super) fn beneath(root: &Path, device: Number) -> Vec<Layer> {
    let mut found = Vec::new();
    let mut next = vec![(device, Part::WHOLE, false)];
    while let Some((device, part, shared)) = next.pop()
        && found.len() < MOST
    {
        let folder = folder(root, device);
        if let Some(path) = node(root, &folder) {
            found.push(Layer { path, part, shared, kind: Kind::Device(device) });
        }
        if let Some((disk, place)) = disk_of(&folder) {
            next.push((disk, part.within(place), shared));
        }
        if let Some((path, place)) = file_behind(&folder) {
            let part = part.within(place);
            match device_at(&path) {
                Some(device) => next.push((device, part, shared)),
                None => found.push(Layer { path, part, shared, kind: Kind::File }),
            }
        }
        next.extend(made_of(&folder).map(|device| (device, Part::WHOLE, true)));
    }
    found
}

/// The numbers of all block devices.
pub(super) fn all(root: &Path) -> impl Iterator<Item = Number> {
    let devices = fs::read_dir(root.join("sys/dev/block")).into_iter().flatten().flatten();
    devices.filter_map(|device| parse(device.file_name().to_str()?))
}

/// A device made from this one.
pub(crate) fn above(root: &Path, device: Number) -> Option<PathBuf> {
    let holder = fs::read_dir(folder(root, device).join("holders")).ok()?.flatten().next()?;
    Some(root.join("dev").join(holder.file_name()))
}

fn folder(root: &Path, (major, minor): Number) -> PathBuf {
    root.join(format!("sys/dev/block/{major}:{minor}"))
}

/// The node that the kernel makes for a device.
fn node(root: &Path, folder: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(folder.join("uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(root.join("dev").join(name))
}

/// The disk that a partition is on, and where.
fn disk_of(folder: &Path) -> Option<(Number, Part)> {
    folder.join("partition").exists().then_some(())?;
    let disk = fs::canonicalize(folder).ok()?.parent()?.join("dev");
    let sectors = |name| Some(number(&folder.join(name))?.saturating_mul(SECTOR));
    let part = Part { start: sectors("start")?, length: sectors("size")? };
    Some((parse(&fs::read_to_string(disk).ok()?)?, part))
}

/// The file behind a loop device, and the part of it that the device uses.
fn file_behind(folder: &Path) -> Option<(PathBuf, Part)> {
    use std::os::unix::ffi::OsStringExt;
    let mut path = fs::read(folder.join("loop/backing_file")).ok()?;
    path.pop_if(|last| *last == b'\n');
    let bytes = |name: &str| number(&folder.join("loop").join(name)).unwrap_or(0);
    let part = Part { start: bytes("offset"), length: bytes("sizelimit") };
    Some((PathBuf::from(std::ffi::OsString::from_vec(path)), part))
}

/// The number of the block device at a path, if it is one: a loop device may lie on that too.
fn device_at(path: &Path) -> Option<Number> {
    let stat = rustix::fs::stat(path).ok()?;
    number_of(&stat)
}

/// The number of a block device; none for anything else.
pub(crate) fn number_of(stat: &Stat) -> Option<Number> {
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    is_device.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

/// The devices that form a device-mapper or RAID device.
fn made_of(folder: &Path) -> impl Iterator<Item = Number> {
    let parts = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
    parts.filter_map(|part| parse(&fs::read_to_string(part.path().join("dev")).ok()?))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn parse(number: &str) -> Option<Number> {
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root folder with these files and symbolic links.
    fn world(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        files.iter().for_each(|(path, text)| fs::write(place(path), text).unwrap());
        links.iter().for_each(|(path, target)| symlink(root.path().join(target), place(path)).unwrap());
        root
    }

    fn found(root: &tempfile::TempDir, device: Number) -> Vec<(PathBuf, u64, u64, bool)> {
        let layers = beneath(root.path(), device).into_iter();
        let relative = |path: PathBuf| path.strip_prefix(root.path()).map(Path::to_owned).unwrap_or(path);
        layers.map(|l| (relative(l.path), l.part.start, l.part.length, l.shared)).collect()
    }

    #[test]
    fn a_partition_of_a_loop_device_lies_on_a_part_of_the_file() {
        let root = world(
            &[
                ("sys/devices/loop0/dev", "7:0\n"),
                ("sys/devices/loop0/uevent", "MAJOR=7\nDEVNAME=loop0\n"),
                ("sys/devices/loop0/loop/backing_file", "/srv/a b.img\n"),
                ("sys/devices/loop0/loop/offset", "1048576\n"),
                ("sys/devices/loop0/loop/sizelimit", "0\n"),
                ("sys/devices/loop0/loop0p2/dev", "259:1\n"),
                ("sys/devices/loop0/loop0p2/uevent", "DEVNAME=loop0p2\n"),
                ("sys/devices/loop0/loop0p2/partition", "2\n"),
                ("sys/devices/loop0/loop0p2/start", "8\n"),
                ("sys/devices/loop0/loop0p2/size", "16\n"),
            ],
            &[
                ("sys/dev/block/7:0", "sys/devices/loop0"),
                ("sys/dev/block/259:1", "sys/devices/loop0/loop0p2"),
            ],
        );
        assert_eq!(
            found(&root, (259, 1)),
            [
                ("dev/loop0p2".into(), 0, 0, false),
                ("dev/loop0".into(), 4096, 8192, false),
                ("/srv/a b.img".into(), 1048576 + 4096, 8192, false),
            ]
        );
        assert_eq!(
            found(&root, (7, 0)),
            [("dev/loop0".into(), 0, 0, false), ("/srv/a b.img".into(), 1048576, 0, false)]
        );
        assert_eq!(found(&root, (8, 0)), []);
    }

    #[test]
    fn what_a_volume_is_made_of_others_may_be_made_of_too() {
        let root = world(
            &[
                ("sys/dev/block/253:1/uevent", "DEVNAME=dm-1\n"),
                ("sys/dev/block/253:1/slaves/loop3/dev", "7:3\n"),
                ("sys/dev/block/7:3/uevent", "DEVNAME=loop3\n"),
                ("sys/dev/block/7:3/holders/dm-1/dev", "253:1\n"),
                ("sys/dev/block/7:3/loop/backing_file", "/srv/pv.img\n"),
            ],
            &[],
        );
        assert_eq!(
            found(&root, (253, 1)),
            [
                ("dev/dm-1".into(), 0, 0, false),
                ("dev/loop3".into(), 0, 0, true),
                ("/srv/pv.img".into(), 0, 0, true),
            ]
        );
        assert_eq!(above(root.path(), (7, 3)), Some(root.path().join("dev/dm-1")));
        assert_eq!(above(root.path(), (253, 1)), None);
    }

    #[test]
    fn a_part_of_a_part_stays_within_it() {
        let part = |start, length| Part { start, length };
        assert_eq!(part(10, 5).within(part(100, 0)), part(110, 5));
        assert_eq!(part(10, 0).within(part(100, 20)), part(110, 10));
        assert_eq!(part(10, 50).within(part(100, 20)), part(110, 10));
        assert_eq!(Part::WHOLE.within(part(100, 20)), part(100, 20));
    }
}
