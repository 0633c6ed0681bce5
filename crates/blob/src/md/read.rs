//! Reads a store's metadata: large reads, many in flight, each buffer reused.
//!
//! Runs on the metadata thread, before there is a store. Results are processed a turn at a time, so that
//! other work of the reactor goes on beside a long load. Dropping the future cancels the load.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use spindle_block::Channel;
use spindle_format::{ByteRange, Loader};
use spindle_mem::IoBuf;

/// Bytes of the largest read: large for a disk, and small enough to stay in the core's cache.
pub(super) const LARGEST_READ: usize = 256 << 10;

/// Reads in flight.
const READS: usize = 32;

/// Reads processed during one turn of the reactor.
const READS_IN_A_TURN: usize = 4;

/// A finished read, with its buffer if the device gave it back whole.
struct Done {
    range: ByteRange,
    well: bool,
    buffer: Option<IoBuf>,
}

type Flying<'a> = Pin<Box<dyn Future<Output = Done> + 'a>>;

/// Reads what the loader asks for until it asks for no more. `progress` is called after every turn in which
/// data came.
pub(super) async fn read(loader: &mut Loader, channel: &Channel, mut progress: impl FnMut(&Loader)) {
    let mut flying: Vec<Flying<'_>> = Vec::with_capacity(READS);
    let mut idle: Vec<IoBuf> = Vec::with_capacity(READS);
    poll_fn(|cx| {
        let mut taken = 0;
        let mut at = 0;
        while at < flying.len() && taken < READS_IN_A_TURN {
            match take(flying[at].as_mut(), cx, loader, &mut idle) {
                Poll::Ready(()) => {
                    drop(flying.swap_remove(at));
                    taken += 1;
                }
                Poll::Pending => at += 1,
            }
        }
        // The most recently used buffer first: its bytes are still in the cache.
        while taken < READS_IN_A_TURN
            && flying.len() < READS
            && let Some(range) = loader.next_read()
        {
            let buffer = idle.pop().filter(|buffer| buffer.len() >= range.len);
            let mut read: Flying<'_> = Box::pin(read_range(channel, range, buffer));
            match take(read.as_mut(), cx, loader, &mut idle) {
                Poll::Ready(()) => taken += 1,
                Poll::Pending => flying.push(read),
            }
        }
        if taken > 0 {
            progress(loader);
        }
        match taken == READS_IN_A_TURN {
            true => cx.waker().wake_by_ref(),
            false if flying.is_empty() => return Poll::Ready(()),
            false => {}
        }
        Poll::Pending
    })
    .await;
}

/// Hands a finished read to the loader, and its buffer to the idle ones.
fn take(
    read: Pin<&mut dyn Future<Output = Done>>,
    cx: &mut Context<'_>,
    loader: &mut Loader,
    idle: &mut Vec<IoBuf>,
) -> Poll<()> {
    read.poll(cx).map(|Done { range, well, buffer }| {
        match buffer.as_deref() {
            Some(bytes) if well => loader.supply(range, &bytes[..range.len.min(bytes.len())]),
            _ => loader.read_failed(range),
        }
        idle.extend(buffer);
    })
}

/// Reads a range; what the device has lost of its end reads zero if some of the range is there.
async fn read_range(channel: &Channel, range: ByteRange, buffer: Option<IoBuf>) -> Done {
    let mut wanted = buffer.unwrap_or_else(|| IoBuf::zeroed(range.len.max(LARGEST_READ)));
    let left = channel.geometry().bytes().saturating_sub(range.offset);
    let there = if left == 0 { range.len } else { range.len.min(left as usize) };
    wanted[there..range.len].fill(0);
    let rest = wanted.split_off(there);
    let (result, buffers) = channel.read(range.offset, wanted).await;
    let whole = buffers.into_one().ok().and_then(|read| read.join(rest).ok());
    Done { range, well: result.is_ok(), buffer: whole }
}
