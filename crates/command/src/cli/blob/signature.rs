//! Finds existing contents of a device: the signatures of everything that a new store would destroy.
//!
//! Offsets and bytes from the programs' own documentation. Not promised: that a device without signatures is
//! empty; plain data has none.

use super::image::ImageFile;
use crate::cli::failure::Failure;

/// Bytes examined, at the beginning and at the end.
const HEAD: u64 = 512 << 10;
const TAIL: u64 = 512 << 10;

/// A kind of contents, recognised by bytes at one of several places.
struct Known {
    what: &'static str,
    offsets: &'static [usize],
    magic: &'static [u8],
}

const fn known(what: &'static str, offsets: &'static [usize], magic: &'static [u8]) -> Known {
    Known { what, offsets, magic }
}

const STORE: &str = "a Blobstore";

/// In the order of reporting; contents that may include a boot sector come before it.
static KNOWN: &[Known] = &[
    known(STORE, &[0], b"SPDKBLOB"),
    known("a partition table (GPT)", &[512, 4096], b"EFI PART"),
    known("an ext2, ext3 or ext4 file system", &[1080], b"\x53\xEF"),
    known("an XFS file system", &[0], b"XFSB"),
    known("a btrfs file system", &[65536 + 64], b"_BHRfS_M"),
    known("a ZFS pool", &[128 << 10, 384 << 10], ZFS_UBERBLOCK),
    known("an encrypted volume (LUKS)", &[0], b"LUKS\xBA\xBE"),
    known("an encrypted volume (LUKS)", &[16384, 32768, 65536, 131_072, 262_144], b"SKUL\xBA\xBE"),
    known("an encrypted volume (BitLocker)", &[3], b"-FVE-FS-"),
    known("a physical volume (LVM)", &[0, 512, 1024, 1536], b"LABELONE"),
    known("a member of an array (md raid)", &[0, 4096], MD),
    known("swap space", &[4086, 8182, 16374, 32758, 65526], b"SWAPSPACE2"),
    known("swap space", &[4086, 8182, 16374, 32758, 65526], b"SWAP-SPACE"),
    known("a hibernated system", &[4086, 8182, 16374, 32758, 65526], b"S1SUSPEND"),
    known("an NTFS file system", &[3], b"NTFS    "),
    known("an exFAT file system", &[3], b"EXFAT   "),
    known("a FAT file system", &[54], b"FAT1"),
    known("a FAT file system", &[82], b"FAT32   "),
    known("an ISO 9660 file system", &[32769], b"CD001"),
    known("a UDF file system", &[32769, 34817, 36865, 38913], b"NSR0"),
    known("a UDF file system", &[32769], b"BEA01"),
    known("an F2FS file system", &[1024], b"\x10\x20\xF5\xF2"),
    known("a bcachefs file system", &[4096 + 24], b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF"),
    known("a bcache device", &[4096 + 24], b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F"),
    known("a squashfs file system", &[0], b"hsqs"),
    known("an EROFS file system", &[1024], b"\xE2\xE1\xF5\xE0"),
    known("an HFS+ file system", &[1024], b"H+\0\x04"),
    known("an HFS+ file system", &[1024], b"HX\0\x05"),
    known("an APFS container", &[32], b"NXSB"),
    known("a ReiserFS file system", &[65536 + 52], b"ReIsEr"),
    known("a JFS file system", &[32768], b"JFS1"),
    known("a GFS2 file system", &[65536], b"\x01\x16\x19\x70"),
    known("a Ceph BlueStore", &[0], b"bluestore block device"),
    known("a Stratis pool", &[512 + 4], b"!Stra0tis\x86\xFF\x02^\x41rh"),
    known("a VDO volume", &[0], b"dmvdo001"),
    known("a disk image (qcow2)", &[0], b"QFI\xFB"),
    known("a disk image (VMDK)", &[0], b"KDMV"),
    known("a disk image (VHDX)", &[0], b"vhdxfile"),
    known("a disk image (VDI)", &[64], b"\x7F\x10\xDA\xBE"),
    known(VHD, &[0], CONECTIX),
    known("a disk image (VMDK)", &[0], b"# Disk DescriptorFile"),
    known("a disk image (VMDK)", &[0], b"COWD"),
    known("a disk image (QED)", &[0], b"QED\0"),
    known("a disk image (Parallels)", &[0], b"WithoutFreeSpace"),
    known("a disk image (Parallels)", &[0], b"WithouFreSpacExt"),
    known("a NILFS2 file system", &[1024], NILFS2),
    known("an OCFS2 file system", &[1024, 2048, 4096, 8192], b"OCFSV2"),
    known("a cramfs file system", &[0], b"\x45\x3D\xCD\x28"),
    known("a romfs file system", &[0], b"-rom1fs-"),
    known("a zip archive", &[0], b"PK\x03\x04"),
    known("a zip archive", &[0], b"PK\x05\x06"),
    known("a zip archive", &[0], b"PK\x07\x08"),
    known("a 7z archive", &[0], b"7z\xBC\xAF\x27\x1C"),
    known("a rar archive", &[0], b"Rar!\x1A\x07"),
    known("a tar archive", &[257], b"ustar"),
    known("a cpio archive", &[0], b"070701"),
    known("a cpio archive", &[0], b"070702"),
    known("a cpio archive", &[0], b"070707"),
    known("a cpio archive", &[0], b"\xC7\x71"),
    known("lzip-compressed data", &[0], b"LZIP"),
    known("lzop-compressed data", &[0], b"\x89LZO\0\r\n\x1A\n"),
    known("zstd-compressed data", &[0], b"\x28\xB5\x2F\xFD"),
    known("gzip-compressed data", &[0], b"\x1F\x8B\x08"),
    known("xz-compressed data", &[0], b"\xFD7zXZ\0"),
    known("bzip2-compressed data", &[0], b"BZh"),
    known("lz4-compressed data", &[0], b"\x04\x22\x4D\x18"),
    known("a partition table or boot sector", &[510], b"\x55\xAA"),
];

const VHD: &str = "a disk image (VHD)";
const CONECTIX: &[u8] = b"conectix";
/// Revision 2.0 and the magic number.
const NILFS2: &[u8] = b"\x02\0\0\0\0\0\x34\x34";
const MD: &[u8] = b"\xFC\x4E\x2B\xA9";
const ZFS_UBERBLOCK: &[u8] = b"\x0C\xB1\xBA\0\0\0\0\0";

/// The known contents of an image without a store, and the remedy, as the rest of a sentence; `None` if
/// nothing is known.
pub(super) fn instead(image: &ImageFile) -> Option<String> {
    let found = look(image).ok()?;
    let others = || found.iter().filter(|(what, _)| *what != STORE);
    // What contains the rest comes first: an image of a disk begins as the disk does.
    let (what, at) = others().find(|(what, _)| unpacking(what).is_some()).or_else(|| others().next())?;
    let remedy = match *what {
        what if what.contains("partition table") => "name one of its partitions",
        what => unpacking(what).unwrap_or("name a store that spindle or SPDK made"),
    };
    Some(format!("it holds {what} (byte {at}): {remedy}"))
}

/// How to get at the contents of data that contains other data in some encoding.
fn unpacking(what: &str) -> Option<&'static str> {
    if what.contains("compressed") || what.contains("archive") {
        Some("unpack it first")
    } else if what.contains("disk image") {
        Some("convert it to a raw image first, as by qemu-img convert -O raw")
    } else {
        None
    }
}

/// The encoding of data that begins with these bytes, and how to get at its contents; `None` for plain data.
pub(super) fn encoding(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let begins = |known: &&Known| known.offsets.iter().any(|&at| holds(head, at, known.magic));
    KNOWN.iter().filter(begins).find_map(|known| Some((known.what, unpacking(known.what)?)))
}

/// An error that names all known contents of the image, if there are any.
pub(super) fn refuse_known(image: &ImageFile) -> Result<(), Failure> {
    let found = look(image)?;
    if found.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = found.iter().map(|(what, at)| format!("{what} (byte {at})")).collect();
    Err(Failure::Holds { path: image.path().to_owned(), found: found.join(", ") })
}

/// All known contents of the image, each kind once, with its place.
fn look(image: &ImageFile) -> Result<Vec<(&'static str, u64)>, Failure> {
    let size = image.size();
    let mut head = vec![0; HEAD.min(size) as usize];
    image.read(0, &mut head)?;
    let tail_at = size - TAIL.min(size);
    let mut tail = vec![0; (size - tail_at) as usize];
    image.read(tail_at, &mut tail)?;
    let mut found: Vec<(&str, u64)> = Vec::new();
    for known in KNOWN {
        // A boot sector is mentioned only if nothing else is there.
        let is_generic = known.offsets == [510];
        let seen = found.iter().any(|(what, _)| *what == known.what) || is_generic && !found.is_empty();
        if !seen && let Some(at) = known.offsets.iter().find(|at| holds(&head, **at, known.magic)) {
            found.push((known.what, *at as u64));
        }
    }
    for (what, at, magic) in at_the_end(size) {
        let seen = found.iter().any(|(other, _)| *other == what);
        let inside = at.checked_sub(tail_at).is_some_and(|at| holds(&tail, at as usize, magic));
        if !seen && inside {
            found.push((what, at));
        }
    }
    Ok(found)
}

/// Structures that some programs keep at the end of a device.
fn at_the_end(size: u64) -> Vec<(&'static str, u64, &'static [u8])> {
    let mut places = Vec::new();
    let gpt = [512, 4096].map(|block| size.checked_sub(block));
    places.extend(gpt.into_iter().flatten().map(|at| ("a partition table (GPT)", at, &b"EFI PART"[..])));
    let md_0_90 = (size & !0xFFFF).checked_sub(64 << 10);
    let md_1_0 = (size / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    let md = [md_0_90, md_1_0].into_iter().flatten();
    places.extend(md.map(|at| ("a member of an array (md raid)", at, MD)));
    let labels = size & !0x3FFFF;
    let zfs = [512_u64, 256].map(|kib| labels.checked_sub(kib << 10)).into_iter().flatten();
    places.extend(size.checked_sub(512).map(|at| (VHD, at, CONECTIX)));
    places.extend(size.checked_sub(512).map(|at| ("a disk image (DMG)", at, &b"koly"[..])));
    places.extend((size >> 12).checked_sub(1).map(|block| ("a NILFS2 file system", block << 12, NILFS2)));
    places.extend(zfs.map(|label| ("a ZFS pool", label + (128 << 10), ZFS_UBERBLOCK)));
    places
}

fn holds(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..at + magic.len()) == Some(magic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const SIZE: u64 = 8 << 20;

    fn image(writes: &[(u64, &[u8])]) -> ImageFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        for (at, bytes) in writes {
            file.as_file().write_all_at(bytes, *at).unwrap();
        }
        ImageFile::open(file.path()).unwrap()
    }

    #[test]
    fn every_signature_is_found_at_every_place_it_may_be() {
        assert_eq!(look(&image(&[])).unwrap(), []);
        for known in KNOWN {
            for &at in known.offsets {
                let found = look(&image(&[(at as u64, known.magic)])).unwrap();
                assert_eq!(found, [(known.what, at as u64)]);
            }
        }
        for (what, at, magic) in at_the_end(SIZE) {
            assert_eq!(look(&image(&[(at, magic)])).unwrap(), [(what, at)]);
        }
    }

    #[test]
    fn all_that_is_there_is_named_and_a_boot_sector_only_if_it_is_all() {
        let image = image(&[(510, b"\x55\xAA"), (512, b"EFI PART"), (1080, b"\x53\xEF")]);
        let said = refuse_known(&image).unwrap_err().to_string();
        assert!(said.contains("GPT) (byte 512), an ext2") && said.contains("(byte 1080)"), "{said}");
        assert!(!said.contains("boot sector") && said.contains("--force"), "{said}");
    }

    #[test]
    fn a_device_smaller_than_what_is_looked_at_is_no_error() {
        for len in [0, 1, 511, 4096, 70_000] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(len).unwrap();
            assert_eq!(look(&ImageFile::open(file.path()).unwrap()).unwrap(), []);
        }
    }
}
