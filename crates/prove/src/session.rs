//! One run of a workload in a simulated world, from making or loading the store to the last operation.
//!
//! The run is recorded: its events, and the disk before every write, unmap and flush. It ends without
//! unloading the store; the owner of the record can crash it at any point. The same plan gives the same
//! record.

use std::sync::Arc;
use std::time::Duration;

use spindle_blob::ordering::Order;
use spindle_blob::{Blobstore, LoadOptions};
use spindle_block::{Device, File, FileOptions, SimDisk};
use spindle_engine::sim::{Disk, Image, State, World};
use spindle_format::page::PAGE_SIZE;
use spindle_reactor::{Runtime, Thread, timeout};

use crate::context::{Context, History};
use crate::failing;
use crate::growing::Growing;
use crate::look::look;
use crate::metadata;
use crate::model::{Model, Rules};
use crate::op::{Op, Outcome, Tag};
use crate::profile::Profile;
use crate::seen::{Found, Seen, SeenBlob, Wrong, raw};
use crate::verdict::{judge, judge_now};
use crate::workload::{below, change_metadata, do_io};

/// An operation that takes longer than this in simulated time counts as hung.
const LONGEST: Duration = Duration::from_secs(20);

/// The most copies of metadata pages that a store keeps, plus the one being made.
const COPIES: u32 = 18;

/// The start of a run.
pub enum Start {
    /// With a disk that holds no store.
    Fresh,
    /// With the image that a crash left, and the model of what it may hold.
    Crashed(Image, Box<Model>),
    /// With the disk as it was when the program was killed.
    Killed(State, Box<Model>),
}

/// The plan of a run.
pub struct Plan {
    /// Seed of every choice.
    pub seed: u64,
    /// Disk, store and preferences.
    pub profile: Profile,
    /// The ordering points that the store keeps.
    pub order: Order,
    /// The start.
    pub start: Start,
    /// Operations on metadata.
    pub changes: u32,
    /// Operations on data for each task that performs them.
    pub io: u32,
}

/// The record of a run.
pub struct Record {
    /// The model at the beginning.
    pub model: Model,
    /// The events after that.
    pub history: History,
    /// Errors during the run.
    pub wrong: Wrong,
}

/// Runs a plan.
pub fn run(plan: Plan) -> Record {
    let Plan { seed, profile, order, start, changes, io } = plan;
    let rules = Rules::of(&profile);
    let options = profile.disk(seed);
    let (disk, model, crashed) = match start {
        Start::Fresh => (Disk::from_image(profile.used_disk(), options), Model::new(rules), false),
        Start::Crashed(image, model) => (Disk::from_image(image, options), *model, true),
        Start::Killed(state, model) => (Disk::from_state(state, options), *model, true),
    };
    let world = World::new(seed);
    let first = model.clone();
    let runtime = Runtime::builder().reactors(2).world(world.clone()).build();
    let slow = profile.slow;
    let device = disk.clone();
    let main = async move || {
        let device = open(&world, device, seed, slow).await;
        let device = Growing::new(device, profile.device_bytes(), model.device_grown);
        let run = Context::new(profile, order, device, model);
        let limited =
            timeout(LONGEST, session(run.clone(), disk.clone(), (seed, crashed), changes, io)).await;
        if limited.is_err() {
            run.wrong("an operation did not end".to_owned());
        }
        disk.unobserve();
        run.take()
    };
    let ran = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.run(main).map_err(|error| format!("the run ended without a result: {error}"))
    });
    match ran {
        Ok((history, wrong)) => Record { model: first, history, wrong },
        Err(error) => Record { model: first, history: History::default(), wrong: vec![error] },
    }
}

/// Opens the disk as a device whose requests take time if `slow`, and otherwise take effect when they
/// complete.
async fn open(world: &World, disk: Disk, seed: u64, slow: bool) -> Arc<dyn Device> {
    if slow {
        world.add_disk("disk", disk);
        let opened = File::open(FileOptions::new("disk").writable(true).name("disk")).await;
        return opened.expect("the world has a disk of this name, and its sizes fit");
    }
    SimDisk::new("disk", disk, seed).expect("the disk's sizes fit each other")
}

async fn session(run: Arc<Context>, disk: Disk, (seed, crashed): (u64, bool), changes: u32, io: u32) {
    let opened = match crashed {
        true => recover(&run, &disk).await,
        false => {
            watch(&run, &disk);
            metadata::make(&run).await
        }
    };
    if let Err(wrong) = opened {
        return run.wrong(wrong);
    }
    if run.profile.failing && failing::inject(&disk, seed, !crashed, run.profile.scenario) {
        run.set_failing(disk.clone());
    }
    let mut tasks = Vec::new();
    // If several tasks change metadata, each does less.
    let several = run.profile.changers > 1;
    let changes = if several { (changes / run.profile.changers).max(2) } else { changes };
    for (name, cores) in [("io on the first core", "[0]"), ("io on the second core", "[1]")] {
        match Thread::create(name, cores) {
            Ok(thread) => {
                for _ in 0..2 {
                    let run = run.clone();
                    tasks.push(thread.spawn(async move || do_io(run, io).await));
                }
                // One runs on the store's own thread, one or two on others.
                if tasks.len() / 2 < run.profile.changers as usize {
                    let run = run.clone();
                    tasks.push(thread.spawn(async move || change_metadata(run, changes).await));
                }
            }
            Err(error) => run.wrong(error.to_string()),
        }
    }
    change_metadata(run.clone(), changes).await;
    for task in tasks {
        if let Err(error) = task.await {
            run.wrong(format!("a task of the workload ended: {error}"));
        }
    }
    disk.clear_faults();
    // Operations left in doubt by a failure are judged at the crashes.
    if !run.is_stopped() && disk.counters().faults == 0 {
        all_is_as_it_should_be(&run, &disk).await;
    }
}

/// Records the disk from here on.
fn watch(run: &Arc<Context>, disk: &Disk) {
    let run = run.clone();
    disk.observe(move |moment, state| {
        if moment.before {
            run.point(moment, state);
        }
    });
}

/// Loads the image that a crash left. The model must allow its contents, and is narrowed to them.
async fn recover(run: &Arc<Context>, disk: &Disk) -> Result<(), String> {
    watch(run, disk);
    let grow = run.profile.growth > 0 && below(6) == 0;
    if grow {
        run.device.grow();
    }
    let begun = run.begin(&Op::Load { grow });
    let options = LoadOptions { force_recover: below(8) == 0, grow, ..LoadOptions::default() };
    let store = match metadata::load(run, options).await {
        Ok(store) => store,
        Err(error) => {
            let judged = run.model(|model| judge(model, Err(&error.to_string())));
            judged.map_err(|wrong| told("at the load: ", &wrong))?;
            run.found(None);
            return metadata::make(run).await;
        }
    };
    run.end(begun, Outcome::Done(None));
    let seen = look(run, &store).await.map_err(|error| format!("after the load: {error}"))?;
    run.model(|model| judge(model, Ok(&seen))).map_err(|wrong| told("after the load: ", &wrong))?;
    let wrong = accounts(run, &store, disk, &seen).await;
    if !wrong.is_empty() {
        return Err(told("after the load: ", &wrong));
    }
    run.found(Some(seen));
    metadata::open_all(run).await;
    Ok(())
}

/// With no operation in progress: compares the store with the model and the disk, and looks for leaks.
async fn all_is_as_it_should_be(run: &Arc<Context>, disk: &Disk) {
    let Some(store) = run.store() else { return };
    let seen = match look(run, &store).await {
        Ok(seen) => seen,
        Err(error) => return run.wrong(format!("at the end: {error}")),
    };
    if let Err(wrong) = run.model(|model| judge_now(model, &seen)) {
        run.wrong(told("at the end: ", &wrong));
    }
    let wrong = accounts(run, &store, disk, &seen).await;
    wrong.into_iter().for_each(|wrong| run.wrong(format!("at the end: {wrong}")));
}

/// Compares what a store in use reports with what is on the disk: its blobs, and the free space. Returns the
/// differences.
async fn accounts(run: &Context, store: &Blobstore, disk: &Disk, seen: &Seen) -> Wrong {
    let raw = match raw(disk.snapshot().visible()) {
        Ok(Found::Store(raw)) => raw,
        Ok(Found::Nothing(why)) => return vec![format!("the store cannot be loaded: {why}")],
        Err(wrong) => return wrong,
    };
    let info = match store.info().await {
        Ok(info) => info,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Wrong::new();
    if raw.store.free_clusters() != info.free_clusters {
        let (says, real) = (info.free_clusters, raw.store.free_clusters());
        wrong.push(format!("the store says that {says} clusters are free, the disk that {real} are"));
    }
    // Copies of pages are in use in memory; a load does not count them.
    let pages = raw.store.used_pages.count();
    let copies = if (run.profile.known_atomic_unit() as usize) < PAGE_SIZE { COPIES } else { 0 };
    if !(pages..=pages + copies).contains(&info.used_md_pages) {
        let says = info.used_md_pages;
        wrong
            .push(format!("the store says that {says} metadata pages are in use, the disk that {pages} are"));
    }
    // Xattrs may not be on the disk yet.
    let same = |(tag, on_disk): (&Tag, &SeenBlob)| {
        let known = seen.blobs.get(tag);
        known.is_some_and(|seen| SeenBlob { xattrs: seen.xattrs.clone(), ..on_disk.clone() } == *seen)
    };
    let all = raw.seen.blobs.len() == seen.blobs.len() && raw.seen.blobs.iter().all(same);
    if !all || (raw.seen.super_blob, raw.seen.bs_type) != (seen.super_blob, seen.bs_type) {
        wrong.push(format!("the store shows {seen:?}, the disk {:?}", raw.seen));
    }
    wrong
}

fn told(when: &str, wrong: &Wrong) -> String {
    format!("{when}{}", wrong.join("; "))
}
