//! The disks of a world and the files open on them.

use std::collections::BTreeMap;
use std::io;

use slab::Slab;
use spindle_mem::Buffers;

use super::disk::{Disk, DiskOptions, FlushTicket, UnmapReads};
use super::flight::Flight;
use super::world::HandleMaker;
use crate::handle::Body;
use crate::sim_handle::SimObject;
use crate::{Asker, Direct, File, FileInfo, Op, OpenOptions, Output};

/// Disks by path, open files by number.
#[derive(Default)]
pub(super) struct Storage {
    disks: BTreeMap<String, Disk>,
    files: Slab<OpenFile>,
    /// Where scattered buffers are gathered, so that one operation is one access of the disk.
    gathered: Vec<u8>,
}

struct OpenFile {
    disk: Disk,
    path: String,
    writable: bool,
    direct: bool,
    locked: bool,
    asker: Option<Asker>,
}

impl OpenFile {
    fn info(&self) -> FileInfo {
        let options = self.disk.options();
        FileInfo {
            size: options.size,
            logical_block: options.block.max(512),
            physical_block: options.atomic_unit.max(options.block),
            memory_alignment: 1,
            block_device: false,
            direct: self.direct,
            writable: self.writable,
            discard_reads_zero: options.discard == Some(UnmapReads::Zero),
        }
    }
}

/// Data that an operation keeps from the moment of its submission.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effects {
    None,
    /// A flush covers the writes whose submitters had been told by then.
    Flush(FlushTicket),
}

impl Storage {
    pub(super) fn add(&mut self, path: &str, disk: Disk) -> Option<Disk> {
        self.disks.insert(path.to_owned(), disk)
    }

    pub(super) fn find(&self, path: &str) -> Option<Disk> {
        self.disks.get(path).cloned()
    }

    pub(super) fn close(&mut self, file: usize) {
        self.files.remove(file);
    }

    pub(super) fn at_submission(&self, op: &Op) -> Effects {
        match op {
            Op::Flush { file } => {
                self.open_file(file).map_or(Effects::None, |f| Effects::Flush(f.disk.flush_ticket()))
            }
            _ => Effects::None,
        }
    }

    fn open_file(&self, file: &File) -> Option<&OpenFile> {
        match &file.0.body {
            Body::Sim(handle) => match handle.object() {
                SimObject::File(number) => self.files.get(number),
                _ => None,
            },
            Body::Os(_) => None,
        }
    }

    /// Tells the disk that the submitter of a write learns of its completion.
    pub(super) fn acknowledge(&self, flight: &Flight) {
        if let Some(write) = flight.in_cache
            && let Some(open) = file_of(&flight.op).and_then(|file| self.open_file(file))
        {
            open.disk.acknowledge(write);
        }
    }

    /// The moment at which a file operation takes effect.
    pub(super) fn perform(&mut self, flight: &mut Flight, maker: &HandleMaker) -> io::Result<Output> {
        if let Op::Open { options } = &flight.op {
            return self.open(options, maker);
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let result = self.perform_on_open(flight, &mut gathered);
        self.gathered = gathered;
        result
    }

    fn perform_on_open(&self, flight: &mut Flight, gathered: &mut Vec<u8>) -> io::Result<Output> {
        let bad = || io::Error::from_raw_os_error(libc::EBADF);
        let open = file_of(&flight.op).and_then(|file| self.open_file(file)).ok_or_else(bad)?;
        let reads = matches!(flight.op, Op::Read { .. } | Op::Inspect { .. } | Op::Seek { .. });
        let changes = !reads && !matches!(flight.op, Op::Flush { .. });
        if changes && !open.writable {
            return Err(bad());
        }
        let disk = &open.disk;
        match &mut flight.op {
            Op::Inspect { .. } => return Ok(Output::Info(open.info())),
            // A simulated disk knows no holes: all of it may hold data.
            Op::Seek { offset, hole, .. } => {
                return Ok(Output::Found(if *hole { open.info().size } else { *offset }));
            }
            Op::Read { offset, buffers, .. } => return read(disk, *offset, buffers, gathered),
            Op::Write { offset, buffers, .. } => {
                flight.in_cache = Some(write(disk, *offset, buffers, gathered)?);
                return Ok(Output::Bytes(buffers.len()));
            }
            Op::ZeroRange { offset, length, .. } => {
                flight.in_cache = Some(disk.apply_zero_range(*offset, *length)?);
            }
            Op::Discard { offset, length, .. } => {
                flight.in_cache = Some(disk.apply_discard(*offset, *length)?);
            }
            Op::Flush { .. } => {
                let Effects::Flush(ticket) = flight.effects else { return Err(bad()) };
                disk.apply_flush(ticket)?;
            }
            other => unreachable!("'{}' is not a file operation", other.name()),
        }
        Ok(Output::Done)
    }

    fn open(&mut self, options: &OpenOptions, maker: &HandleMaker) -> io::Result<Output> {
        let path = options.path.to_string_lossy().into_owned();
        // A file whose opener is gone is closed soon.
        let kept = |open: &OpenFile| !open.asker.as_ref().is_some_and(Asker::has_given_up);
        let conflict = |open: &&OpenFile| open.locked && (open.writable || options.writable) && kept(open);
        if options.locked
            && self.files.iter().map(|(_, f)| f).filter(|f| f.path == path).any(|f| conflict(&f))
        {
            let message = format!("{path} is locked by another opener in this simulation; close it first");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        let disk = match (self.disks.get(&path), options.create) {
            (Some(disk), _) => disk.clone(),
            (None, Some(size)) => {
                let disk = Disk::new(DiskOptions { block: 1, ..DiskOptions::new(size) });
                self.disks.insert(path.clone(), disk.clone());
                disk
            }
            (None, None) => {
                let message = format!("no simulated disk is registered as {path}");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        };
        let direct = options.direct != Direct::Off;
        let (writable, locked, asker) = (options.writable, options.locked, options.asker.clone());
        let file = OpenFile { disk, path, writable, direct, locked, asker };
        let info = file.info();
        let number = self.files.insert(file);
        Ok(Output::File(maker.file(number, options.path.clone(), info)))
    }
}

fn file_of(op: &Op) -> Option<&File> {
    match op {
        Op::Inspect { file }
        | Op::Read { file, .. }
        | Op::Write { file, .. }
        | Op::Flush { file }
        | Op::Seek { file, .. }
        | Op::ZeroRange { file, .. }
        | Op::Discard { file, .. } => Some(file),
        _ => None,
    }
}

fn read(disk: &Disk, offset: u64, buffers: &mut Buffers, gathered: &mut Vec<u8>) -> io::Result<Output> {
    let before_end = disk.options().size.saturating_sub(offset);
    let length = (buffers.len() as u64).min(before_end) as usize;
    if length == 0 {
        return Ok(Output::Bytes(0));
    }
    if let Buffers::One(buffer) = buffers {
        disk.read(offset, &mut buffer[..length])?;
        return Ok(Output::Bytes(length));
    }
    gathered.resize(length, 0);
    disk.read(offset, gathered)?;
    let mut rest = &gathered[..];
    for slice in buffers.iter_mut() {
        let (now, later) = rest.split_at(slice.len().min(rest.len()));
        slice[..now.len()].copy_from_slice(now);
        rest = later;
    }
    Ok(Output::Bytes(length))
}

fn write(
    disk: &Disk,
    offset: u64,
    buffers: &Buffers,
    gathered: &mut Vec<u8>,
) -> io::Result<super::disk::InCache> {
    if let Buffers::One(buffer) = buffers {
        return disk.apply_write(offset, buffer);
    }
    gathered.clear();
    buffers.iter().for_each(|slice| gathered.extend_from_slice(slice));
    disk.apply_write(offset, gathered)
}
