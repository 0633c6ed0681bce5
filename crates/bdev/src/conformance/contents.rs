//! Rules about the contents of blocks.

use spindle_block::{IoErrorKind, Operation};
use spindle_mem::IoBuf;
use spindle_reactor::Thread;

use super::subject::{BLOCKS, Held, Subject, failed};
use super::unlike;
use crate::{Bdev, LocalFuture};

/// First blocks and counts: the first block, the last, some, and all that are used.
fn ranges(subject: &Subject) -> [(u64, u64); 5] {
    let last = subject.geometry().blocks() - 1;
    [(0, 1), (last, 1), (3, 5), (last - 7, 8), (0, BLOCKS)]
}

pub(super) fn keeps_what_was_written(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        for (number, (start, blocks)) in ranges(subject).into_iter().enumerate() {
            let seed = number as u8 + 1;
            subject.write(start, blocks, seed).await?;
            subject.expect(start, &subject.pattern(start, blocks, seed)).await?;
        }
        // Written with FUA in parts that are not whole blocks, and read in other parts.
        let pattern = subject.pattern(8, 4, 99);
        let cut = |at: [usize; 2]| {
            let parts = [&pattern[..at[0]], &pattern[at[0]..at[1]], &pattern[at[1]..]];
            parts.map(IoBuf::copy_from).into_iter().collect::<Vec<IoBuf>>()
        };
        let (written, _) = subject.channel.write(subject.at(8), cut([100, 612])).fua().await;
        written.map_err(|error| error.to_string())?;
        let parts: Vec<IoBuf> = [512, 36, pattern.len() - 548].map(IoBuf::zeroed).into_iter().collect();
        let (read, data) = subject.channel.read(subject.at(8), parts).await;
        read.map_err(|error| error.to_string())?;
        subject.same(8, &pattern, &data)?;
        subject.channel.flush().await.map_err(|error| error.to_string())?;
        subject.expect(8, &pattern).await
    })
}

pub(super) fn zeroes(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        for operation in [Operation::WriteZeroes, Operation::Unmap] {
            if !subject.channel.device().supports(operation) {
                continue;
            }
            for count in subject.counts(operation) {
                zeroes_blocks(subject, operation, count).await?;
            }
        }
        Ok(())
    })
}

/// Zeroes or unmaps so many blocks from block 4 on, with four more before and behind.
async fn zeroes_blocks(subject: &Subject, operation: Operation, count: u64) -> Held {
    let (channel, end) = (&subject.channel, 4 + count);
    subject.write(0, end + 4, 11).await?;
    let (at, len) = (subject.at(4), subject.at(count));
    let done = match operation {
        Operation::Unmap => channel.unmap(at, len).await,
        _ => channel.write_zeroes(at, len).await,
    };
    done.map_err(|error| format!("a {operation} of {count} blocks: {error}"))?;
    subject.expect(0, &subject.pattern(0, 4, 11)).await?;
    subject.expect(end, &subject.pattern(end, 4, 11)).await?;
    match operation == Operation::WriteZeroes || subject.geometry().unmap_reads_zero() {
        true => subject.expect(4, &vec![0; subject.bytes(count)]).await,
        false => Ok(()),
    }
}

pub(super) fn compares(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        if !subject.channel.device().supports(Operation::Compare) || !subject.keeps {
            return Ok(());
        }
        subject.write(2, 4, 21).await?;
        let mut data = subject.pattern(2, 4, 21);
        let (same, _) = subject.channel.compare(subject.at(2), IoBuf::copy_from(&data)).await;
        same.map_err(|error| error.to_string())?;
        let at = subject.bytes(3) - 7;
        data[at] ^= 1;
        let (differs, _) = subject.channel.compare(subject.at(2), IoBuf::copy_from(&data)).await;
        let wanted = IoErrorKind::Miscompare { offset: at as u32 };
        match failed("a comparison with other data", differs)? {
            kind if kind == wanted => {}
            kind => return Err(unlike("a comparison", kind, wanted)),
        }
        subject.expect(2, &subject.pattern(2, 4, 21)).await
    })
}

pub(super) fn copies(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        if !subject.channel.device().supports(Operation::Copy) {
            return Ok(());
        }
        for count in subject.counts(Operation::Copy) {
            // From block 2 on to behind the last block that is copied.
            let to = 2 + count + 10;
            subject.write(0, to + count + 4, 31).await?;
            let copy = subject.channel.copy(subject.at(to), subject.at(2), subject.at(count));
            copy.await.map_err(|error| format!("a copy of {count} blocks: {error}"))?;
            let around = |from, blocks| subject.pattern(from, blocks, 31);
            let expected = [around(0, to), around(2, count), around(to + count, 4)].concat();
            subject.expect(0, &expected).await?;
        }
        Ok(())
    })
}

pub(super) fn shares_between_threads(subject: &Subject) -> LocalFuture<'_, Held> {
    Box::pin(async move {
        let other = Thread::create("conformance", "[0-1023]").map_err(|error| error.to_string())?;
        subject.write(0, 8, 41).await?;
        let (name, theirs) = (subject.bdev.name().to_owned(), subject.pattern(0, 8, 41));
        let ours = subject.pattern(8, 8, 42);
        let (keeps, data, at) = (subject.keeps, ours.clone(), subject.at(8));
        let there = async move || {
            let desc = Bdev::open(&name).map_err(|error| error.to_string())?;
            let channel = desc.channel().map_err(|error| error.to_string())?;
            let (read, found) = channel.read(0, IoBuf::zeroed(theirs.len())).await;
            read.map_err(|error| error.to_string())?;
            if keeps && found.to_vec() != theirs {
                return Err("the second thread reads something else".to_owned());
            }
            channel.write(at, IoBuf::copy_from(&data)).await.0.map_err(|error| error.to_string())
        };
        let done = other.run(there).await.unwrap_or_else(|error| Err(error.to_string()));
        other.exit();
        done?;
        subject.expect(8, &ours).await
    })
}
