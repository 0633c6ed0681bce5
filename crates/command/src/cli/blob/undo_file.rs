//! The file from which a repair can be undone: the old contents of every block, and checksums of the new
//! ones. `docs/check.md` has the format.

use super::output_file::folder_of;
use crate::cli::failure::{Failure, shown};
use spindle_format::check::ChangedPage;
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
    /// What a repair of an image of `image_size` bytes overwrites.
    ///
    /// # Errors
    /// A block cannot be read.
    pub(super) fn of(image_size: u64, pages: &BTreeMap<u64, ChangedPage>) -> Result<UndoFile, Failure> {
        let saved = pages.iter().map(|(&start, page)| match &page.before {
            Some(before) => Ok((start, Saved { before: before.clone(), made: page.sums.clone() })),
            None => {
                let why = format!("byte {start} cannot be read, so a repair could not be undone");
                Err(Failure::Refused(why))
            }
        });
        Ok(UndoFile { image_size, blocks: saved.collect::<Result<_, _>>()? })
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
        let folder = folder_of(path)?;
        let failed = |error| Failure::file(path, "created", error);
        let made = tempfile::Builder::new().prefix(".spindle-undo-").tempfile_in(folder);
        // Without the temporary name.
        let mut file = made.map_err(|error| failed(error.kind().into()))?;
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
        let refused = |why: &str| Failure::Refused(format!("{} is not an undo file: {why}", shown(path)));
        // Checked before it is opened: opening a pipe would wait for its other end.
        let known = std::fs::metadata(path).map_err(failed)?;
        if !known.is_file() {
            return Err(refused("it is not a file"));
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

    fn sample() -> UndoFile {
        let page = |at: u8| {
            let (before, after) = (Box::new([at; BLOCK]), Box::new([at + 1; BLOCK]));
            ChangedPage { before: Some(before), after, sums: vec![u32::from(at), 7] }
        };
        UndoFile::of(5 * BLOCK as u64, &[(0, page(1)), (4096, page(2))].into()).unwrap()
    }

    #[test]
    fn it_is_read_as_it_was_stored() {
        assert_eq!(UndoFile::parse(&sample().to_bytes()), Ok(sample()));
    }

    #[test]
    fn a_repair_of_what_cannot_be_read_is_refused_as_it_could_not_be_undone() {
        let page = ChangedPage { before: None, after: Box::new([0; BLOCK]), sums: vec![1] };
        let refused = UndoFile::of(8192, &[(4096, page)].into()).unwrap_err().to_string();
        assert!(refused.contains("byte 4096 cannot be read"), "{refused}");
    }

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_refused() {
        let bytes = sample().to_bytes();
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
