//! Load for measuring: the same pattern of requests without futures, with futures, and as a bare copy
//! loop, so that one run can compare the three.
//!
//! A load belongs to its thread and keeps its requests and buffers from round to round; a warm round
//! allocates nothing per request. A round without futures on a device that completes at once does not yield the
//! thread: keep rounds short. The caller reads the clock around a round.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use spindle_mem::{Buffers, IoBuf, SharedMem};

pub use crate::top::load_layers::{Empty, InPieces};
use crate::{Channel, Device, Geometry, Io, IoErrorKind, OpenError, Operation, QueuePair, Status, Transfer};

/// Which blocks to touch: seeded, so that two loads can touch the same.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    blocks: u64,
    places: u64,
    state: u64,
    random: bool,
}

impl Pattern {
    /// Requests of `bytes` bytes at random places of the device, aligned to their own size.
    ///
    /// # Errors
    /// [`Unaligned`](IoErrorKind::Unaligned) if that is no whole number of blocks,
    /// [`OutOfRange`](IoErrorKind::OutOfRange) if it is more than the device.
    pub fn random(geometry: &Geometry, bytes: u64, seed: u64) -> Result<Pattern, IoErrorKind> {
        let blocks = bytes >> geometry.block_shift();
        if blocks == 0 || blocks << geometry.block_shift() != bytes {
            return Err(IoErrorKind::Unaligned);
        }
        match geometry.blocks() / blocks {
            0 => Err(IoErrorKind::OutOfRange),
            places => Ok(Pattern { blocks, places, state: seed, random: true }),
        }
    }

    /// The same in ascending order, starting over at the end.
    ///
    /// # Errors
    /// As [`random`](Self::random).
    pub fn sequential(geometry: &Geometry, bytes: u64) -> Result<Pattern, IoErrorKind> {
        Pattern::random(geometry, bytes, 0).map(|pattern| Pattern { random: false, ..pattern })
    }

    /// Blocks in each request.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// First block of the next request.
    #[inline]
    pub fn next_start(&mut self) -> u64 {
        let place = if self.random {
            // A linear congruential step, its high bits scaled to the range: no division.
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((u128::from(self.state) * u128::from(self.places)) >> 64) as u64
        } else {
            let place = self.state;
            self.state = if place + 1 == self.places { 0 } else { place + 1 };
            place
        };
        place * self.blocks
    }
}

/// A load by queue pair: no futures, a given number of requests in flight.
pub struct PairLoad {
    pair: QueuePair,
    idle: Vec<Io>,
    pattern: Pattern,
}

impl PairLoad {
    /// `depth` reads or writes in flight, placed by `pattern`, with a buffer each.
    pub fn new(mut pair: QueuePair, operation: Operation, depth: usize, pattern: Pattern) -> PairLoad {
        let bytes = (pattern.blocks << pair.geometry().block_shift()) as usize;
        let buffers = || match operation.moves_data() {
            true => IoBuf::zeroed(bytes).into(),
            false => Buffers::None,
        };
        let idle = (0..depth.max(1)).map(|_| pair.request(operation, 0, pattern.blocks, buffers())).collect();
        PairLoad { pair, idle, pattern }
    }

    /// The same with a list of `parts` buffers for each request; each holds whole blocks.
    pub fn vectored(
        mut pair: QueuePair,
        operation: Operation,
        depth: usize,
        pattern: Pattern,
        parts: u64,
    ) -> PairLoad {
        let shift = pair.geometry().block_shift();
        let list = || -> Buffers {
            let ends: Vec<u64> = (0..=parts).map(|part| pattern.blocks * part / parts.max(1)).collect();
            let part = |ends: &[u64]| IoBuf::zeroed(((ends[1] - ends[0]) << shift) as usize);
            ends.windows(2).map(part).collect::<Vec<IoBuf>>().into()
        };
        let idle = (0..depth.max(1)).map(|_| pair.request(operation, 0, pattern.blocks, list())).collect();
        PairLoad { pair, idle, pattern }
    }

    /// Makes `requests` requests, and returns when all are done. A dropped future detaches those in flight
    /// and makes the load useless.
    ///
    /// # Errors
    /// The first error of any request; the others end normally.
    pub async fn round(&mut self, requests: u64) -> Status {
        let mut left = requests;
        let mut result = Ok(());
        let fresh = self.idle.len().min(usize::try_from(requests).unwrap_or(usize::MAX));
        for mut io in self.idle.drain(self.idle.len() - fresh..) {
            io.set_start(self.pattern.next_start());
            self.pair.submit(io);
            left -= 1;
        }
        while self.pair.outstanding() > 0 {
            self.pair.wait().await;
            self.pair.cycle(|mut io, status| {
                result = result.and(status);
                if left == 0 {
                    self.idle.push(io);
                    return None;
                }
                left -= 1;
                io.set_start(self.pattern.next_start());
                Some(io)
            });
        }
        result
    }
}

/// A load by channel: a future for each request, a given number in flight.
pub struct ChannelLoad {
    channel: Channel,
    operation: Operation,
    idle: Vec<Buffers>,
    pattern: Pattern,
}

impl ChannelLoad {
    /// `depth` reads or writes in flight, placed by `pattern`. Any operation but a write reads.
    pub fn new(channel: Channel, operation: Operation, depth: usize, pattern: Pattern) -> ChannelLoad {
        let bytes = (pattern.blocks << channel.geometry().block_shift()) as usize;
        let idle = (0..depth.max(1)).map(|_| IoBuf::zeroed(bytes).into()).collect();
        ChannelLoad { channel, operation, idle, pattern }
    }

    /// Makes `requests` requests, and returns when all are done. A dropped future detaches those in flight
    /// and lessens the depth by them.
    ///
    /// # Errors
    /// The first error of any request; the others end normally.
    pub async fn round(&mut self, requests: u64) -> Status {
        let ChannelLoad { channel, operation, idle, pattern } = self;
        let shift = channel.geometry().block_shift();
        let mut next = |buffers: Buffers| -> Transfer<'_> {
            let offset = pattern.next_start() << shift;
            if *operation == Operation::Write {
                channel.write(offset, buffers)
            } else {
                channel.read(offset, buffers)
            }
        };
        let mut left = requests;
        let mut result = Ok(());
        let mut flying: Vec<Option<Transfer<'_>>> = Vec::with_capacity(idle.len());
        while left > 0
            && let Some(buffers) = idle.pop()
        {
            flying.push(Some(next(buffers)));
            left -= 1;
        }
        let mut flying_count = flying.len();
        poll_fn(|cx| {
            for place in &mut flying {
                while let Some(transfer) = place {
                    let Poll::Ready((ended, buffers)) = Pin::new(transfer).poll(cx) else { break };
                    result = result.and(ended.map_err(|error| error.kind));
                    if left > 0 {
                        left -= 1;
                        *place = Some(next(buffers));
                    } else {
                        *place = None;
                        flying_count -= 1;
                        idle.push(buffers);
                    }
                }
            }
            if flying_count == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        result
    }
}

/// The cost of the memory alone: copies for `requests` requests of `pattern` between `memory` and `depth`
/// buffers.
///
/// # Panics
/// If the pattern is of a larger device than `memory`.
pub fn bare_copies(
    memory: &SharedMem,
    block_shift: u32,
    operation: Operation,
    buffers: &mut [IoBuf],
    pattern: &mut Pattern,
    requests: u64,
) {
    let mut next = 0;
    for _ in 0..requests {
        let at = (pattern.next_start() << block_shift) as usize;
        let buffer = &mut buffers[next];
        if operation == Operation::Write {
            memory.write(at, buffer)
        } else {
            memory.read(at, buffer)
        }
        next = if next + 1 == buffers.len() { 0 } else { next + 1 };
    }
}

/// The two loads on a device of the current thread, of the same pattern.
///
/// # Errors
/// As [`Channel::open`].
pub fn loads(
    device: &Arc<dyn Device>,
    operation: Operation,
    depth: usize,
    pattern: Pattern,
) -> Result<(PairLoad, ChannelLoad), OpenError> {
    let pair = QueuePair::open(device)?;
    let channel = Channel::open(device.clone())?;
    Ok((PairLoad::new(pair, operation, depth, pattern), ChannelLoad::new(channel, operation, depth, pattern)))
}
