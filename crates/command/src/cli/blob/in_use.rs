//! Checks whether a device or file is in use, so that a new store would destroy it under its users.
//!
//! The kernel refuses to open a block device for writing that is mounted or claimed. This module names the
//! user, and finds mounted partitions of a disk, and regular files behind loop devices or in use as swap,
//! which the kernel does not protect. Not promised: programs that merely have the file open.

use super::image::{Identity, ImageFile};
use crate::cli::failure::Failure;
use crate::cli::text::printable;
use spindle_engine::share_bytes;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An error that names the user of the image, if there is one.
pub(super) fn refuse_used(image: &ImageFile) -> Result<(), Failure> {
    let root = Path::new("/");
    match user(root, image.identity()).or_else(|| user_of_twin(root, image)) {
        Some(by) => Err(Failure::InUse { path: image.path().to_owned(), by }),
        None => Ok(()),
    }
}

/// The user of the storage, according to the `proc` and `sys` below this folder.
fn user(root: &Path, storage: Identity) -> Option<String> {
    let swap =
        || swaps(root).into_iter().any(|used| used == storage).then(|| "it is active swap space".into());
    match storage {
        Identity::File(..) => loop_device(root, storage).or_else(swap),
        Identity::BlockDevice(number) => {
            let own = (rustix::fs::major(number), rustix::fs::minor(number));
            let made_of_it = || held(root, own).or_else(|| loop_device(root, storage));
            mounted(root, own).or_else(made_of_it).or_else(swap)
        }
    }
}

/// The user of another loop device that has bytes of this device, as two over one file have.
fn user_of_twin(root: &Path, image: &ImageFile) -> Option<String> {
    if image.is_file() {
        return None;
    }
    let names = fs::read_dir(root.join("sys/block"))
        .ok()?
        .flatten()
        .filter(|device| device.path().join("loop/backing_file").exists());
    names.map(|device| root.join("dev").join(device.file_name())).find_map(|node| {
        let twin = fs::File::open(&node).ok()?;
        let storage = Identity::of(&twin.metadata().ok()?);
        let is_twin = storage != image.identity() && share_bytes(image.file(), &twin);
        let by = if is_twin { user(root, storage)? } else { return None };
        Some(format!("{} shows the same bytes, and {by}", printable(node.as_os_str().as_bytes())))
    })
}

/// A loop device on this file.
fn loop_device(root: &Path, storage: Identity) -> Option<String> {
    let devices = fs::read_dir(root.join("sys/block")).ok()?.flatten();
    devices.map(|entry| entry.path()).find_map(|device| {
        let backing = fs::read_to_string(device.join("loop/backing_file")).ok()?;
        let same = identity(Path::new(backing.strip_suffix('\n')?)) == Some(storage);
        let name = device.file_name().filter(|_| same)?;
        Some(format!("/dev/{} shows it", printable(name.as_bytes())))
    })
}

/// Files and devices used as swap.
fn swaps(root: &Path) -> Vec<Identity> {
    let text = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let paths = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths.filter_map(|path| identity(Path::new(&unescaped(path)))).collect()
}

/// Where the device, or a partition of it, is mounted.
fn mounted(root: &Path, own: (u32, u32)) -> Option<String> {
    let numbers = with_partitions(root, own);
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    mounts.lines().find_map(|line| {
        // Mount id, parent, major:minor, root, mount point.
        let mut fields = line.split(' ').skip(2);
        let (number, point) = (fields.next()?, fields.nth(1)?);
        let what = if number == numbers[0] { "it" } else { "a partition of it" };
        let is_ours = numbers.iter().any(|own| own == number);
        is_ours.then(|| format!("{what} is mounted at {}", printable(unescaped(point).as_bytes())))
    })
}

/// Another block device made from this one or from a partition of it.
fn held(root: &Path, own: (u32, u32)) -> Option<String> {
    with_partitions(root, own).iter().find_map(|number| {
        let holders = fs::read_dir(root.join("sys/dev/block").join(number).join("holders")).ok()?;
        let holder = holders.flatten().next()?.file_name();
        Some(format!("/dev/{} is made of it", printable(holder.as_bytes())))
    })
}

/// The numbers of the device and of its partitions, as `major:minor`.
fn with_partitions(root: &Path, (major, minor): (u32, u32)) -> Vec<String> {
    let own = format!("{major}:{minor}");
    let folder = root.join("sys/dev/block").join(&own);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let partitions = entries.filter(|entry| entry.join("partition").exists());
    let numbers = partitions.filter_map(|entry| fs::read_to_string(entry.join("dev")).ok());
    std::iter::once(own).chain(numbers.map(|number| number.trim().to_owned())).collect()
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| Identity::of(&metadata))
}

/// A path from the kernel, which writes blanks and backslashes in octal.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn disk(major: u32, minor: u32) -> Identity {
        Identity::BlockDevice(rustix::fs::makedev(major, minor))
    }

    const MOUNTS: &str = "\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
30 22 8:17 / /mnt/my\\040disk rw - xfs /dev/sdb1 rw
31 22 253:0 / /srv rw - xfs /dev/mapper/data rw
";

    #[test]
    fn a_mounted_device_is_refused_with_its_mount_point() {
        let root = world(&[("proc/self/mountinfo", MOUNTS)]);
        let by = |storage| user(root.path(), storage);
        assert_eq!(by(disk(8, 17)).unwrap(), "it is mounted at /mnt/my disk");
        assert_eq!(by(disk(259, 2)).unwrap(), "it is mounted at /");
        assert_eq!(by(disk(8, 32)), None);
    }

    #[test]
    fn a_disk_with_a_mounted_partition_is_refused() {
        let root = world(&[
            ("proc/self/mountinfo", MOUNTS),
            ("sys/dev/block/8:16/sdb1/partition", "1\n"),
            ("sys/dev/block/8:16/sdb1/dev", "8:17\n"),
            ("sys/dev/block/8:16/queue/dev", "8:17\n"),
        ]);
        assert_eq!(user(root.path(), disk(8, 16)).unwrap(), "a partition of it is mounted at /mnt/my disk");
    }

    #[test]
    fn a_device_that_another_is_made_of_is_refused() {
        let root = world(&[("sys/dev/block/8:0/holders/dm-3/dev", "")]);
        assert_eq!(user(root.path(), disk(8, 0)).unwrap(), "/dev/dm-3 is made of it");
        assert_eq!(user(root.path(), disk(8, 1)), None);
    }

    #[test]
    fn a_file_behind_a_loop_device_or_in_use_as_swap_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let storage = identity(file.path()).unwrap();
        let path = file.path().display();
        let root = world(&[("sys/block/loop7/loop/backing_file", &format!("{path}\n"))]);
        assert_eq!(user(root.path(), storage).unwrap(), "/dev/loop7 shows it");
        let swaps = format!("Filename\tType\tSize\tUsed\tPriority\n{path} file 1 0 -2\n");
        let root = world(&[("proc/swaps", &swaps), ("sys/block/loop7/loop/backing_file", "/other\n")]);
        assert_eq!(user(root.path(), storage).unwrap(), "it is active swap space");
        assert_eq!(user(world(&[]).path(), storage), None);
    }
}
