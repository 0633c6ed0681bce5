//! Rules about the end of requests.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use spindle_block::{IoErrorKind, Operation, QueuePair};
use spindle_mem::{Buffers, IoBuf};

use super::subject::{BLOCKS, Held, Subject, failed};
use super::unlike;
use crate::LocalFuture;

/// Requests in flight at once.
const MANY: u64 = 256;

/// Requests that wait when the bdev is removed.
const QUEUED: u64 = 1024;

pub(super) fn sizes_agree(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let (shown, is) = (subject.bdev.num_blocks(), subject.geometry().blocks());
        if shown != is {
            return Err(format!("it shows {shown} blocks and has {is}"));
        }
        if is < BLOCKS {
            return Err(format!("it has {is} blocks; make one of {BLOCKS} or more"));
        }
        match subject.bdev.io_types().contains(crate::IoType::Read) {
            true => Ok(()),
            false => Err("it cannot be read".to_owned()),
        }
    })
}

pub(super) fn refuses_what_it_does_not_have(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let (channel, end) = (&subject.channel, subject.geometry().bytes());
        let block = subject.bytes(1);
        let cases = [
            (end, block, IoErrorKind::OutOfRange),
            (end - block as u64, 2 * block, IoErrorKind::OutOfRange),
            (!(block as u64 - 1), block, IoErrorKind::OutOfRange),
            (1, block, IoErrorKind::Unaligned),
            (0, block + 1, IoErrorKind::Unaligned),
        ];
        for (offset, len, wanted) in cases {
            let what = format!("a request of {len} bytes at {offset}");
            let (read, _) = channel.read(offset, IoBuf::zeroed(len)).await;
            let (written, _) = channel.write(offset, IoBuf::zeroed(len)).await;
            for found in [failed(&what, read)?, failed(&what, written)?] {
                if found != wanted {
                    return Err(unlike(what, found, wanted));
                }
            }
        }
        Ok(())
    })
}

pub(super) fn answers_every_operation(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let mut pair = pair(subject)?;
        for operation in Operation::ALL {
            let blocks = match operation {
                Operation::Flush | Operation::Reset | Operation::SeekData | Operation::SeekHole => 0,
                _ => 2,
            };
            let share = if operation == Operation::CompareAndWrite { 2 } else { 1 };
            let buffers: Buffers = match operation.moves_data() {
                true => IoBuf::zeroed(subject.bytes(blocks * share)).into(),
                false => Buffers::None,
            };
            let len = buffers.len();
            let io = pair.request(operation, 0, blocks, buffers);
            pair.submit(io);
            let mut ended = Vec::new();
            while pair.outstanding() > 0 {
                pair.wait().await;
                pair.reap(|io, status| ended.push((io, status)));
            }
            let [(io, status)] = ended.as_slice() else {
                return Err(format!("a {operation} ended {} times", ended.len()));
            };
            if io.buffers().len() != len {
                return Err(format!("a {operation} came back with {} bytes of {len}", io.buffers().len()));
            }
            let supported = subject.channel.device().supports(operation);
            let differs = matches!(status, Err(IoErrorKind::Miscompare { .. }));
            if supported && status.is_err() && !differs {
                return Err(format!("a {operation}, which it supports, ended as {status:?}"));
            }
        }
        Ok(())
    })
}

fn pair(subject: &Subject) -> Result<QueuePair, String> {
    subject.desc.queue_pair().map_err(|error| error.to_string())
}

pub(super) fn ends_each_of_many_once(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        subject.write(0, BLOCKS, 51).await?;
        let mut pair = pair(subject)?;
        for tag in 0..MANY {
            let mut io = pair.request(Operation::Read, tag % BLOCKS, 1, IoBuf::zeroed(subject.bytes(1)));
            io.set_tag(tag);
            pair.submit(io);
        }
        let (mut seen, mut wrong) = (vec![0_u32; MANY as usize], Ok(()));
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(|io, status| {
                seen[io.tag() as usize] += 1;
                let start = io.tag() % BLOCKS;
                let right = match status {
                    Ok(()) => subject.same(start, &subject.pattern(start, 1, 51), io.buffers()),
                    Err(kind) => Err(unlike("a read", kind, "success")),
                };
                wrong = std::mem::replace(&mut wrong, Ok(())).and(right);
            });
        }
        match seen.iter().position(|times| *times != 1) {
            Some(tag) => Err(format!("request {tag} ended {} times", seen[tag])),
            None => wrong,
        }
    })
}

pub(super) fn freezes_and_goes_on(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let device = subject.channel.device().clone();
        let Some(state) = device.state() else {
            return Err("its device has no DeviceState, so that it can be neither frozen nor removed".into());
        };
        subject.write(0, 1, 61).await?;
        let frozen = state.freeze().await;
        let mut read = pin!(subject.channel.read(0, IoBuf::zeroed(subject.bytes(1))));
        for _ in 0..16 {
            let ended = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_ready())).await;
            if ended {
                return Err("a read ended while it was frozen".to_owned());
            }
            spindle_reactor::yield_now().await;
        }
        drop(frozen);
        let (result, data) = read.await;
        result.map_err(|error| error.to_string())?;
        subject.same(0, &subject.pattern(0, 1, 61), &data)
    })
}

pub(super) fn survives_aborts(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let mut pair = pair(subject)?;
        for start in 0..BLOCKS {
            let data = IoBuf::copy_from(&subject.pattern(start, 1, 71));
            let io = pair.request(Operation::Write, start, 1, data);
            let id = io.id();
            pair.submit(io);
            if start % 3 == 0 {
                pair.abort(id);
            }
        }
        let mut wrong = None;
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(|io, status| match status {
                Err(IoErrorKind::Aborted) if io.start() % 3 == 0 => {}
                Ok(()) => {}
                Err(kind) => wrong = Some(unlike("a write", kind, "success")),
            });
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        for start in 0..8 {
            // Dropped after it was submitted.
            let old = IoBuf::copy_from(&subject.pattern(start, 1, 72));
            let mut given_up = Box::pin(subject.channel.write(subject.at(start), old));
            let _ = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
            drop(given_up);
            subject.write(start, 1, 73).await?;
            subject.expect(start, &subject.pattern(start, 1, 73)).await?;
        }
        reset(subject).await?;
        subject.expect(0, &subject.pattern(0, 8, 73)).await
    })
}

/// Verifies that a reset succeeds, whether the device has anything to reset or not.
async fn reset(subject: &Subject) -> Held {
    subject.channel.reset().await.map_err(|error| error.to_string())
}

pub(super) fn goes_under_load(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let registry = subject.bdev.registry().map_err(|error| error.to_string())?;
        let mut pair = pair(subject)?;
        for tag in 0..QUEUED {
            let operation = if tag % 2 == 0 { Operation::Read } else { Operation::Write };
            let io = pair.request(operation, tag % BLOCKS, 1, IoBuf::zeroed(subject.bytes(1)));
            pair.submit(io);
        }
        registry.unregister(&subject.bdev).await.map_err(|error| error.to_string())?;
        let (mut ended, mut wrong) = (0, None);
        while pair.outstanding() > 0 {
            pair.wait().await;
            ended += pair.reap(|_, status| match status {
                Ok(()) | Err(IoErrorKind::Removed | IoErrorKind::Aborted) => {}
                Err(kind) => wrong = Some(unlike("a request under way", kind, "success or Removed")),
            });
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if ended as u64 != QUEUED {
            return Err(format!("{ended} of {QUEUED} requests ended"));
        }
        if registry.get(subject.bdev.name()).is_ok() {
            return Err("its name is still there".to_owned());
        }
        let (read, _) = subject.channel.read(0, IoBuf::zeroed(subject.bytes(1))).await;
        match failed("a read of a bdev that is gone", read)? {
            IoErrorKind::Removed => Ok(()),
            other => Err(unlike("a read of a bdev that is gone", other, IoErrorKind::Removed)),
        }
    })
}
