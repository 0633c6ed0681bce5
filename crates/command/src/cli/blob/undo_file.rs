//! The file from which a repair can be undone: the old contents of every block, and checksums of the new
//! ones. `docs/check.md` has the format.

use super::output_file::folder_of;
use crate::cli::failure::{Failure, shown};
use spindle_format::check::ChangedPage;
use spindle_format::crc::{crc32c, crc32c_after};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

/// Bytes of a saved block.
pub(super) const BLOCK: usize = 4096;

/// The most writes of one block that a file may name: far more than a repair makes.
const MOST_WRITES: u32 = 1 << 16;

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

    /// Parses a file; the error is the reason why it is invalid. Takes memory for what it finds in order, however
    /// long the file is.
    pub(super) fn parse(from: impl Read) -> Result<UndoFile, &'static str> {
        let mut rest = Rest { from, crc: 0 };
        if rest.take() != Ok(*MAGIC) {
            return Err("it does not begin as an undo file does");
        }
        let image_size = rest.number()?;
        let mut blocks = BTreeMap::new();
        let mut free_from = 0;
        for _ in 0..rest.number()? {
            let offset = rest.number()?;
            let behind = offset.checked_add(BLOCK as u64).filter(|end| *end <= image_size);
            let Some(behind) = behind.filter(|_| offset.is_multiple_of(BLOCK as u64)) else {
                return Err("it names a block beyond the image");
            };
            if offset < free_from {
                return Err("its blocks are not in order");
            }
            free_from = behind;
            let writes = u32::from_le_bytes(rest.take()?);
            if writes > MOST_WRITES {
                return Err("it has more writes of a block than a repair makes");
            }
            let made = (0..writes).map(|_| rest.take().map(u32::from_le_bytes));
            let made = made.collect::<Result<Vec<u32>, _>>()?;
            blocks.insert(offset, Saved { before: Box::new(rest.take()?), made });
        }
        let crc = rest.crc;
        if crc != u32::from_le_bytes(rest.take()?) {
            return Err("its checksum is wrong: it is damaged");
        }
        match rest.take::<1>() {
            Err(_) => Ok(UndoFile { image_size, blocks }),
            Ok(_) => Err("something follows its last block"),
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
            std::io::ErrorKind::AlreadyExists => {
                Failure::Refused(format!("{} is there already: choose another name for --undo", shown(path)))
            }
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
        UndoFile::parse(BufReader::new(File::open(path).map_err(failed)?)).map_err(refused)
    }
}

/// The unread part of a file, and the checksum of what was read.
struct Rest<R> {
    from: R,
    crc: u32,
}

impl<R: Read> Rest<R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let mut taken = [0; N];
        self.from.read_exact(&mut taken).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it ends in the middle",
            _ => "it cannot be read",
        })?;
        self.crc = crc32c_after(self.crc, &taken);
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.take()?))
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
        assert_eq!(UndoFile::parse(sample().to_bytes().as_slice()), Ok(sample()));
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
            assert!(UndoFile::parse(damaged.as_slice()).is_err(), "byte {at}");
        }
        for len in (0..bytes.len()).step_by(61) {
            assert!(UndoFile::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    /// Bytes of a file that claims far more than it has: the beginning of one, and then zeroes.
    #[test]
    fn a_file_is_refused_where_it_stops_making_sense_however_long_it_is() {
        struct Counted<R>(R, u64);
        impl<R: Read> Read for Counted<R> {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let read = self.0.read(into)?;
                self.1 += read as u64;
                Ok(read)
            }
        }
        let whole = sample().to_bytes();
        let mut many = whole[..MAGIC.len()].to_vec();
        many.extend([u64::MAX; 2].iter().flat_map(|number| number.to_le_bytes()));
        for begun in [many, whole[..whole.len() - BLOCK].to_vec()] {
            let mut endless = Counted(begun.as_slice().chain(std::io::repeat(0)), 0);
            assert!(UndoFile::parse(&mut endless).is_err());
            let most = begun.len() as u64 + 3 * BLOCK as u64;
            assert!(endless.1 <= most, "{} bytes read", endless.1);
        }
    }
}
