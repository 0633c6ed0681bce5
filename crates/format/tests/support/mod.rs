//! Fixtures without their zeroes, and a driver for the loader.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod builder;
pub mod content;

use spindle_format::{ByteRange, LoadError, LoadOptions, Loader, Store};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK: usize = 64 << 10;

/// An image of which only the chunks that are not all zeroes take memory.
#[derive(Clone, Default)]
pub struct Image {
    pub len: u64,
    chunks: BTreeMap<u64, Box<[u8]>>,
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

impl Image {
    /// A fixture by its path below `tests/fixtures`, without `.img.zst`.
    pub fn fixture(name: &str) -> Image {
        let file = std::fs::File::open(fixtures().join(format!("{name}.img.zst"))).unwrap();
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file)).unwrap();
        let mut image = Image::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let mut filled = 0;
            while filled < CHUNK {
                match decoder.read(&mut chunk[filled..]).unwrap() {
                    0 => break,
                    read => filled += read,
                }
            }
            if filled == 0 {
                return image;
            }
            image.write(image.len, &chunk[..filled]);
            image.len += filled as u64;
        }
    }

    pub fn zeroed(len: u64) -> Image {
        Image { len, chunks: BTreeMap::new() }
    }

    pub fn filled(len: u64, byte: u8) -> Image {
        let mut image = Image::zeroed(len);
        for at in 0..len.div_ceil(CHUNK as u64) {
            image.chunks.insert(at, vec![byte; CHUNK].into());
        }
        image
    }

    /// Writes bytes; chunks stay absent while all that is written into them is zeroes.
    pub fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (chunk, at) = (offset / CHUNK as u64, (offset % CHUNK as u64) as usize);
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - at));
            let present = self.chunks.contains_key(&chunk);
            if present || now.iter().any(|&byte| byte != 0) {
                let chunk = self.chunks.entry(chunk).or_insert_with(|| vec![0; CHUNK].into());
                chunk[at..at + now.len()].copy_from_slice(now);
            }
            offset += now.len() as u64;
            bytes = later;
        }
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_into(offset, &mut bytes);
        bytes
    }

    /// Reads; beyond the end there are zeroes.
    pub fn read_into(&self, offset: u64, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (chunk, inside) = (at / CHUNK as u64, (at % CHUNK as u64) as usize);
            let len = (CHUNK - inside).min(bytes.len() - done);
            let place = &mut bytes[done..done + len];
            match self.chunks.get(&chunk) {
                Some(chunk) => place.copy_from_slice(&chunk[inside..inside + len]),
                None => place.fill(0),
            }
            done += len;
        }
    }

    /// Whether a range that begins and ends at chunks is known to be zeroes.
    pub fn is_hole(&self, offset: u64, len: u64) -> bool {
        let (first, end) = (offset / CHUNK as u64, (offset + len).div_ceil(CHUNK as u64));
        self.chunks.range(first..end).next().is_none()
    }

    pub fn apply(&mut self, change: &spindle_format::Change) {
        use spindle_format::Change;
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Zero { offset, len } | Change::Unmap { offset, len } => self.zero(*offset, *len),
            Change::Flush => {}
        }
    }

    pub fn zero(&mut self, mut offset: u64, mut len: u64) {
        while len > 0 {
            let inside = offset % CHUNK as u64;
            let piece = len.min(CHUNK as u64 - inside);
            if piece == CHUNK as u64 {
                self.chunks.remove(&(offset / CHUNK as u64));
            } else {
                self.write(offset, &vec![0; piece as usize]);
            }
            offset += piece;
            len -= piece;
        }
    }

    /// The first byte in which two images differ.
    pub fn first_difference(&self, other: &Image) -> Option<u64> {
        if self.len != other.len {
            return Some(self.len.min(other.len));
        }
        (0..self.len.div_ceil(CHUNK as u64)).find_map(|chunk| {
            let at = chunk * CHUNK as u64;
            if self.is_hole(at, CHUNK as u64) && other.is_hole(at, CHUNK as u64) {
                return None;
            }
            let (a, b) = (self.read(at, CHUNK), other.read(at, CHUNK));
            a.iter().zip(&b).position(|(a, b)| a != b).map(|inside| at + inside as u64)
        })
    }

    pub fn load(&self) -> Result<Store, LoadError> {
        self.load_with(LoadOptions::default())
    }

    /// Loads with several reads in flight, answered last first.
    pub fn load_with(&self, options: LoadOptions) -> Result<Store, LoadError> {
        let mut loader = Loader::new(self.len, options);
        let mut in_flight: Vec<ByteRange> = Vec::new();
        loop {
            while in_flight.len() < 4
                && let Some(range) = loader.next_read()
            {
                assert!(range.offset + range.len as u64 <= self.len, "{range:?} lies on the device");
                in_flight.push(range);
            }
            match in_flight.pop() {
                Some(range) => loader.supply(range, &self.read(range.offset, range.len)),
                None => return loader.finish(),
            }
        }
    }
}
