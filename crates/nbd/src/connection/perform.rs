//! One request, from its header to its reply.
//!
//! Runs as a future in one of the connection's [slots](super::slots). Requests that do not match the device's
//! blocks are served by reading and writing the blocks around them.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use spindle_block::{IoError, IoErrorKind};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::yield_now;

use super::session::Session;
use super::{Stop, buffer};
use crate::codec::{Command, Context, ErrorCode, MAX_EXTENTS, reply};
use crate::extents::{allocation, for_reply};
use crate::{Content, Extent};

/// Zeroes written at a time if they must be written as data.
const ZEROES: u64 = 1 << 20;

/// Bytes read or written at a time: a memory disk holds the thread while it copies them.
const STEP: usize = 4 << 20;

/// A checked request.
pub(crate) struct Work {
    pub(crate) cookie: u64,
    pub(crate) command: Command,
    /// The data of a write.
    pub(crate) payload: Option<IoBuf>,
    /// Bytes counted for it until its reply was sent.
    pub(crate) cost: usize,
}

/// A finished request.
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) cost: usize,
    pub(crate) body: Result<Body, Failure>,
}

/// The contents of a reply besides success.
pub(crate) enum Body {
    Nothing,
    Data {
        offset: u64,
        data: IoBuf,
    },
    /// The complete reply.
    Status(Vec<u8>),
}

/// Why a request failed.
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        Failure { code: ErrorCode::of_device(error.kind), text: error.to_string() }
    }
}

impl Failure {
    /// The failure for a client of an export that stays: something below its volume was removed or reset. Told that the
    /// server shuts down, the client would disconnect.
    fn of_staying(self) -> Failure {
        match self.code {
            ErrorCode::ShuttingDown => Failure { code: ErrorCode::Io, ..self },
            _ => self,
        }
    }
}

/// Carries out a request.
pub(crate) async fn perform(session: Rc<Session>, work: Work) -> Reply {
    let (cookie, cost) = (work.cookie, work.cost);
    let body = unless_given_up(&session, session.outcome_of(work)).await;
    let body = match session.control.told() {
        Stop::No => body.map_err(Failure::of_staying),
        Stop::Gently | Stop::AtOnce => body,
    };
    Reply { cookie, cost, body }
}

type Outcome = Result<Body, Failure>;

/// The outcome of a request, or that the device keeps it and it was given up. It is dropped then; blocks that the device may
/// still change are kept from other writes.
async fn unless_given_up(session: &Session, request: impl Future<Output = Outcome>) -> Outcome {
    let mut request = pin!(request);
    poll_fn(|cx| match request.as_mut().poll(cx) {
        Poll::Pending if session.has_given_up() => {
            let text = "the export is going away, and its device has not ended the request".to_owned();
            Poll::Ready(Err(Failure { code: ErrorCode::ShuttingDown, text }))
        }
        polled => polled,
    })
    .await
}

impl Session {
    async fn outcome_of(&self, work: Work) -> Outcome {
        let Work { cookie, command, payload, .. } = work;
        match command {
            Command::Read { offset, len } => self.read(offset, len).await,
            Command::Write { len: 0, fua, .. } => self.persist(fua).await,
            Command::Write { offset, fua, .. } => match payload {
                Some(payload) => self.write(offset, payload, fua).await,
                None => Ok(Body::Nothing),
            },
            // Read-ahead would gain nothing over the caches of the layers below.
            Command::Cache { .. } | Command::Disconnect => Ok(Body::Nothing),
            Command::Flush => self.flush().await,
            Command::Trim { offset, len, fua } => self.trim(offset, len, fua).await,
            Command::WriteZeroes { offset, len, fua, no_hole, fast } => {
                self.write_zeroes(offset, len, fua, no_hole, fast).await
            }
            Command::BlockStatus { offset, len, one } => self.status(cookie, offset, len, one).await,
        }
    }
}

impl Session {
    fn block(&self) -> u64 {
        u64::from(self.geometry.block_size())
    }

    /// The bytes of all blocks that a range touches.
    fn around(&self, offset: u64, len: u64) -> Range<u64> {
        let block = self.block();
        offset / block * block..(offset + len).next_multiple_of(block)
    }

    fn blocks(&self, bytes: &Range<u64>) -> Range<u64> {
        bytes.start / self.block()..bytes.end.div_ceil(self.block())
    }

    async fn read_bytes(&self, offset: u64, len: usize) -> Result<IoBuf, IoError> {
        let mut data: Option<IoBuf> = None;
        let mut rest = buffer(&self.pool, len);
        let mut at = offset;
        loop {
            let part = rest.split_to(rest.len().min(STEP));
            let step = part.len() as u64;
            let (result, part) = self.channel.read(at, part).await;
            result?;
            let part = part.into_one().expect("a request gives back the buffer it was given");
            let whole = match data {
                Some(before) => before.join(part).expect("parts of one buffer touch"),
                None => part,
            };
            if rest.is_empty() {
                return Ok(whole);
            }
            data = Some(whole);
            at += step;
            yield_now().await;
        }
    }

    async fn read(&self, offset: u64, len: u32) -> Outcome {
        if len == 0 {
            return Ok(Body::Data { offset, data: IoBuf::zeroed(0) });
        }
        let around = self.around(offset, u64::from(len));
        let mut data = self.read_bytes(around.start, (around.end - around.start) as usize).await?;
        drop(data.split_to((offset - around.start) as usize));
        data.truncate(len as usize);
        Ok(Body::Data { offset, data })
    }

    /// True if a range consists of whole blocks.
    fn is_whole(&self, offset: u64, len: u64) -> bool {
        (offset | len) & (self.block() - 1) == 0
    }

    async fn write(&self, offset: u64, payload: IoBuf, fua: bool) -> Outcome {
        let len = payload.len() as u64;
        self.dirty.set(true);
        let around = self.around(offset, len);
        if self.is_whole(offset, len) {
            let _permit = self.writer.whole(self.blocks(&around)).await;
            self.write_bytes(offset, payload, fua).await?;
        } else {
            let _permit = self.writer.parts(self.blocks(&around)).await;
            self.write_parts(offset, &payload, fua).await?;
        }
        Ok(Body::Nothing)
    }

    async fn write_bytes(&self, mut offset: u64, mut data: IoBuf, fua: bool) -> Result<(), IoError> {
        loop {
            let part = data.split_to(data.len().min(STEP));
            let step = part.len() as u64;
            let write = self.channel.write(offset, part);
            let (result, _buffers) = if fua { write.fua().await } else { write.await };
            result?;
            if data.is_empty() {
                return Ok(());
            }
            offset += step;
            yield_now().await;
        }
    }

    /// Writes a range that is not whole blocks, excluding other writes of these blocks.
    async fn write_parts(&self, offset: u64, bytes: &[u8], fua: bool) -> Result<(), IoError> {
        let (block, end) = (self.block(), offset + bytes.len() as u64);
        let around = self.around(offset, bytes.len() as u64);
        let mut whole = buffer(&self.pool, (around.end - around.start) as usize);
        let mut edges = [(!offset.is_multiple_of(block)).then_some(around.start), None];
        // The last block, unless it is the first.
        if !end.is_multiple_of(block) && edges[0].is_none_or(|first| first + block < around.end) {
            edges[1] = Some(around.end - block);
        }
        for edge in edges.into_iter().flatten() {
            let old = self.read_bytes(edge, block as usize).await?;
            let at = (edge - around.start) as usize;
            whole[at..at + old.len()].copy_from_slice(&old);
        }
        let at = (offset - around.start) as usize;
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        self.write_bytes(around.start, whole, fua).await
    }

    async fn flush(&self) -> Outcome {
        // Cleared first: the flush may not cover writes made meanwhile.
        let dirty = self.dirty.replace(false);
        if self.rules.read_only {
            return Ok(Body::Nothing);
        }
        if let Err(error) = self.channel.flush().await {
            self.dirty.set(dirty || self.dirty.get());
            return Err(error.into());
        }
        Ok(Body::Nothing)
    }

    /// Flushes if `fua` is set.
    async fn persist(&self, fua: bool) -> Outcome {
        if fua {
            self.channel.flush().await?;
        }
        Ok(Body::Nothing)
    }

    async fn trim(&self, offset: u64, len: u32, fua: bool) -> Outcome {
        let block = self.block();
        // A hint: blocks that are only touched stay as they are.
        let start = offset.next_multiple_of(block);
        let end = (offset + u64::from(len)) / block * block;
        if start < end {
            self.dirty.set(true);
            let _permit = self.writer.whole(self.blocks(&(start..end))).await;
            match self.channel.unmap(start, end - start).await {
                Err(error) if error.kind == IoErrorKind::Unsupported => {}
                result => result?,
            }
        }
        self.persist(fua).await
    }

    async fn write_zeroes(&self, offset: u64, len: u32, fua: bool, no_hole: bool, fast: bool) -> Outcome {
        let len = u64::from(len);
        // A disk that reports holes may leave some; written as data, zeroes take as long as any.
        let as_data = no_hole && self.exported.export.extents.is_some();
        if as_data && fast {
            let text = "zeroes without holes take as long as data here".to_owned();
            return Err(Failure { code: ErrorCode::NotSupported, text });
        }
        if len == 0 {
            return self.persist(fua).await;
        }
        self.dirty.set(true);
        let (block, end) = (self.block(), offset + len);
        let around = self.around(offset, len);
        let whole = self.is_whole(offset, len);
        let _permit = match whole {
            true => self.writer.whole(self.blocks(&around)).await,
            false => self.writer.parts(self.blocks(&around)).await,
        };
        let (first, last) = (offset.next_multiple_of(block), end / block * block);
        if first > last {
            // Inside one block.
            self.write_parts(offset, &vec![0; len as usize], false).await?;
        } else {
            if offset < first {
                self.write_parts(offset, &vec![0; (first - offset) as usize], false).await?;
            }
            if last < end {
                self.write_parts(last, &vec![0; (end - last) as usize], false).await?;
            }
            if first < last {
                self.zero_blocks(first, last - first, as_data).await?;
            }
        }
        self.persist(fua).await
    }

    async fn zero_blocks(&self, offset: u64, len: u64, as_data: bool) -> Result<(), IoError> {
        if !as_data {
            return self.channel.write_zeroes(offset, len).await;
        }
        let mut zeroes = Buffers::None;
        let mut done = 0;
        while done < len {
            let now = (len - done).min(ZEROES) as usize;
            if zeroes.len() != now {
                zeroes = Buffers::One(IoBuf::zeroed(now));
            }
            let (result, buffers) = self.channel.write(offset + done, zeroes).await;
            result?;
            zeroes = buffers;
            done += now as u64;
        }
        Ok(())
    }

    async fn status(&self, cookie: u64, offset: u64, len: u32, one: bool) -> Outcome {
        let extents = match &self.exported.export.extents {
            Some(extents) => extents
                .extents(offset, u64::from(len), MAX_EXTENTS)
                .await
                .map_err(|kind| Failure { code: ErrorCode::of_device(kind), text: kind.to_string() })?,
            None => vec![Extent { len: u64::from(len), content: Content::Data, depth: 1 }],
        };
        // A volume that cannot report is treated as data, which is always safe.
        let unknown = [Extent { len: u64::from(len), content: Content::Data, depth: 1 }];
        let extents = if extents.iter().all(|extent| extent.len == 0) { &unknown[..] } else { &extents };
        let extents = &extents[..extents.len().min(MAX_EXTENTS)];
        let mut out = Vec::new();
        let mut left = self.rules.contexts.iter().count();
        for context in self.rules.contexts.iter() {
            left -= 1;
            let runs = for_reply(extents, len, one, |extent| match context {
                Context::Allocation => allocation(extent.content),
                Context::Depth => extent.depth,
            });
            reply::status(&mut out, cookie, context, runs.into_iter(), left == 0);
        }
        Ok(Body::Status(out))
    }
}
