//! The input of an import: a file, a device or a stream, read ahead by a separate OS thread.
//!
//! Reading a pipe may wait without end, so it must not happen on the thread that steps the store. The reader
//! passes pieces through a bounded queue and ends when the queue is dropped; if it is blocked in the kernel
//! at the process's end, it ends with the process.

use super::output_file::is_zero;
use crate::cli::closed_stream::leads_to_closed;
use crate::cli::failure::{Failure, shown};
use rustix::fs::SeekFrom as Seek;
use spindle_engine::{StandardStream, drop_pages, was_closed};
use spindle_mem::IoBuf;
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Bytes of one read.
const CHUNK: u64 = 1 << 20;

/// Pieces that may wait in the queue.
const QUEUED: usize = 8;

/// A part of the input, in order and without gaps between them.
pub(super) enum Piece {
    /// Bytes, padded with zeroes to whole blocks, and how many of them are the input's own.
    Data { at: u64, bytes: IoBuf, own: u64 },
    /// `len` zeroes.
    Zeroes { at: u64, len: u64 },
}

/// An input that is being read.
pub(super) struct Input {
    queue: Arc<Queue>,
    /// Its length in bytes, if known.
    length: Option<u64>,
}

/// How the input is cut into pieces.
#[derive(Clone, Copy)]
pub(super) struct Grain {
    /// Data begins at a multiple of this and has whole blocks of it.
    pub(super) block: u64,
    /// The unit in which zeroes are distinguished from data, a multiple of the block.
    pub(super) zeroes: u64,
}

struct Queue {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<io::Result<Piece>>,
    /// Set once no more pieces are added.
    ended: bool,
    /// Set once no more pieces are taken.
    abandoned: bool,
    waker: Option<Waker>,
}

impl Input {
    /// Opens the named input, `-` for standard input, and measures it if possible.
    pub(super) fn open(path: &Path) -> Result<(File, Option<u64>), Failure> {
        if path == Path::new("-") {
            if was_closed(StandardStream::Input) {
                return Err(Failure::Refused("standard input is closed: nothing is imported from it".into()));
            }
            let file = io::stdin().as_fd().try_clone_to_owned();
            let path = Path::new("standard input");
            let file = File::from(file.map_err(|error| Failure::file(path, "read", error))?);
            let length = measure(&file).map_err(|error| Failure::file(path, "measured", error))?;
            refuse_endless(&file, path)?;
            return Ok((file, length));
        }
        if leads_to_closed(path) {
            let why = format!("{} is closed: nothing is imported from it", shown(path));
            return Err(Failure::Refused(why));
        }
        let file = File::open(path).map_err(|error| Failure::file(path, "opened", error))?;
        drop_pages(&file);
        let length = measure(&file).map_err(|error| Failure::file(path, "measured", error))?;
        refuse_endless(&file, path)?;
        Ok((file, length))
    }

    /// Begins to read from the file's position, to its end or to soon after `most` bytes.
    pub(super) fn read(file: File, length: Option<u64>, grain: Grain, most: u64) -> io::Result<Input> {
        let queue = Arc::new(Queue { state: Mutex::default(), room: Condvar::new() });
        let reader = Reader { queue: queue.clone(), file, length, grain, most, at: 0, zeroes: 0 };
        spindle_engine::spawn_pinned("import", None, move || reader.run())?;
        Ok(Input { queue, length })
    }

    /// Its length in bytes, if known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<io::Result<Piece>> {
        poll_fn(|cx| {
            let mut state = self.queue.state();
            if let Some(piece) = state.pieces.pop_front() {
                self.queue.room.notify_one();
                return Poll::Ready(Some(piece));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.queue.state().abandoned = true;
        self.queue.room.notify_one();
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece, waiting for room if needed. False if the receiver is gone.
    fn push(&self, piece: io::Result<Piece>) -> bool {
        let mut state = self.state();
        while state.pieces.len() >= QUEUED && !state.abandoned {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.pieces.push_back(piece);
        let (waker, wanted) = (state.waker.take(), !state.abandoned);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        wanted
    }

    fn end(&self) {
        let waker = {
            let mut state = self.state();
            state.ended = true;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The name of an input in what is said of it.
pub(super) fn input_name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { shown(path) }
}

/// The devices that never end: zero, full, random, urandom.
const ENDLESS: [(u32, u32); 4] = [(1, 5), (1, 7), (1, 8), (1, 9)];

/// An error if the input has no end.
fn refuse_endless(file: &File, path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = file.metadata().map_err(|error| Failure::file(path, "accessed", error))?;
    let number = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    match metadata.file_type().is_char_device() && ENDLESS.contains(&number) {
        true => Err(Failure::Refused(format!(
            "{} never ends: import so much of it as is wanted, as by head -c SIZE, from standard input (-)",
            input_name(path)
        ))),
        false => Ok(()),
    }
}

/// Bytes from the file's position to its end; `None` for inputs without a length.
fn measure(file: &File) -> io::Result<Option<u64>> {
    let kind = file.metadata()?.file_type();
    use std::os::unix::fs::FileTypeExt;
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Ok(None);
    }
    let here = rustix::fs::seek(file, Seek::Current(0))?;
    let end = rustix::fs::seek(file, Seek::End(0))?;
    rustix::fs::seek(file, Seek::Start(here))?;
    Ok(Some(end.saturating_sub(here)))
}

/// Runs on the OS thread.
struct Reader {
    queue: Arc<Queue>,
    file: File,
    length: Option<u64>,
    grain: Grain,
    /// The limit: only enough is read beyond it to see that there is more.
    most: u64,
    /// Number of bytes read or skipped.
    at: u64,
    /// How many of the last of them are zeroes that were not passed on yet.
    zeroes: u64,
}

impl Reader {
    fn run(mut self) {
        if let Err(error) = self.read_all() {
            self.queue.push(Err(error));
        }
        self.queue.end();
    }

    fn read_all(&mut self) -> io::Result<()> {
        loop {
            self.skip_hole()?;
            let mut bytes = IoBuf::zeroed(CHUNK as usize);
            let len = read_full(&mut self.file, &mut bytes)?;
            bytes.truncate((len as u64).next_multiple_of(self.grain.block) as usize);
            if !self.cut(bytes, len as u64) {
                return Ok(());
            }
            if (len as u64) < CHUNK || self.at > self.most {
                self.hand_over_zeroes();
                return if (len as u64) < CHUNK { self.check_end() } else { Ok(()) };
            }
        }
    }

    /// An error if the input has ended before the length that it had.
    fn check_end(&self) -> io::Result<()> {
        match self.length {
            Some(length) if self.at < length => {
                let (at, why) = (self.at, "it became shorter while it was read: import it again");
                Err(io::Error::other(format!("it ends at byte {at} and had {length} bytes; {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Skips a hole of the file, in whole chunks.
    fn skip_hole(&mut self) -> io::Result<()> {
        let Some(length) = self.length else { return Ok(()) };
        let here = rustix::fs::seek(&self.file, Seek::Current(0))?;
        let data = match rustix::fs::seek(&self.file, Seek::Data(here)) {
            Ok(data) => data,
            // No data up to the end, which may be nearer than it was.
            Err(rustix::io::Errno::NXIO) => {
                let end = rustix::fs::seek(&self.file, Seek::End(0))?;
                end.min(here + length.saturating_sub(self.at)).max(here)
            }
            // Holes cannot be found here; the file's position has not changed.
            Err(_) => return Ok(()),
        };
        let hole = (data - here) / CHUNK * CHUNK;
        rustix::fs::seek(&self.file, Seek::Start(here + hole))?;
        (self.at, self.zeroes) = (self.at + hole, self.zeroes + hole);
        Ok(())
    }

    /// Passes a chunk on as runs of data and zeroes. False if the receiver is gone.
    fn cut(&mut self, mut bytes: IoBuf, len: u64) -> bool {
        let end = self.at + len;
        let grain = self.grain.zeroes as usize;
        while !bytes.is_empty() {
            let zero = |grain: &[u8]| is_zero(grain);
            let first = zero(&bytes[..grain.min(bytes.len())]);
            let run = bytes.chunks(grain).take_while(|grain| zero(grain) == first).map(<[u8]>::len).sum();
            let piece = bytes.split_to(run);
            let own = (run as u64).min(end - self.at);
            if first {
                self.zeroes += own;
            } else {
                let at = self.at;
                if !self.hand_over_zeroes() || !self.queue.push(Ok(Piece::Data { at, bytes: piece, own })) {
                    return false;
                }
            }
            self.at += own;
        }
        true
    }

    fn hand_over_zeroes(&mut self) -> bool {
        match std::mem::take(&mut self.zeroes) {
            0 => true,
            len => self.queue.push(Ok(Piece::Zeroes { at: self.at - len, len })),
        }
    }
}

/// Fills the buffer as far as the input reaches.
fn read_full(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read(&mut bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write};

    fn read_all(file: File, length: u64) -> io::Result<u64> {
        let grain = Grain { block: 4096, zeroes: 64 << 10 };
        let queue = Arc::new(Queue { state: Mutex::default(), room: Condvar::new() });
        let mut reader =
            Reader { queue, file, length: Some(length), grain, most: 64 << 20, at: 0, zeroes: 0 };
        reader.read_all().map(|()| reader.at)
    }

    #[test]
    fn an_input_that_became_shorter_is_an_error_whether_it_ends_in_data_or_in_a_hole() {
        for (data, whole) in [(3 << 20, 3 << 20), (1 << 20, 3 << 20), (0, 2 << 20), (1000, 1000), (0, 0)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![7; data]).unwrap();
            file.set_len(whole).unwrap();
            file.rewind().unwrap();
            assert_eq!(read_all(file.try_clone().unwrap(), whole).unwrap(), whole);
            for length in [whole + 1, whole + (1 << 20), whole + (5 << 20)] {
                file.rewind().unwrap();
                let error = read_all(file.try_clone().unwrap(), length).unwrap_err().to_string();
                assert!(error.contains(&format!("ends at byte {whole} and had {length} bytes")), "{error}");
            }
        }
    }
}
