//! The file from which a repair can be undone: the old contents of every block, and checksums of the new
//! ones. `docs/check.md` has the format.

use crate::cli::failure::{Failure, shown};
use spindle_format::Change;
use spindle_format::check::Medium;
use spindle_format::crc::crc32c;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes of a saved block.
pub(super) const BLOCK: usize = 4096;

const MAGIC: &[u8; 16] = b"SPINDLE UNDO 1\n\0";

/// One block of the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Saved {
    /// Its old contents.
    pub(super) before: Box<[u8; BLOCK]>,
    /// The checksums of the block after each of the repair's writes.
    pub(super) made: Vec<u32>,
}

/// What a repair overwrites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct UndoFile {
    /// Bytes of the image.
    pub(super) image_size: u64,
    /// Blocks by the bytes of the image where they begin.
    pub(super) blocks: BTreeMap<u64, Saved>,
}

impl UndoFile {
    /// The blocks that these changes overwrite.
    ///
    /// # Errors
    /// A block that they change in part cannot be read.
    pub(super) fn of(medium: &dyn Medium, changes: &[Change]) -> Result<UndoFile, Failure> {
        let mut blocks: BTreeMap<u64, (Saved, Box<[u8; BLOCK]>)> = BTreeMap::new();
        for change in changes {
            let (offset, len, bytes) = match change {
                Change::Write { offset, bytes } => (*offset, bytes.len(), Some(bytes.as_slice())),
                Change::Zero { offset, len } | Change::Unmap { offset, len } => {
                    (*offset, *len as usize, None)
                }
                Change::Flush => continue,
            };
            for (start, within, from) in pieces(offset, len) {
                let (saved, now) = match blocks.entry(start) {
                    std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::btree_map::Entry::Vacant(new) => {
                        let mut before = Box::new([0; BLOCK]);
                        if !medium.read(start, before.as_mut_slice()) {
                            let why = format!("byte {start} cannot be read, so a repair could not be undone");
                            return Err(Failure::Refused(why));
                        }
                        new.insert((Saved { before: before.clone(), made: Vec::new() }, before))
                    }
                };
                match bytes {
                    Some(bytes) => now[within.clone()].copy_from_slice(&bytes[from..from + within.len()]),
                    None => now[within].fill(0),
                }
                saved.made.push(crc32c(now.as_slice()));
            }
        }
        let blocks = blocks.into_iter().map(|(at, (saved, _))| (at, saved)).collect();
        Ok(UndoFile { image_size: medium.bytes(), blocks })
    }

    /// The file's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.image_size.to_le_bytes());
        bytes.extend((self.blocks.len() as u64).to_le_bytes());
        for (offset, saved) in &self.blocks {
            bytes.extend(offset.to_le_bytes());
            bytes.extend((saved.made.len() as u32).to_le_bytes());
            saved.made.iter().for_each(|crc| bytes.extend(crc.to_le_bytes()));
            bytes.extend(saved.before.as_slice());
        }
        let crc = crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// Parses a file's bytes; the error is the reason why they are invalid.
    pub(super) fn parse(bytes: &[u8]) -> Result<UndoFile, &'static str> {
        let (body, crc) = bytes.split_last_chunk().ok_or("it is too short")?;
        if !body.starts_with(MAGIC) {
            return Err("it does not begin as an undo file does");
        }
        if crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("its checksum is wrong: it is cut off or damaged");
        }
        let mut rest = Rest(&body[MAGIC.len()..]);
        let image_size = rest.number()?;
        let mut blocks = BTreeMap::new();
        for _ in 0..rest.number()? {
            let offset = rest.number()?;
            let made = (0..u32::from_le_bytes(*rest.take()?))
                .map(|_| rest.take().map(|crc| u32::from_le_bytes(*crc)));
            let made = made.collect::<Result<Vec<u32>, _>>()?;
            let inside =
                offset.is_multiple_of(BLOCK as u64) && offset.saturating_add(BLOCK as u64) <= image_size;
            if !inside {
                return Err("it names a block beyond the image");
            }
            blocks.insert(offset, Saved { before: Box::new(*rest.take::<BLOCK>()?), made });
        }
        match rest.0 {
            [] => Ok(UndoFile { image_size, blocks }),
            _ => Err("something follows its last block"),
        }
    }

    /// Stores it durably under an unused name.
    pub(super) fn store(&self, path: &Path) -> Result<(), Failure> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let failed = |error| Failure::file(path, "created", error);
        let mut file =
            tempfile::Builder::new().prefix(".spindle-undo-").tempfile_in(folder).map_err(failed)?;
        file.write_all(&self.to_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Exists { path: path.to_owned() },
            _ => failed(error.error),
        })?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Reads a stored one.
    pub(super) fn load(path: &Path) -> Result<UndoFile, Failure> {
        let failed = |error| Failure::file(path, "read", error);
        let refused = |why: &str| Failure::Refused(format!("{} is no undo file: {why}", shown(path)));
        // Checked before it is opened: opening a pipe would wait for its other end.
        let known = std::fs::metadata(path).map_err(failed)?;
        if !known.is_file() {
            return Err(refused("it is no file"));
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut head = [0; MAGIC.len()];
        // Checked before everything is read, which may be much.
        if known.len() < head.len() as u64 || file.read_exact(&mut head).is_err() || head != *MAGIC {
            return Err(refused("it does not begin as an undo file does"));
        }
        let mut bytes = head.to_vec();
        file.take(known.len() - head.len() as u64).read_to_end(&mut bytes).map_err(failed)?;
        UndoFile::parse(&bytes).map_err(refused)
    }
}

/// The blocks of a range: the start of each, the part of the range in it, and the place of that part in the
/// range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let (block, end) = (BLOCK as u64, offset + len as u64);
    (offset / block * block..end).step_by(BLOCK).map(move |start| {
        let first = offset.max(start);
        let last = end.min(start + block);
        ((start), (first - start) as usize..(last - start) as usize, (first - offset) as usize)
    })
}

/// The unread part of a file's bytes.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends in the middle")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(*self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl Medium for Bytes {
        fn bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn block_size(&self) -> u32 {
            512
        }

        fn read(&self, offset: u64, into: &mut [u8]) -> bool {
            into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
            true
        }
    }

    fn sample() -> (Vec<u8>, Vec<Change>, UndoFile) {
        let bytes: Vec<u8> = (0..5 * BLOCK).map(|at| (at / 7) as u8).collect();
        let changes = vec![
            Change::Write { offset: 4000, bytes: vec![9; 1000] },
            Change::Flush,
            Change::Zero { offset: 0, len: 8192 },
        ];
        let undo = UndoFile::of(&Bytes(bytes.clone()), &changes).unwrap();
        (bytes, changes, undo)
    }

    #[test]
    fn it_holds_what_the_changes_overwrite_and_knows_what_they_make() {
        let (bytes, changes, undo) = sample();
        assert_eq!(undo.blocks.keys().collect::<Vec<_>>(), [&0, &4096]);
        let mut image = bytes.clone();
        changes.iter().for_each(|change| change.apply(&mut image));
        for (&at, saved) in &undo.blocks {
            let now = &image[at as usize..][..BLOCK];
            assert_eq!(saved.made.last(), Some(&crc32c(now)));
            assert!(saved.before.as_slice() == &bytes[at as usize..][..BLOCK]);
        }
        assert_eq!(UndoFile::parse(&undo.to_bytes()), Ok(undo));
    }

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_refused() {
        let bytes = sample().2.to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(UndoFile::parse(&damaged).is_err(), "byte {at}");
        }
        for len in (0..bytes.len()).step_by(61) {
            assert!(UndoFile::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
