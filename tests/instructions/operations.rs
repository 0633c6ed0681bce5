//! Does one thing many times, so that the instructions of one can be counted: `instructions WHAT COUNT`.
//!
//! Run by `tests/run instructions` under valgrind at two counts; the difference, divided, is what one takes,
//! without start and end of the process. Everything is on one OS thread that steps a Spindle thread: the same
//! in every run, whatever the machine is doing. Not counted: what the kernel does.

#[path = "../../crates/command/src/perf/flight.rs"]
mod flight;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spindle::blob::{LayoutOptions, LoadOptions};
use spindle::block::load::{Empty, InPieces, PairLoad, Pattern};
use spindle::block::{Channel, Device, Geometry, Io, LaneTable, Limits, Malloc, Null, Operation, QueuePair};
use spindle::engine::{Op, Output};
use spindle::reactor::{Busy, EngineKind, Poller, ThreadRunner, Wake, op};
use spindle::{BlobOptions, Blobstore, InitOptions, IoBuf, Thread};

use flight::{buffers, fly};

/// Why it could not be done.
type Failed = Box<dyn Error + Send + Sync>;

/// Pollers, and requests or messages in flight.
const MANY: u64 = 100;

/// Bytes of a read.
const BLOCK: u32 = 512;

/// Bytes of a write.
const PAGE: u64 = 4096;

/// Bytes of a cluster.
const SMALL_CLUSTER: u64 = 64 << 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let count = arguments.next().and_then(|count| count.parse().ok());
    let outcome = count.ok_or_else(|| "usage: instructions WHAT COUNT".into()).and_then(|n| run(&what, n));
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("instructions: {error}");
    ExitCode::FAILURE
}

fn run(what: &str, count: u64) -> Result<(), Failed> {
    let mut runner = ThreadRunner::new("counted", EngineKind::Epoll)?;
    match what {
        "message" => messages(&mut runner, count),
        "message-idle" => {
            let idle = idle_threads(&mut runner)?;
            let done = messages(&mut runner, count);
            drop(idle);
            done
        }
        "message-parked" => {
            work(&mut runner, parked_receives)?;
            messages(&mut runner, count)
        }
        "poller-call" => {
            pollers(&mut runner, MANY, count, || Poller::active("idle", Wake::Event("none"), || Busy::No))
        }
        "poller-turn" => {
            pollers(&mut runner, 1, count, || Poller::active("idle", Wake::Event("none"), || Busy::No))
        }
        "timed-run" => pollers(&mut runner, MANY, count, due_in_every_turn),
        "timed-turn" => pollers(&mut runner, 1, count, due_in_every_turn),
        "thread" => work(&mut runner, async move || threads(count).await),
        "bare-read" => work(&mut runner, async move || bare_reads(count).await),
        "null-read" | "null-write" | "null-idle" | "null-layer" | "null-cut" | "null-cut-list"
        | "null-counted" | "null-limited" => {
            let what = what.to_owned();
            work(&mut runner, async move || null_reads(&what, count).await)
        }
        "limit-few" => work(&mut runner, async move || limited(10, count).await),
        "limit-many" => work(&mut runner, async move || limited(100_000, count).await),
        "limit-idle" => work(&mut runner, async move || limited_beside_idle(100_000, count).await),
        "blob-read" => work(&mut runner, async move || blob_reads(count).await),
        "thin-fill" => work(&mut runner, async move || thin_fill(count, PAGE, MANY as usize).await),
        "new-cluster" => work(&mut runner, async move || thin_fill(count, SMALL_CLUSTER, 1).await),
        "load" => work(&mut runner, async move || loads(count).await),
        _ => Err(format!("'{what}' is none of the operations in tests/instructions/bounds").into()),
    }
}

/// Runs a future on the runner's thread to its end.
fn work<F>(runner: &mut ThreadRunner, future: F) -> Result<(), Failed>
where
    F: AsyncFnOnce() -> Result<(), Failed> + Send + 'static,
{
    let (ended, result) = (Arc::new(AtomicU64::new(0)), runner.thread());
    let end = ended.clone();
    let result = result.spawn(async move || {
        let result = future().await;
        end.store(1, Ordering::Relaxed);
        result
    });
    runner.run_until(|| ended.load(Ordering::Relaxed) == 1);
    result.wait()?
}

/// A hundred thousand threads that wait: a third for nothing, the others for a timer.
fn idle_threads(runner: &mut ThreadRunner) -> Result<Vec<Thread>, Failed> {
    let made = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = made.clone();
    work(runner, async move || {
        let here = Thread::current().ok_or("not on a Spindle thread")?;
        for place in 0..100_000 {
            let thread = Thread::create_on("idle", here.cores())?;
            if place % 3 > 0 {
                thread
                    .run(async || drop(spindle::spawn_local(spindle::sleep(Duration::from_secs(3600)))))
                    .await?;
            }
            keep.lock().map_err(|_| "a thread panicked")?.push(thread);
        }
        Ok(())
    })?;
    Ok(std::mem::take(&mut *made.lock().map_err(|_| "a thread panicked")?))
}

/// A thousand receives on a stream whose other end sends nothing.
async fn parked_receives() -> Result<(), Failed> {
    let Output::Pair(ours, theirs) = op(Op::Pair).await.0? else { return Err("no pair".into()) };
    for _ in 0..1000 {
        let receive = op(Op::Recv { socket: ours.clone(), buffers: IoBuf::zeroed(64).into() });
        let other_end = theirs.clone();
        drop(spindle::spawn_local(async move {
            let _ended = receive.await;
            drop(other_end);
        }));
    }
    // Each begins to wait when its task is first polled.
    spindle::sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// Messages to and fro between two threads of one reactor.
fn messages(runner: &mut ThreadRunner, count: u64) -> Result<(), Failed> {
    let left = Arc::new(AtomicU64::new(count));
    let go_on = left.clone();
    let begin = async move || {
        let here = Thread::current().ok_or("not on a Spindle thread")?;
        let there = Thread::create_on("other", here.cores())?;
        for _ in 0..MANY {
            hop(there.clone(), here.clone(), go_on.clone());
        }
        Ok(())
    };
    work(runner, begin)?;
    runner.run_until(|| left.load(Ordering::Relaxed) == 0);
    Ok(())
}

/// Sends a message that sends the next one back, as long as some are left.
fn hop(to: Thread, from: Thread, left: Arc<AtomicU64>) {
    let next = to.clone();
    // Refused by a thread that has exited, when all is over.
    let _ = to.send_msg(move || {
        let before = left.load(Ordering::Relaxed);
        if before > 0 {
            left.store(before - 1, Ordering::Relaxed);
            hop(from, next, left);
        }
    });
}

/// A timed poller that is due again in every turn.
fn due_in_every_turn() -> Poller {
    Poller::timed("timed", Duration::from_nanos(1), || Busy::Yes)
}

/// As many turns as give `count` calls of so many pollers.
fn pollers(
    runner: &mut ThreadRunner,
    many: u64,
    count: u64,
    make: impl Fn() -> Poller + Send + 'static,
) -> Result<(), Failed> {
    let begin = async move || {
        let pollers: Vec<Poller> = (0..many).map(|_| make()).collect();
        // They live as long as this task, which is to say as the runner.
        drop(spindle::spawn_local(async move {
            std::future::pending::<()>().await;
            drop(pollers);
        }));
        Ok(())
    };
    work(runner, begin)?;
    for _ in 0..count / many {
        runner.step();
    }
    Ok(())
}

/// Threads made, each called once, and ended.
async fn threads(count: u64) -> Result<(), Failed> {
    let here = Thread::current().ok_or("not on a Spindle thread")?;
    for _ in 0..count {
        let thread = Thread::create_on("short-lived", here.cores())?;
        thread.run(async || ()).await?;
        thread.exit();
        thread.joined().await;
    }
    Ok(())
}

/// Reads of scattered blocks of a memory disk.
async fn bare_reads(count: u64) -> Result<(), Failed> {
    let channel = Channel::open(Malloc::new("malloc", BLOCK, 1 << 15)?)?;
    let mut pattern = Pattern::random(&channel.geometry(), u64::from(BLOCK), 1)?;
    fly(count, &mut buffers(MANY as usize, BLOCK as usize), |buffers| {
        channel.read(pattern.next_start() * u64::from(BLOCK), buffers)
    })
    .await
}

/// Reads of scattered blocks of a device that does nothing, by a queue pair.
async fn null_reads(what: &str, count: u64) -> Result<(), Failed> {
    let null = Null::leaving_buffers_alone("null", Geometry::new(BLOCK, 1 << 15)?);
    let state = null.state().ok_or("a null device has a state")?.clone();
    let device: Arc<dyn Device> = match what {
        "null-layer" => Empty::layers(null, 1),
        "null-cut" | "null-cut-list" => InPieces::of(null, 2),
        _ => null,
    };
    match what {
        "null-counted" => state.keep_statistics(true).await,
        "null-limited" => {
            let limits = Limits { operations: Some(u64::MAX / 2), ..Limits::default() };
            state.set_limits(limits).await;
        }
        _ => {}
    }
    // Lanes that are not used.
    let mut idle = Vec::new();
    for _ in 0..if what == "null-idle" { 4096 } else { 0 } {
        idle.push(Channel::open(Null::new("idle", Geometry::new(BLOCK, 1)?))?);
    }
    let pattern = Pattern::random(&device.geometry(), 8 * u64::from(BLOCK), 1)?;
    let pair = QueuePair::open(&device)?;
    let mut load = match what {
        "null-write" => PairLoad::new(pair, Operation::Write, MANY as usize, pattern),
        "null-cut-list" => PairLoad::vectored(pair, Operation::Read, MANY as usize, pattern, 3),
        _ => PairLoad::new(pair, Operation::Read, MANY as usize, pattern),
    };
    Ok(load.round(count).await?)
}

/// A pair on a device that does nothing, with a limit of a million requests a second, on a table stepped by hand.
fn limited_pair() -> Result<(LaneTable, QueuePair), Failed> {
    let (table, null) = (LaneTable::default(), Null::leaving_buffers_alone("null", Geometry::new(BLOCK, 1)?));
    let state = null.state().ok_or("a null device has a state")?.clone();
    let pair = table.queue_pair(&(null as Arc<dyn Device>))?;
    let limits = Limits { operations: Some(1_000_000), ..Limits::default() };
    drop(state.set_limits(limits));
    table.step();
    Ok((table, pair))
}

/// A read of each of so many users.
fn reads_of_users(pair: &mut QueuePair, users: u64) -> Vec<Io> {
    let read = |user| {
        let mut io = pair.request(Operation::Read, 0, 1, IoBuf::zeroed(BLOCK as usize));
        io.set_tag(user);
        io
    };
    (0..users).map(read).collect()
}

/// Requests of so many users, each with one that waits for the limit, as long as the time takes to let them go.
async fn limited(users: u64, count: u64) -> Result<(), Failed> {
    let (table, mut pair) = limited_pair()?;
    let (mut ready, mut done) = (reads_of_users(&mut pair, users), 0);
    while done < count {
        for io in ready.drain(..) {
            pair.set_user(io.tag() as u32);
            pair.submit(io);
        }
        table.advance(Duration::from_micros(10));
        table.step();
        done += pair.reap(|io, _| ready.push(io)) as u64;
    }
    Ok(())
}

/// Requests of one user, beside so many others that have made one each.
async fn limited_beside_idle(users: u64, count: u64) -> Result<(), Failed> {
    let (table, mut pair) = limited_pair()?;
    let mut ready = reads_of_users(&mut pair, users);
    let mut left = users + count;
    while left > 0 {
        if let Some(io) = ready.pop() {
            pair.set_user(io.tag() as u32);
            pair.submit(io);
        }
        table.advance(Duration::from_micros(1));
        table.step();
        let last = left <= count + 1;
        left -= pair.reap(|io, _| if last { ready.push(io) } else { drop(io) }) as u64;
    }
    Ok(())
}

/// A memory disk with blocks of a metadata page, and a store with small clusters on it.
async fn small_clusters() -> Result<(Arc<dyn Device>, Blobstore), Failed> {
    let disk: Arc<dyn Device> = Malloc::of_bytes("malloc", 256 << 20)?;
    let layout = LayoutOptions { cluster_size: SMALL_CLUSTER as u32, ..LayoutOptions::default() };
    let options = InitOptions { layout, ..InitOptions::default() };
    Ok((disk.clone(), Blobstore::init(disk, options).await?))
}

/// Writes of 4 KiB to a thin blob, one at every `step`.
async fn thin_fill(count: u64, step: u64, depth: usize) -> Result<(), Failed> {
    let (_disk, store) = small_clusters().await?;
    let clusters = (count * step).div_ceil(store.cluster_size().into());
    let blob = store.open_blob(store.create_blob(BlobOptions::thin(clusters)).await?).await?;
    let (channel, mut at) = (blob.channel()?, 0);
    fly(count, &mut buffers(depth, PAGE as usize), |buffers| {
        at += step;
        channel.write(at - step, buffers)
    })
    .await?;
    blob.close().await?;
    Ok(store.unload().await?)
}

/// Loads of a store that was left in order, with a hundred blobs of one extent page each.
async fn loads(count: u64) -> Result<(), Failed> {
    let (disk, store) = small_clusters().await?;
    for _ in 0..100 {
        let blob = store.open_blob(store.create_blob(BlobOptions::thin(4)).await?).await?;
        blob.write(0, IoBuf::zeroed(4096)).await.0?;
        blob.close().await?;
    }
    store.unload().await?;
    for _ in 0..count {
        Blobstore::load(disk.clone(), LoadOptions::default()).await?.unload().await?;
    }
    Ok(())
}

/// Reads of scattered blocks of a blob with its own clusters, on a memory disk.
async fn blob_reads(count: u64) -> Result<(), Failed> {
    let disk = Malloc::new("malloc", BLOCK, 1 << 17)?;
    let store = Blobstore::init(disk.clone(), InitOptions::default()).await?;
    let blob = store.open_blob(store.create_blob(BlobOptions::thick(16)).await?).await?;
    let mut pattern = Pattern::random(&disk.geometry(), u64::from(BLOCK), 1)?;
    let bytes = 16 * u64::from(store.cluster_size());
    let channel = blob.channel()?;
    fly(count, &mut buffers(MANY as usize, BLOCK as usize), |buffers| {
        channel.read(pattern.next_start() * u64::from(BLOCK) % bytes, buffers)
    })
    .await?;
    blob.close().await?;
    Ok(store.unload().await?)
}
