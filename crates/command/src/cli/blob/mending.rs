//! Carries a repair out, and takes it back: with the image locked, the undo file first, flushes in between.
//!
//! Runs on the Spindle thread of [`foreground`]. A crash in the middle leaves a store marked as in use, which
//! every load recovers; the undo file takes the image back from there too.

use super::foreground;
use super::image::ImageFile;
use super::in_use::refuse_used;
use super::lvol::refuse_giving_up;
use super::served::open_for_writing;
use super::source::not_loaded;
use super::undo_file::{BLOCK, UndoFile};
use crate::cli::failure::{Failure, shown};
use crate::cli::shell;
use spindle_block::{Channel, IoError};
use spindle_format::BlobId;
use spindle_format::Change;
use spindle_format::check::{Medium, MendError, Mended, mend};
use spindle_format::crc::crc32c;
use spindle_mem::IoBuf;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Bytes of zeroes written at a time.
const ZEROES: u64 = 1 << 20;

/// An image as a checker reads it.
pub(super) struct OnImage(pub(super) ImageFile);

impl Medium for OnImage {
    fn bytes(&self) -> u64 {
        self.0.size()
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.0.read(offset, into).is_ok()
    }
}

/// Repairs a store as far as possible. Overwritten contents are in `undo` before anything is written. Of the blobs to
/// give up the super blob of an lvolstore is one only if that is forced.
pub(super) fn repair(
    image: PathBuf,
    undo: PathBuf,
    (give_up, forced): (BTreeSet<BlobId>, bool),
) -> Result<Mended, Failure> {
    with_locked(image, async move |image, channel| {
        if !forced && !give_up.is_empty() {
            refuse_giving_up(&image.0, &give_up)?;
        }
        let mended = mend(image, &give_up).map_err(|error| failure(&image.0, error))?;
        if !mended.changes.is_empty() {
            UndoFile::of(image.bytes(), &mended.pages)?.store(&undo)?;
            carry_out(channel, &mended.changes, &undo_command(image.0.path(), &undo)).await?;
        }
        Ok(mended)
    })
}

/// Takes a repair back.
pub(super) fn undo(image: PathBuf, file: &Path, force: bool) -> Result<usize, Failure> {
    let undo = UndoFile::load(file)?;
    with_locked(image, async move |image, channel| {
        if !force {
            refuse_changed(image, &undo)?;
        }
        refuse_behind_end(image, &undo)?;
        for (&offset, saved) in &undo.blocks {
            channel.write(offset, IoBuf::copy_from(saved.before.as_slice())).await.0?;
        }
        channel.flush().await?;
        Ok(undo.blocks.len())
    })
}

/// Runs `work` on an image while excluding other writers.
fn with_locked<T: Send + 'static>(
    path: PathBuf,
    work: impl AsyncFnOnce(&OnImage, &Channel) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    foreground::run(async move |_| {
        refuse_used(&ImageFile::open(&path)?)?;
        let device = open_for_writing(&path).await?;
        let channel = Channel::open(device)?;
        // Opened after the lock was taken, so that it does not change while being read.
        work(&OnImage(ImageFile::open(&path)?), &channel).await
    })
}

/// The command that takes a repair back.
pub(super) fn undo_command(image: &Path, undo: &Path) -> String {
    format!("spindle blob undo {} {}", shell::typed(image), shell::typed(undo))
}

/// Makes the changes of a repair; an error in their middle has the command that takes back what was done.
async fn carry_out(channel: &Channel, changes: &[Change], undo: &str) -> Result<(), Failure> {
    make(channel, changes).await.map_err(|error| {
        let why = Failure::from(error);
        Failure::Refused(format!("{why}; the repair was not finished: to take back what was done: {undo}"))
    })
}

async fn make(channel: &Channel, changes: &[Change]) -> Result<(), IoError> {
    for change in changes {
        match change {
            Change::Write { offset, bytes } => channel.write(*offset, IoBuf::copy_from(bytes)).await.0?,
            Change::Zero { offset, len } | Change::Unmap { offset, len } => {
                write_zeroes(channel, *offset, *len).await?;
            }
            Change::Flush => channel.flush().await?,
        }
    }
    channel.flush().await
}

/// Writes zeroes in pieces: the length comes from the image.
pub(super) async fn write_zeroes(channel: &Channel, offset: u64, len: u64) -> Result<(), IoError> {
    let mut done = 0;
    while done < len {
        let now = (len - done).min(ZEROES);
        channel.write(offset + done, IoBuf::zeroed(now as usize)).await.0?;
        done += now;
    }
    Ok(())
}

/// An error if a block has neither its contents from before the repair nor those that the repair wrote.
fn refuse_changed(image: &OnImage, undo: &UndoFile) -> Result<(), Failure> {
    let path = shown(image.0.path());
    if undo.image_size != image.bytes() {
        let (was, is) = (undo.image_size, image.bytes());
        return Err(Failure::Refused(format!(
            "{path} has {is} bytes, when it was repaired it had {was}: --force undoes that repair nevertheless"
        )));
    }
    for (&offset, saved) in &undo.blocks {
        let mut now = [0; BLOCK];
        image.0.read(offset, &mut now)?;
        if now != *saved.before && !saved.made.contains(&crc32c(&now)) {
            return Err(Failure::Refused(format!(
                "{path} was changed at byte {offset} since it was repaired: --force undoes the repair all the \
                 same, and loses what was changed"
            )));
        }
    }
    Ok(())
}

/// An error if a block lies behind the end of an image that was cut short: nothing is written then.
fn refuse_behind_end(image: &OnImage, undo: &UndoFile) -> Result<(), Failure> {
    let end = undo.blocks.last_key_value().map_or(0, |(offset, _)| offset + BLOCK as u64);
    match end <= image.bytes() {
        true => Ok(()),
        false => Err(Failure::Refused(format!(
            "{} ends at byte {}, and the repair wrote up to byte {end}: make it as long as it was ({} bytes) first",
            shown(image.0.path()),
            image.bytes(),
            undo.image_size
        ))),
    }
}

/// Why a store cannot be repaired.
fn failure(image: &ImageFile, error: MendError) -> Failure {
    match error {
        MendError::Load(error) => not_loaded(image, error),
        other => Failure::Refused(format!("{}: {other}", shown(image.path()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_block::Malloc;

    #[test]
    fn a_repair_that_fails_in_the_middle_names_the_command_that_takes_it_back() {
        let (whole, failed) = foreground::run_simulated(async || {
            let channel = Channel::open(Malloc::new("memory", 512, 8).unwrap()).unwrap();
            let write = |offset| Change::Write { offset, bytes: vec![1; 512] };
            let undo = undo_command(Path::new("my disk.img"), Path::new("disk.undo"));
            let whole = carry_out(&channel, &[write(0), Change::Flush], &undo).await;
            (whole, carry_out(&channel, &[write(0), write(1 << 20)], &undo).await)
        });
        whole.unwrap();
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("of memory"), "{said}");
        assert!(
            said.ends_with("to take back what was done: spindle blob undo 'my disk.img' disk.undo"),
            "{said}"
        );
    }
}
