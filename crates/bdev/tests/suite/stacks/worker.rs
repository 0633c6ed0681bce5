//! One user of a bdev: random requests on its own stripe, each answer compared with the model.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use spindle_bdev::{Bdev, BdevError};
use spindle_block::{Channel, Command, IoError, IoErrorKind, Operation, QueuePair, Status, Transfer};
use spindle_mem::{Buffers, IoBuf};

use super::model::{BLOCK, Random, Stripe, filled};

/// What its maker does with a request that is under way.
#[derive(Clone, Copy)]
enum Fate {
    Awaited,
    /// Aborted after so many polls.
    Aborted(u64),
    /// Its future is dropped after so many polls.
    GivenUp(u64),
}

impl Fate {
    fn of(random: &mut Random) -> Fate {
        match random.below(12) {
            0 => Fate::Aborted(random.below(6)),
            1 => Fate::GivenUp(1 + random.below(6)),
            _ => Fate::Awaited,
        }
    }
}

async fn poll_some<F: Future>(mut future: Pin<&mut F>, polls: u64) -> Option<F::Output> {
    for _ in 0..=polls {
        let ended = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)));
        if let Poll::Ready(output) = ended.await {
            return Some(output);
        }
        spindle_reactor::yield_now().await;
    }
    None
}

/// The outcome; none if it was given up.
async fn transfer(transfer: Transfer<'_>, fate: Fate) -> Option<(Result<(), IoError>, Buffers)> {
    let mut transfer = pin!(transfer);
    match fate {
        Fate::Awaited => {}
        Fate::Aborted(polls) => {
            if let Some(ended) = poll_some(transfer.as_mut(), polls).await {
                return Some(ended);
            }
            transfer.abort();
        }
        Fate::GivenUp(polls) => return poll_some(transfer, polls).await,
    }
    Some(transfer.await)
}

async fn command(command: Command<'_>, fate: Fate) -> Option<Result<(), IoError>> {
    let mut command = pin!(command);
    match fate {
        Fate::Awaited => {}
        Fate::Aborted(polls) => {
            if let Some(ended) = poll_some(command.as_mut(), polls).await {
                return Some(ended);
            }
            command.abort();
        }
        Fate::GivenUp(polls) => return poll_some(command, polls).await,
    }
    Some(command.await)
}

/// True if it succeeded. Fails on an error that cannot be.
fn succeeded(status: Status) -> Result<bool, String> {
    match status {
        Ok(()) => Ok(true),
        // Injected, of an abort or a reset, of memory that was not there, of the removal.
        Err(
            IoErrorKind::Device { errno: 5 }
            | IoErrorKind::Aborted
            | IoErrorKind::NoMemory
            | IoErrorKind::Removed,
        ) => Ok(false),
        Err(other) => Err(format!("an error that cannot be: {other:?}")),
    }
}

fn status(result: Result<(), IoError>) -> Status {
    result.map_err(|error| error.kind)
}

/// A worker's hold on the bdev.
pub struct Worker {
    pub stripe: Stripe,
    pub random: Random,
    pub requests: u64,
    /// Requests that succeeded.
    pub succeeded: u64,
}

impl Worker {
    /// Makes its requests; ends early if the bdev is gone. Returns how many succeeded, or what is wrong.
    pub async fn run(mut self, bdev: Bdev) -> Result<u64, String> {
        self.make_requests(bdev).await?;
        Ok(self.succeeded)
    }

    async fn make_requests(&mut self, bdev: Bdev) -> Result<(), String> {
        while self.requests > 0 {
            let Some(desc) = opened(&bdev)? else { return Ok(()) };
            let channel = desc.channel().map_err(|error| error.to_string())?;
            let mut pair = desc.queue_pair().map_err(|error| error.to_string())?;
            for _ in 0..(1 + self.random.below(40)).min(self.requests) {
                self.requests -= 1;
                match self.random.below(14) {
                    0..3 => self.read(&channel).await?,
                    3..6 => self.write(&channel).await?,
                    6 => self.zeroes(&channel, Operation::WriteZeroes).await?,
                    7 => self.zeroes(&channel, Operation::Unmap).await?,
                    8 => self.compare(&channel).await?,
                    9 | 10 => self.compare_and_write(&channel).await?,
                    11 => self.copy(&channel).await?,
                    12 => self.batch(&mut pair).await?,
                    _ if self.random.below(4) == 0 => {
                        succeeded(status(channel.reset().await))?;
                    }
                    _ => {
                        succeeded(status(channel.flush().await))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn range(&mut self) -> (u64, u64) {
        let block = self.random.below(self.stripe.len());
        (block, 1 + self.random.below((self.stripe.len() - block).min(12)))
    }

    async fn read(&mut self, channel: &Channel) -> Result<(), String> {
        let ((block, count), fate) = (self.range(), Fate::of(&mut self.random));
        let read = channel.read(self.stripe.offset(block), IoBuf::zeroed(count as usize * BLOCK));
        let Some((result, data)) = transfer(read, fate).await else { return Ok(()) };
        if !succeeded(status(result))? {
            return Ok(());
        }
        self.succeeded += 1;
        self.stripe.found(block, &data)
    }

    /// Notes the outcome of a change.
    fn changed(&mut self, block: u64, numbers: &[u64], outcome: Option<Status>) -> Result<(), String> {
        match outcome {
            Some(status) if succeeded(status)? => {
                self.succeeded += 1;
                self.stripe.set(block, numbers);
            }
            other => self.stripe.may(block, numbers, other.is_none()),
        }
        Ok(())
    }

    async fn write(&mut self, channel: &Channel) -> Result<(), String> {
        let ((block, count), fate) = (self.range(), Fate::of(&mut self.random));
        let numbers = self.stripe.fresh(count);
        let write = channel.write(self.stripe.offset(block), filled(&numbers));
        let write = if self.random.below(4) == 0 { write.fua() } else { write };
        let outcome = transfer(write, fate).await.map(|(result, _)| status(result));
        self.changed(block, &numbers, outcome)
    }

    async fn zeroes(&mut self, channel: &Channel, operation: Operation) -> Result<(), String> {
        let ((block, count), fate) = (self.range(), Fate::of(&mut self.random));
        let (offset, bytes) = (self.stripe.offset(block), count * BLOCK as u64);
        let outcome = match operation {
            Operation::Unmap if !channel.device().supports(operation) => return Ok(()),
            Operation::Unmap => command(channel.unmap(offset, bytes), fate).await,
            _ => command(channel.write_zeroes(offset, bytes), fate).await,
        };
        self.changed(block, &vec![0; count as usize], outcome.map(status))
    }

    async fn copy(&mut self, channel: &Channel) -> Result<(), String> {
        let ((from, count), fate) = (self.range(), Fate::of(&mut self.random));
        let to = self.random.below(self.stripe.len() - count + 1);
        let Some(numbers) = self.stripe.known(from, count) else { return Ok(()) };
        // A copy that ended half way over its own source leaves a third state.
        if from.abs_diff(to) < count {
            return Ok(());
        }
        let (to_byte, from_byte) = (self.stripe.offset(to), self.stripe.offset(from));
        let outcome = command(channel.copy(to_byte, from_byte, count * BLOCK as u64), fate).await;
        self.changed(to, &numbers, outcome.map(status))
    }

    /// What to compare with: what is there if `right`.
    fn guess(&mut self, block: u64, count: u64, right: bool) -> Option<Vec<u64>> {
        let mut guess = self.stripe.known(block, count)?;
        if !right {
            let at = self.random.below(count) as usize;
            guess[at] ^= 0xdead << 40;
        }
        Some(guess)
    }

    async fn compare(&mut self, channel: &Channel) -> Result<(), String> {
        let ((block, count), right) = (self.range(), self.random.below(2) == 0);
        let Some(guess) = self.guess(block, count, right) else { return Ok(()) };
        let fate = Fate::of(&mut self.random);
        let compare = channel.compare(self.stripe.offset(block), filled(&guess));
        match (transfer(compare, fate).await.map(|(result, _)| status(result)), right) {
            (None, _) | (Some(Err(IoErrorKind::Miscompare { .. })), false) => Ok(()),
            (Some(Ok(())), false) => Err(format!("a comparison of other data with block {block} succeeded")),
            (Some(status), _) => succeeded(status).map(drop),
        }
    }

    async fn compare_and_write(&mut self, channel: &Channel) -> Result<(), String> {
        let ((block, count), right) = (self.range(), self.random.below(3) > 0);
        let Some(guess) = self.guess(block, count, right) else { return Ok(()) };
        let (fate, numbers) = (Fate::of(&mut self.random), self.stripe.fresh(count));
        let both = filled(&[guess, numbers.clone()].concat());
        let request = channel.compare_and_write(self.stripe.offset(block), both);
        match (transfer(request, fate).await.map(|(result, _)| status(result)), right) {
            (Some(Err(IoErrorKind::Miscompare { .. })), false) => Ok(()),
            (Some(Ok(())), false) => Err(format!("block {block} was written without being equal")),
            (_, false) => Ok(()),
            (outcome, true) => self.changed(block, &numbers, outcome),
        }
    }

    /// Several requests at once by a queue pair; each must come back once.
    async fn batch(&mut self, pair: &mut QueuePair) -> Result<(), String> {
        let count = 1 + self.random.below(self.stripe.len().min(10));
        let mut made = Vec::new();
        for block in 0..count {
            let writes = self.random.below(2) == 0;
            let numbers = if writes { self.stripe.fresh(1) } else { vec![0] };
            let operation = if writes { Operation::Write } else { Operation::Read };
            let mut io = pair.request(operation, self.stripe.start(block), 1, filled(&numbers));
            io.set_tag(block);
            if self.random.below(8) == 0 {
                let id = io.id();
                pair.submit(io);
                pair.abort(id);
            } else {
                pair.submit(io);
            }
            made.push((operation, numbers, 0));
        }
        while pair.outstanding() > 0 {
            pair.wait().await;
            let mut ended = Vec::new();
            pair.reap(|mut io, status| ended.push((io.tag(), status, io.take_buffers())));
            for (block, status, data) in ended {
                let (operation, numbers, times) = &mut made[block as usize];
                *times += 1;
                match *operation {
                    Operation::Write => {
                        let numbers = numbers.clone();
                        self.changed(block, &numbers, Some(status))?;
                    }
                    _ if succeeded(status)? => self.stripe.found(block, &data)?,
                    _ => {}
                }
            }
        }
        match made.iter().all(|(_, _, times)| *times == 1) {
            true => Ok(()),
            false => Err("a request of a queue pair came back not once".to_owned()),
        }
    }
}

/// The open bdev; none if it is gone.
fn opened(bdev: &Bdev) -> Result<Option<spindle_bdev::Desc>, String> {
    match bdev.descriptor(spindle_bdev::DescOptions::new().write(true)) {
        Ok(desc) => Ok(Some(desc)),
        Err(BdevError::BeingRemoved { .. } | BdevError::Gone { .. } | BdevError::NoSuchBdev { .. }) => {
            Ok(None)
        }
        Err(other) => Err(other.to_string()),
    }
}
